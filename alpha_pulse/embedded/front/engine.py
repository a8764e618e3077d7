"""The engine inside this process: connections, their settings, sessions, queries."""

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

from alpha_pulse.embedded.front.failures import (
    BAD_ARGUMENTS,
    READONLY,
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    SYNTAX_ERROR,
    QueryFailure,
    from_engine,
)
from alpha_pulse.embedded.front.request import QueryRequest

IDLE_CONNECTIONS_MAX = 16
SESSIONS_MAX = 256
# The bindings below chdb's own face: that one hides the parser (`classify_query`).
_bindings: Any = chdb._chdb
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Classes of statements, as the engine's own parser tells them.
READ_ONLY, CONTROL = "READ_ONLY", "CONTROL"


@dataclass(frozen=True)
class Answer:
    """What a query gave."""

    content: bytes
    format: str
    summary: Mapping[str, str]


@dataclass
class _Connection:
    handle: Any
    database: str | None = "default"  # None: a statement may have changed it
    settings: dict[str, str] = field(default_factory=dict)


@dataclass
class _Session:
    connection: _Connection
    lock: threading.Lock
    expires_at: float = 0.0


class Engine:
    """One open data directory; safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._root = _bindings.connect(self._path)  # keeps the engine open while no query runs
        self._parser = _bindings.connect(self._path)
        self._parser_lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._lock = threading.Lock()
        self.version = str(chdb.engine_version)
        self.timezone = self._root.query("SELECT timezone()", "TSV").bytes().decode().strip()

    def close(self) -> None:
        """Close every connection; running queries must have ended."""
        with self._lock:
            open_connections = [*self._idle, *(s.connection for s in self._sessions.values())]
            self._idle.clear()
            self._sessions.clear()
        for connection in open_connections:
            connection.handle.close()
        self._parser.close()
        self._root.close()

    def run(self, request: QueryRequest) -> Answer:
        """Run one query to its end. Blocks.

        Raises: QueryFailure.
        """
        kind = self._classify(request)
        if request.session_id is None:
            connection = self._take(request)
            keep = False
            try:
                answer = self._run_on(connection, request)
                keep = kind != CONTROL  # SET, USE and temporary tables end with their query
                return answer
            finally:
                self._give_back(connection, keep)
        session = self._session(request)
        if not session.lock.acquire(timeout=0):
            raise QueryFailure(SESSION_IS_LOCKED, f"Session {request.session_id} is locked")
        try:
            return self._run_on(session.connection, request)
        finally:
            if kind == CONTROL:
                session.connection.database = None
            session.expires_at = time.monotonic() + request.session_timeout_s
            session.lock.release()

    def _classify(self, request: QueryRequest) -> str:
        # Rows behind an INSERT may be binary and are no part of the statement.
        head = request.text[:16_384].decode("utf-8", "replace")
        with self._parser_lock:
            found = self._parser.classify_query(head)
            if found["query_class"].name == "UNKNOWN" and len(request.text) > len(head):
                found = self._parser.classify_query(request.text.decode("utf-8", "replace"))
        kind = str(found["query_class"].name)
        if found["statement_count"] > 1:
            raise QueryFailure(SYNTAX_ERROR, "Multi-statements are not allowed")
        if request.method != "POST" and kind != READ_ONLY and kind != "UNKNOWN":
            raise QueryFailure(
                READONLY,
                "Cannot execute query in readonly mode. For queries over HTTP, method GET implies "
                "readonly. You should use method POST for modifying queries",
            )
        return kind

    def _run_on(self, connection: _Connection, request: QueryRequest) -> Answer:
        started = time.perf_counter_ns()
        try:
            self._configure(connection, request)
            result = connection.handle.query(
                request.text, request.default_format, params=dict(request.params)
            )
        except (RuntimeError, ValueError) as error:
            raise from_engine(error) from error
        summary = {
            "read_rows": str(result.storage_rows_read()),
            "read_bytes": str(result.storage_bytes_read()),
            "written_rows": str(result.rows_written()),
            "written_bytes": str(result.bytes_written()),
            "total_rows_to_read": "0",
            "result_rows": str(result.rows_read() or result.rows_written()),
            "result_bytes": str(result.bytes_read()),
            "elapsed_ns": str(time.perf_counter_ns() - started),
        }
        return Answer(result.bytes() or b"", request.format, summary)

    def _configure(self, connection: _Connection, request: QueryRequest) -> None:
        wanted = dict(request.settings)
        changes = [
            f"{_checked(name)} = {_quoted(value)}"
            for name, value in wanted.items()
            if connection.settings.get(name) != value
        ]
        changes += [f"{name} = DEFAULT" for name in connection.settings if name not in wanted]
        if changes:
            connection.settings = {**connection.settings, **wanted}  # a failed SET may be half done
            connection.handle.query(f"SET {', '.join(changes)}")
            connection.settings = wanted
        if request.database is not None and request.database != connection.database:
            name = request.database.replace("\\", "\\\\").replace("`", "\\`")
            connection.handle.query(f"USE `{name}`")
            connection.database = request.database

    def _take(self, request: QueryRequest) -> _Connection:
        database = request.database or "default"
        with self._lock:
            fitting = [c for c in self._idle if c.database == database]
            same = [c for c in fitting if c.settings == request.settings]
            for connection in (same or fitting)[-1:]:
                self._idle.remove(connection)
                return connection
        return _Connection(_bindings.connect(self._path))

    def _give_back(self, connection: _Connection, keep: bool) -> None:
        with self._lock:
            if keep and len(self._idle) < IDLE_CONNECTIONS_MAX:
                self._idle.append(connection)
                return
        connection.handle.close()

    def _session(self, request: QueryRequest) -> _Session:
        key = (request.user, request.session_id or "")
        now = time.monotonic()
        expired = []
        with self._lock:
            for other, session in list(self._sessions.items()):
                if session.expires_at < now and session.lock.acquire(blocking=False):
                    expired.append(self._sessions.pop(other))
            found = self._sessions.get(key)
            if found is None:
                if request.session_check:
                    raise QueryFailure(SESSION_NOT_FOUND, f"Session {request.session_id} not found")
                if len(self._sessions) >= SESSIONS_MAX:
                    raise QueryFailure(
                        BAD_ARGUMENTS,
                        f"expected at most {SESSIONS_MAX} sessions, found one more; use fewer "
                        f"session_id values or a shorter session_timeout",
                    )
                found = _Session(_Connection(_bindings.connect(self._path)), threading.Lock())
                self._sessions[key] = found
            found.expires_at = now + request.session_timeout_s
        for session in expired:
            session.connection.handle.close()
        return found


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise QueryFailure(BAD_ARGUMENTS, f"expected the name of a setting, found {name!r}")
    return name


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
