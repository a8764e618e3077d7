"""The HTTP server: `python -m alpha_pulse.embedded.front.server DIRECTORY LISTENING_FD`."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from alpha_pulse.embedded.front.compression import compress_content
from alpha_pulse.embedded.front.engine import Engine
from alpha_pulse.embedded.front.failures import QueryFailure
from alpha_pulse.embedded.front.request import QueryRequest, read_request

BODY_BYTES_MAX = 256 * 1024 * 1024
QUERIES_AT_ONCE_MAX = 32
COMPRESS_FROM_BYTES = 1000
_CONTENT_TYPES = {
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
}


class Front:
    """Answers HTTP requests from the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(QUERIES_AT_ONCE_MAX, thread_name_prefix="query")

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_get("/ping", self._ping)
        application.router.add_get("/replicas_status", self._ping)
        application.router.add_route("*", "/", self._query)
        return application

    async def _ping(self, _http: web.Request) -> web.Response:
        return web.Response(text="Ok.\n", content_type="text/html")

    async def _query(self, http: web.Request) -> web.Response:
        headers = {
            "X-ClickHouse-Server-Display-Name": "embedded",
            "X-ClickHouse-Timezone": self._engine.timezone,
        }
        if http.method in ("GET", "HEAD") and "query" not in http.query:
            return web.Response(text="Ok.\n", headers=headers)
        try:
            request = await read_request(http, BODY_BYTES_MAX)
            headers["X-ClickHouse-Query-Id"] = request.query_id
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, self._engine.run, request)
        except QueryFailure as failure:
            headers["X-ClickHouse-Exception-Code"] = str(failure.code)
            if failure.status == 401:
                headers["WWW-Authenticate"] = 'Basic realm="ClickHouse"'
            return web.Response(
                text=failure.text(self._engine.version) + "\n",
                status=failure.status,
                headers=headers,
            )
        headers["X-ClickHouse-Format"] = answer.format
        headers["X-ClickHouse-Summary"] = json.dumps(answer.summary)
        headers["Content-Type"] = _CONTENT_TYPES.get(answer.format, "application/octet-stream")
        content = await self._encoded(answer.content, request, headers)
        return web.Response(body=content, headers=headers)

    async def _encoded(
        self, content: bytes, request: QueryRequest, headers: dict[str, str]
    ) -> bytes:
        if not request.accept_encoding or len(content) < COMPRESS_FROM_BYTES:
            return content
        content, encoding = await asyncio.to_thread(
            compress_content, content, request.accept_encoding
        )
        if encoding:
            headers["Content-Encoding"] = encoding
        return content


async def serve(directory: Path, listener: socket.socket) -> None:
    """Serve until SIGTERM."""
    engine = await asyncio.to_thread(Engine, directory)
    runner = web.AppRunner(Front(engine).application(), access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await runner.cleanup()
    with contextlib.suppress(Exception):
        await asyncio.to_thread(engine.close)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))))
