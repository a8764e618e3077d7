"""The response to one query: whole where it is small, in pieces where it is large."""

import asyncio
import json
import secrets
import string
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from aiohttp import web

from alpha_pulse.embedded.front.compression import Encoder, PlainEncoder, encoder_for
from alpha_pulse.embedded.front.failures import TOO_MANY_ROWS_OR_BYTES, QueryFailure
from alpha_pulse.embedded.front.query import Query

# As much is gathered, for as long, before the first byte is sent.
GATHER_BYTES = 256 * 1024
GATHER_S = 0.2
COMPRESS_FROM_BYTES = 1000
WHOLE_RESULT_BYTES_MAX = 256 * 1024 * 1024  # where a client wants it whole (wait_end_of_query)
SEND_TIMEOUT_S = 60.0
_TAG_LETTERS = string.ascii_lowercase
_CONTENT_TYPES = {
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONStrings": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNamesAndTypes": "text/tab-separated-values; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
}


class Answer:
    """Sends the result of a query that it runs on worker threads, one step after the other."""

    def __init__(
        self,
        http: web.Request,
        query: Query,
        threads: Executor,
        headers: dict[str, str],
        version: str,
        end: Callable[[], Awaitable[None]],
    ) -> None:
        self._http = http
        self._query = query
        self._threads = threads
        self._headers = headers
        self._version = version
        # Ends the query. Called before the last byte: what the client sends next, in the same
        # session perhaps, must not find it still there.
        self._end = end
        self._step: asyncio.Future[bytes | None] | None = None

    @property
    def is_running(self) -> bool:
        """Tell whether a step still runs on a worker thread."""
        return self._step is not None and not self._step.done()

    async def wait(self, timeout_s: float) -> None:
        """Wait for the step that runs."""
        if self._step is not None:
            await asyncio.wait([self._step], timeout=timeout_s)
            if self._step.done() and not self._step.cancelled():
                self._step.exception()  # seen: nobody else asks for it

    async def send(self) -> web.StreamResponse:
        """Run the query and send what it gives.

        Raises: QueryFailure while nothing has been sent yet.
        """
        first, is_whole = await self._gather()
        request = self._query.request
        compresses = request.compress_blocks or len(first) >= COMPRESS_FROM_BYTES or not is_whole
        encoder: Encoder = PlainEncoder()
        if compresses:
            encoder = encoder_for(request.accept_encoding, request.compress_blocks)
        if encoder.name:
            self._headers["Content-Encoding"] = encoder.name
        self._headers["X-ClickHouse-Format"] = request.format
        self._headers["X-ClickHouse-Summary"] = json.dumps(
            {name: str(value) for name, value in self._query.summary.items()}
        )
        self._headers["Content-Type"] = _CONTENT_TYPES.get(
            request.format, "application/octet-stream"
        )
        if is_whole:
            body = await asyncio.to_thread(_encode_whole, encoder, first) if compresses else first
            return web.Response(body=body, headers=self._headers)
        return await self._stream(first, encoder)

    async def _gather(self) -> tuple[bytes, bool]:
        # The first pieces, and whether they are the whole result.
        pieces = []
        size_bytes = 0
        deadline = time.monotonic() + GATHER_S
        step: Callable[[], bytes | None] = self._query.start
        while (piece := await self._run(step)) is not None:
            pieces.append(piece)
            size_bytes += len(piece)
            if self._query.request.buffer_whole:
                if size_bytes > WHOLE_RESULT_BYTES_MAX:
                    raise QueryFailure(
                        TOO_MANY_ROWS_OR_BYTES,
                        f"Limit for result exceeded, max bytes: {WHOLE_RESULT_BYTES_MAX}; read it "
                        f"without wait_end_of_query",
                    )
            elif size_bytes >= GATHER_BYTES or time.monotonic() > deadline:
                return b"".join(pieces), self._query.is_done
            step = self._query.fetch
        return b"".join(pieces), True

    async def _stream(self, first: bytes, encoder: Encoder) -> web.StreamResponse:
        tag = "".join(secrets.choice(_TAG_LETTERS) for _ in range(16))
        self._headers["X-ClickHouse-Exception-Tag"] = tag
        response = web.StreamResponse(headers=self._headers)
        await response.prepare(self._http)
        piece: bytes | None = first
        try:
            while piece is not None:
                await self._write(response, await asyncio.to_thread(encoder.add, piece))
                piece = await self._run(self._query.fetch)
            await self._end()
            await self._write(response, encoder.end())
            await response.write_eof()
        except QueryFailure as failure:
            await self._break_off(response, encoder, tag, failure)
        except TimeoutError:
            self._abort()
        return response

    async def _write(self, response: web.StreamResponse, content: bytes) -> None:
        if content:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await response.write(content)

    async def _break_off(
        self, response: web.StreamResponse, encoder: Encoder, tag: str, failure: QueryFailure
    ) -> None:
        # The status has been sent, so the failure follows in the body, between markers that
        # clients know by the tag; and the body is left without its end.
        await self._end()
        text = failure.text(self._version)
        marked = (
            f"\r\n__exception__\r\n{tag}\r\n{text}\n{len(text.encode()) + 1} {tag}\r\n"
            f"__exception__\r\n"
        )
        await self._write(response, encoder.add(marked.encode()))
        await self._write(response, encoder.end())
        self._abort()

    def _abort(self) -> None:
        if self._http.transport is not None:
            self._http.transport.close()

    async def _run(self, step: Callable[[], bytes | None]) -> bytes | None:
        # Shielded: when the client goes away, the step runs on and is ended by `Front`.
        self._step = asyncio.get_running_loop().run_in_executor(self._threads, step)
        return await asyncio.shield(self._step)


def _encode_whole(encoder: Encoder, content: bytes) -> bytes:
    return encoder.add(content) + encoder.end()
