"""One query from its start to its last piece. Methods block: they run on worker threads."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from alpha_pulse.embedded.front import access
from alpha_pulse.embedded.front.engine import Engine, Lease
from alpha_pulse.embedded.front.failures import (
    QUERY_WAS_CANCELLED,
    SYNTAX_ERROR,
    QueryFailure,
    from_engine,
)
from alpha_pulse.embedded.front.formats import Pieces
from alpha_pulse.embedded.front.native import FLAG_SINCE_VERSION, reframe
from alpha_pulse.embedded.front.pipe import ResultPipe
from alpha_pulse.embedded.front.request import QueryRequest
from alpha_pulse.embedded.front.users import Role

KILL_EVERY_S = 0.1
_NOT_STREAMED = "Streaming query is not supported"
_NO_SUCH_COLUMN = 47
# The engine names the file that the rows stand in; to a client it says nothing.
_ROWS_FILE = re.compile(r": \(in file/uri /proc/self/fd/\d+\)")


class Query:
    """A query that runs on a connection of its own for as long as it lasts."""

    def __init__(self, engine: Engine, request: QueryRequest, role: Role) -> None:
        self.request = request
        self.kind = access.UNKNOWN
        self.summary = {
            "read_rows": 0,
            "read_bytes": 0,
            "written_rows": 0,
            "written_bytes": 0,
            "total_rows_to_read": 0,
            "result_rows": 0,
            "result_bytes": 0,
            "elapsed_ns": 0,
        }
        self._engine = engine
        self._role = role
        self._pieces = Pieces(request.format)
        self._lease: Lease | None = None
        self._stream: Any = None
        self._pipe: ResultPipe | None = None
        self._started_ns = time.perf_counter_ns()
        self._is_cancelled = False
        self._has_failed = False

    @property
    def is_read_only(self) -> bool:
        """Tell whether it may be stopped half way without harm."""
        return self.kind in (access.READ_ONLY, access.UNKNOWN)

    @property
    def is_done(self) -> bool:
        """Tell whether the whole result has been fetched."""
        return self._stream is None and self._pipe is None

    @property
    def tag(self) -> str:
        """How the engine's list of running queries names it; empty before it has a connection."""
        lease = self._lease
        return lease.connection.tag if lease is not None else ""

    def start(self) -> bytes | None:
        """Start it and return the first piece; None where there is nothing to return.

        Raises: QueryFailure.
        """
        self.kind = self._engine.inspect(self.request, self._role)
        if self._is_cancelled:
            raise QueryFailure(QUERY_WAS_CANCELLED, "Query was cancelled before it began")
        self._lease = Lease(self._engine, self.request, self._role, self.kind)
        try:
            self._engine.configure(self._lease.connection, self.request)
            rows = access.insert_head(self.request.text)
            if rows is not None and self.kind != access.READ_ONLY:
                return self._insert(rows)
            if self.kind != access.READ_ONLY:
                return self._whole()
            if Pieces.can_join(self.request.format):
                return self._joined()
            if access.is_select(self.request.text):
                return self._piped()
            return self._whole()  # SHOW … INTO OUTFILE writes no rows
        except (RuntimeError, ValueError) as error:
            raise self._failure(error) from error

    def fetch(self) -> bytes | None:
        """Return the next piece, None at the end.

        Raises: QueryFailure.
        """
        try:
            if self._pipe is not None:
                return self._read_pipe(self._pipe)
            if self._stream is not None and self._lease is not None:
                return self._read_stream(self._lease.connection.handle)
        except (RuntimeError, ValueError) as error:
            self._stream = None
            raise self._failure(error) from error
        return None

    def cancel(self) -> None:
        """Ask a query that runs now to stop; call it again until it has stopped."""
        self._is_cancelled = True
        if self.tag:
            self._engine.kill(self.tag)

    def close(self) -> None:
        """Give the connection back; no other method runs now."""
        lease = self._lease
        if lease is None:
            return
        if self._pipe is not None:
            while self._pipe.is_running:
                self._engine.kill(lease.connection.tag)
                self._pipe.drain(KILL_EVERY_S)
                self._has_failed = True
            self._pipe.close()
        if self._stream is not None:
            try:
                lease.connection.handle.streaming_cancel_query(self._stream)
            except RuntimeError:
                self._has_failed = True
        self._lease = self._pipe = self._stream = None
        lease.give_back(reusable=not self._has_failed)

    def _joined(self) -> bytes | None:
        assert self._lease is not None
        request, handle = self.request, self._lease.connection.handle
        try:
            self._stream = handle.send_query(
                request.text, request.default_format, params=dict(request.params)
            )
        except RuntimeError as error:
            if _NOT_STREAMED not in str(error):
                raise
            return self._whole()  # SHOW, DESCRIBE and the like: small
        return self._read_stream(handle)

    def _read_stream(self, handle: Any) -> bytes | None:
        result = handle.streaming_fetch_result(self._stream)
        rows = result.rows_read()
        self._count(result.storage_rows_read(), result.storage_bytes_read(), rows)
        piece = self._pieces.add(bytes(result.bytes() or b""), is_last=not rows)
        if not rows:
            self._stream = None
        return self._framed(piece) if rows or piece else None

    def _piped(self) -> bytes | None:
        assert self._lease is not None
        request, handle = self.request, self._lease.connection.handle
        pipe = ResultPipe(handle, request.text, request.default_format, dict(request.params))
        self._pipe = pipe
        try:
            return self._read_pipe(pipe) or b""
        except RuntimeError as error:
            # A comment behind FORMAT, say: then the result is made whole, by the text as it is.
            if from_engine(error).code != SYNTAX_ERROR:
                raise
            return self._whole()

    def _read_pipe(self, pipe: ResultPipe) -> bytes | None:
        try:
            content = pipe.read()
        except RuntimeError:
            self._end_pipe(pipe)
            raise
        if content:
            self.summary["result_bytes"] += len(content)
            return content
        result = pipe.result
        self._count(result.storage_rows_read(), result.storage_bytes_read(), result.rows_read())
        self._end_pipe(pipe)
        return None

    def _end_pipe(self, pipe: ResultPipe) -> None:
        pipe.close()
        self._pipe = None

    def _insert(self, head: access.InsertHead) -> bytes:
        # The engine reads rows that stand behind a statement only as far as an empty line, and what
        # follows as the next statement. So the rows get a file of their own, in memory.
        assert self._lease is not None
        rows_fd = os.memfd_create("rows")
        try:
            with open(rows_fd, "wb", closefd=False) as file:
                file.write(head.rows(self.request.text))
            statement = head.statement(f"/proc/self/fd/{rows_fd}")
            try:
                return self._run(statement, self.request.params)
            except RuntimeError as error:
                # A file does not give the columns that defaults are computed from (EPHEMERAL ones)
                # unless the statement lists them; rows behind the statement do.
                is_one = self._engine.is_one_statement(self.request.text)
                if from_engine(error).code != _NO_SUCH_COLUMN or not is_one:
                    raise
                return self._whole()
        finally:
            os.close(rows_fd)

    def _whole(self) -> bytes:
        return self._run(self.request.text, self.request.params)

    def _run(self, text: bytes, params: Mapping[str, str]) -> bytes:
        assert self._lease is not None
        handle = self._lease.connection.handle
        result = handle.query(text, self.request.default_format, params=dict(params))
        self.summary["written_rows"] = result.rows_written()
        self.summary["written_bytes"] = result.bytes_written()
        rows = result.rows_read() or result.rows_written()
        self._count(result.storage_rows_read(), result.storage_bytes_read(), rows)
        return self._framed(bytes(result.bytes() or b""))

    def _framed(self, content: bytes) -> bytes:
        if self.request.format == "Native" and self.request.protocol_version >= FLAG_SINCE_VERSION:
            content = reframe(content, self.request.protocol_version)
        self.summary["result_bytes"] += len(content)
        return content

    def _count(self, read_rows: int, read_bytes: int, result_rows: int) -> None:
        self.summary["read_rows"] = max(self.summary["read_rows"], read_rows)
        self.summary["read_bytes"] = max(self.summary["read_bytes"], read_bytes)
        self.summary["result_rows"] += result_rows
        self.summary["elapsed_ns"] = time.perf_counter_ns() - self._started_ns

    def _failure(self, error: Exception) -> QueryFailure:
        self._has_failed = True
        failure = from_engine(error)
        return QueryFailure(failure.code, _ROWS_FILE.sub("", failure.message))
