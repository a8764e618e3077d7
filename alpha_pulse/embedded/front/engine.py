"""The engine inside this process: its connections, their settings, its sessions."""

import itertools
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

from alpha_pulse.embedded.front import access
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
from alpha_pulse.embedded.front.users import Role

IDLE_CONNECTIONS_MAX = 24
SESSIONS_MAX = 256
SESSION_WAIT_S = 0.5
# The bindings below chdb's own face: that one hides the parser (`classify_query`).
_bindings: Any = chdb._chdb
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class Connection:
    """One handle of the engine. It runs one query at a time, found by `tag` among all."""

    handle: Any
    tag: str
    role: Role
    read_only: bool  # sticky: nothing can be set any more
    database: str | None = "default"  # None: a statement may have changed it
    settings: dict[str, str] = field(default_factory=dict)


@dataclass
class _Session:
    lock: threading.Lock
    connection: Connection | None = None
    expires_at: float = 0.0


class Lease:
    """A connection lent for one query, and how it comes back."""

    def __init__(self, engine: "Engine", request: QueryRequest, role: Role, kind: str) -> None:
        self._engine = engine
        self._request = request
        self._kind = kind
        self._session = engine.session(request) if request.session_id is not None else None
        # A reader's session holds no state, so any connection with the right settings serves.
        own = self._session is not None and role is Role.ADMIN
        try:
            if own:
                assert self._session is not None
                if self._session.connection is None:
                    self._session.connection = engine.connect(role, read_only=False)
                self.connection = self._session.connection
            else:
                self.connection = engine.take(request, role, kind)
        except BaseException:
            self._end_session()
            raise
        self._own = own

    def give_back(self, *, reusable: bool) -> None:
        """Return the connection; the query has ended."""
        if self._own:
            if self._kind == access.CONTROL:
                self.connection.database = None
        else:
            # SET, USE and temporary tables end with their query, as they do on a server.
            keep = reusable and (self._kind != access.CONTROL or self.connection.read_only)
            self._engine.give_back(self.connection, keep)
        self._end_session()

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.expires_at = time.monotonic() + self._request.session_timeout_s
            self._session.lock.release()


class Engine:
    """One open data directory; safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._root = _bindings.connect(self._path)  # keeps the engine open while no query runs
        self._parser = _bindings.connect(self._path)
        self._control = _bindings.connect(self._path)
        self._parser_lock = threading.Lock()
        self._control_lock = threading.Lock()
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._tags = itertools.count(1)
        self.version = str(chdb.engine_version)
        self.timezone = self._rows("SELECT timezone()")[0]
        self._table_functions = self._rows("SELECT name FROM system.table_functions")

    def close(self) -> None:
        """Close every connection; running queries must have ended."""
        with self._lock:
            sessions = [s.connection for s in self._sessions.values() if s.connection is not None]
            connections = [*self._idle, *sessions]
            self._idle.clear()
            self._sessions.clear()
        for connection in connections:
            connection.handle.close()
        for handle in (self._parser, self._control, self._root):
            handle.close()

    def inspect(self, request: QueryRequest, role: Role) -> str:
        """Return the class of a statement that this role may run.

        Raises: QueryFailure when it may not, or when there is more than one statement.
        """
        access.check_settings(role, request.settings)
        # Rows behind an INSERT may be binary and long, and are no part of the statement.
        head = access.insert_head(request.text)
        statement = request.text if head is None else head.text
        text = statement.decode("utf-8", "replace")
        with self._parser_lock:
            found = self._parser.classify_query(text)
        kind = str(found["query_class"].name)
        if found["statement_count"] > 1:
            raise QueryFailure(SYNTAX_ERROR, "Multi-statements are not allowed")
        if request.method != "POST" and kind not in (access.READ_ONLY, access.UNKNOWN):
            raise QueryFailure(
                READONLY,
                "Cannot execute query in readonly mode. For queries over HTTP, method GET implies "
                "readonly. You should use method POST for modifying queries",
            )
        if role is not Role.ADMIN:
            # What the parser does not understand fails here, with its own words.
            tree = self._tree(text, request.params)
            if head is not None:
                access.check_settings(role, head.settings)
            access.check_kind(role, kind, request.text, head)
            access.check_tree(tree, statement, head, self._table_functions, role)
        return kind

    def is_one_statement(self, text: bytes) -> bool:
        """Tell whether the engine sees one statement in a text, rows included."""
        with self._parser_lock:
            found = self._parser.classify_query(text.decode("utf-8", "replace"))
        return bool(found["statement_count"] == 1)

    def configure(self, connection: Connection, request: QueryRequest) -> None:
        """Give a connection the settings and the database of a request.

        Raises: QueryFailure, RuntimeError of the engine.
        """
        wanted = wanted_settings(request)
        if not connection.read_only:
            changes = [
                f"{_checked(name)} = {_quoted(value)}"
                for name, value in wanted.items()
                if connection.settings.get(name) != value
            ]
            changes += [f"{name} = DEFAULT" for name in connection.settings if name not in wanted]
            if changes:
                # A SET that fails may be half done; then all of it is undone next time.
                connection.settings = {**connection.settings, **wanted}
                connection.handle.query(f"SET {', '.join(changes)}")
                connection.settings = wanted
        database = request.database or ("default" if request.session_id is None else None)
        if database is not None and database != connection.database:
            name = database.replace("\\", "\\\\").replace("`", "\\`")
            connection.handle.query(f"USE `{name}`")
            connection.database = database

    def kill(self, tag: str) -> None:
        """Ask the query that runs on a connection to stop; does nothing where none runs."""
        with self._control_lock, suppress(RuntimeError):
            self._control.query(f"KILL QUERY WHERE Settings['log_comment'] = '{tag}' ASYNC", "Null")

    def connect(
        self, role: Role, *, read_only: bool, settings: Mapping[str, str] | None = None
    ) -> Connection:
        """Return a new connection with the limits of a role."""
        tag = f"front-{next(self._tags)}"
        fixed = {"log_comment": tag, **access.LIMITS[role]}
        if role is not Role.ADMIN:
            fixed |= access.FIXED
        connection = Connection(_bindings.connect(self._path), tag, role, read_only)
        try:
            sets = {**fixed, **(settings or {})} if read_only else fixed
            pairs = [f"{_checked(name)} = {_quoted(value)}" for name, value in sets.items()]
            connection.handle.query(f"SET {', '.join(pairs)}")
            if read_only:
                connection.settings = dict(settings or {})
                # Clients ask which settings they may send: to a reader the answer is none. A writer
                # sends some with its rows; `check_tree` refuses those in the text of its queries.
                connection.handle.query(f"SET readonly = {1 if role is Role.READER else 2}")
        except (RuntimeError, ValueError) as error:
            connection.handle.close()
            raise from_engine(error) from error
        return connection

    def take(self, request: QueryRequest, role: Role, kind: str) -> Connection:
        """Lend the idle connection that fits best, or a new one."""
        read_only = role is not Role.ADMIN and kind == access.READ_ONLY
        wanted = wanted_settings(request)
        with self._lock:
            fitting = [c for c in self._idle if c.role is role and c.read_only == read_only]
            same = [c for c in fitting if c.settings == wanted]
            choice = same or ([] if read_only else fitting)
            best = [c for c in choice if c.database == (request.database or "default")]
            for connection in (best or choice)[-1:]:
                self._idle.remove(connection)
                return connection
        return self.connect(role, read_only=read_only, settings=wanted)

    def give_back(self, connection: Connection, keep: bool) -> None:
        """Take a lent connection back."""
        surplus: list[Connection] = []
        with self._lock:
            (self._idle if keep else surplus).append(connection)
            while len(self._idle) > IDLE_CONNECTIONS_MAX:
                surplus.append(self._idle.pop(0))
        for old in surplus:
            old.handle.close()

    def session(self, request: QueryRequest) -> _Session:
        """Return the session that a request names, locked for it.

        Raises: QueryFailure when it is in use, was to exist and does not, or is one too many.
        """
        key = (request.user, request.session_id or "")
        now = time.monotonic()
        expired = []
        try:
            with self._lock:
                for other, session in list(self._sessions.items()):
                    if session.expires_at < now and session.lock.acquire(blocking=False):
                        expired.append(self._sessions.pop(other))
                found = self._sessions.get(key)
                if found is None:
                    found = self._new_session(request, now)
                    self._sessions[key] = found
                found.expires_at = max(found.expires_at, now + SESSION_WAIT_S + 1)
        finally:
            for session in expired:
                if session.connection is not None:
                    session.connection.handle.close()
        # The last query of a client that broke off may still be ending.
        if not found.lock.acquire(timeout=SESSION_WAIT_S):
            raise QueryFailure(
                SESSION_IS_LOCKED, f"Session {request.session_id} is locked by a concurrent client"
            )
        return found

    def _new_session(self, request: QueryRequest, now: float) -> _Session:
        if request.session_check:
            raise QueryFailure(SESSION_NOT_FOUND, f"Session {request.session_id} not found")
        if len(self._sessions) >= SESSIONS_MAX:
            raise QueryFailure(
                BAD_ARGUMENTS,
                f"expected at most {SESSIONS_MAX} sessions, found one more; use fewer session_id "
                f"values or a shorter session_timeout",
            )
        return _Session(threading.Lock(), expires_at=now + request.session_timeout_s)

    def _tree(self, text: str, params: Mapping[str, str]) -> str:
        with self._parser_lock:
            try:
                result = self._parser.query(f"EXPLAIN AST {text}", "TSVRaw", params=dict(params))
            except (RuntimeError, ValueError) as error:
                raise from_engine(error) from error
            return bytes(result.bytes()).decode("utf-8", "replace")

    def _rows(self, sql: str) -> list[str]:
        return bytes(self._root.query(sql, "TSVRaw").bytes()).decode().splitlines()


def wanted_settings(request: QueryRequest) -> dict[str, str]:
    """Return a request's settings without those that the front keeps for itself."""
    # `log_comment` is how a running query is found again; there is no query log to show it in.
    own = (
        {"log_comment", "readonly"} if request.settings.get("readonly") != "1" else {"log_comment"}
    )
    return {name: value for name, value in request.settings.items() if name not in own}


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise QueryFailure(BAD_ARGUMENTS, f"expected the name of a setting, found {name!r}")
    return name


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
