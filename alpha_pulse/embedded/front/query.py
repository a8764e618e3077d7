"""One query from its start to its last piece. Methods block: they run on worker threads."""

import threading
import time
from dataclasses import replace
from typing import Any

from alpha_pulse.embedded.front import access
from alpha_pulse.embedded.front.engine import Engine, Lease
from alpha_pulse.embedded.front.failures import from_engine
from alpha_pulse.embedded.front.formats import Pieces
from alpha_pulse.embedded.front.native import FLAG_SINCE_VERSION, reframe
from alpha_pulse.embedded.front.request import QueryRequest
from alpha_pulse.embedded.front.users import Role

# A result that has to be made whole before it is sent.
WHOLE_RESULT_BYTES_MAX = 256 * 1024 * 1024
_NOT_STREAMED = "Streaming query is not supported"


class Query:
    """A query that runs on a connection of its own for as long as it lasts."""

    def __init__(self, engine: Engine, request: QueryRequest, role: Role) -> None:
        self.request = request
        self.kind = access.UNKNOWN
        self.summary = dict.fromkeys(
            [
                "read_rows",
                "read_bytes",
                "written_rows",
                "written_bytes",
                "total_rows_to_read",
                "result_rows",
                "result_bytes",
                "elapsed_ns",
            ],
            0,
        )
        self._engine = engine
        self._role = role
        self._pieces = Pieces(request.format)
        self._lease: Lease | None = None
        self._stream: Any = None
        self._started_ns = time.perf_counter_ns()
        self._cancelled = threading.Event()
        self._failed = False

    @property
    def is_read_only(self) -> bool:
        """Tell whether it may be stopped half way without harm."""
        return self.kind in (access.READ_ONLY, access.UNKNOWN)

    @property
    def is_done(self) -> bool:
        """Tell whether the whole result has been fetched."""
        return self._stream is None

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
        can_stream = self.kind == access.READ_ONLY and Pieces.can_join(self.request.format)
        request = self.request
        if self.kind == access.READ_ONLY and not can_stream:
            bound = {"max_result_bytes": str(WHOLE_RESULT_BYTES_MAX)}
            request = replace(request, settings={**bound, **request.settings})
        self._lease = Lease(self._engine, request, self._role, self.kind)
        try:
            self._engine.configure(self._lease.connection, request)
            if can_stream:
                handle = self._lease.connection.handle
                try:
                    self._stream = handle.send_query(
                        request.text, request.default_format, params=dict(request.params)
                    )
                except RuntimeError as error:
                    if _NOT_STREAMED not in str(error):
                        raise
                else:
                    return self.fetch()
            return self._whole(request)
        except (RuntimeError, ValueError) as error:
            self._failed = True
            raise from_engine(error) from error

    def fetch(self) -> bytes | None:
        """Return the next piece, None at the end.

        Raises: QueryFailure.
        """
        if self._stream is None or self._lease is None:
            return None
        try:
            result = self._lease.connection.handle.streaming_fetch_result(self._stream)
            piece = bytes(result.bytes() or b"")
            rows = result.rows_read()
            self.summary["read_rows"] = max(self.summary["read_rows"], result.storage_rows_read())
            self.summary["read_bytes"] = max(
                self.summary["read_bytes"], result.storage_bytes_read()
            )
        except (RuntimeError, ValueError) as error:
            self._stream, self._failed = None, True
            raise from_engine(error) from error
        out = self._pieces.add(piece)
        if not rows:
            self._stream = None
            out += self._pieces.end()
        if self.request.format == "Native" and self.request.protocol_version >= FLAG_SINCE_VERSION:
            out = reframe(out, self.request.protocol_version)
        self.summary["result_rows"] += rows
        self.summary["result_bytes"] += len(out)
        self.summary["elapsed_ns"] = time.perf_counter_ns() - self._started_ns
        return out if rows or out else None

    def cancel(self) -> None:
        """Ask a query that runs now to stop; call it again until it has stopped."""
        self._cancelled.set()
        lease = self._lease
        if lease is not None:
            self._engine.kill(lease.connection.tag)

    def close(self) -> None:
        """Give the connection back; no other method runs now."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        if self._stream is not None:
            try:
                lease.connection.handle.streaming_cancel_query(self._stream)
            except RuntimeError:
                self._failed = True
            self._stream = None
        lease.give_back(reusable=not self._failed)

    def _whole(self, request: QueryRequest) -> bytes:
        assert self._lease is not None
        result = self._lease.connection.handle.query(
            request.text, request.default_format, params=dict(request.params)
        )
        content = bytes(result.bytes() or b"")
        if request.format == "Native" and request.protocol_version >= FLAG_SINCE_VERSION:
            content = reframe(content, request.protocol_version)
        self.summary.update(
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            result_rows=result.rows_read() or result.rows_written(),
            result_bytes=len(content),
            elapsed_ns=time.perf_counter_ns() - self._started_ns,
        )
        return content
