"""An HTTP proxy of ClickHouse that sees every insert, and fails on demand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

# Asked before an insert is passed on and after it was stored; returns None to go on, a response to
# answer instead, or raises to cut the connection.
Hook = Callable[[str], Awaitable[web.Response | None]]


def clickhouse_error(status: int, code: int, text: str) -> web.Response:
    """ClickHouse's own way to say no."""
    return web.Response(
        status=status,
        headers={"X-ClickHouse-Exception-Code": str(code)},
        text=f"Code: {code}. DB::Exception: {text}\n",
    )


class FullDisk:
    """A hook that refuses every insert as a server without space does, and keeps their tokens."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.met = asyncio.Event()

    async def __call__(self, token: str) -> web.Response:
        """Refuse an insert."""
        self.refused.append(token)
        self.met.set()
        return clickhouse_error(500, 243, "not enough space")


class Proxy:
    """Forwards HTTP to ClickHouse; `before` and `after` see every insert into a log table."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.inserts = 0
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.before_progress: Hook | None = None  # sees the inserts into sink_progress

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["Proxy"]:
        """Listen on a free port of loopback."""
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._forward)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        token = request.query.get("insert_deduplication_token", "")
        is_insert = "market." in token
        if self.before_progress is not None and b"sink_progress" in body[:200]:
            answer = await self.before_progress("")
            if answer is not None:
                return answer
        if is_insert:
            self.inserts += 1
            if self.before is not None:
                answer = await self.before(token)
                if answer is not None:
                    return answer
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-length", "transfer-encoding", "connection")
        }
        async with self._session.request(
            request.method, self.upstream + str(request.rel_url), headers=headers, data=body
        ) as response:
            answer_body = await response.read()
            answer_headers = {
                name: value
                for name, value in response.headers.items()
                if name.lower() not in ("content-length", "transfer-encoding", "connection")
            }
            status = response.status
        if is_insert and self.after is not None:
            answer = await self.after(token)
            if answer is not None:
                return answer
        return web.Response(status=status, headers=answer_headers, body=answer_body)
