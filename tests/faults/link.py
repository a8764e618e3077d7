"""A TCP proxy between two parts: it cuts, holds back, delays, or answers in the server's place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PIECE_BYTES = 65_536
HEADERS_END = b"\r\n\r\n"


class Link:
    """Forwards TCP to an address; `cut`, `hold`, `slow`, `answer` until `heal`."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.port = 0
        self.connections = 0
        self._mode = "open"
        self._answer = b""
        self._late_s = 0.0
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator["Link"]:
        """Listen on loopback, on any free port unless told."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            self._flows.set()
            await server.wait_closed()

    def cut(self) -> None:
        """Reset every connection, and each new one at once."""
        self._mode = "cut"
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """Keep every connection open and let nothing through, as a network that went silent."""
        self._mode = "hold"
        self._flows.clear()

    def slow(self, late_s: float) -> None:
        """Let every piece of an answer come so many seconds late."""
        self._late_s = late_s

    def answer(self, response: bytes) -> None:
        """Reset every connection; answer each new one's first HTTP request with these bytes."""
        self.cut()
        self._mode, self._answer = "answer", response

    def heal(self) -> None:
        """Let everything through again; what was held back goes on."""
        self._mode = "open"
        self._late_s = 0.0
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                if self._mode == "cut":
                    writer.transport.abort()
                elif self._mode == "answer":
                    await _read_request(reader)
                    writer.write(self._answer)
                    await writer.drain()
                else:
                    await self._flows.wait()
                    await self._forward(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        self._writers.add(back)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back))
                group.create_task(self._pump(there, writer, is_answer=True))
        finally:
            self._writers.discard(back)
            back.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        # One side's end is passed on; what the other still has to say comes through.
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                await self._flows.wait()
                if is_answer and self._late_s:
                    await asyncio.sleep(self._late_s)
                writer.write(piece)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()


async def _read_request(reader: asyncio.StreamReader) -> None:
    # All of it: an answer to half a request is a reset that hides the answer.
    head = (await reader.readuntil(HEADERS_END)).lower()
    length = next(
        (line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), None
    )
    if length is not None:
        left = int(length.partition(b":")[2])
        while left > 0 and (piece := await reader.read(min(left, PIECE_BYTES))):
            left -= len(piece)
    elif b"transfer-encoding: chunked" in head:
        await reader.readuntil(b"0\r\n\r\n")
