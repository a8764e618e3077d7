"""The page's own web server: on loopback, read-only, bounded.

GET /                  the page
GET /api/markets       every symbol: state, rate, last minute, gaps
GET /api/candles       exchange, symbol, timeframe; count and before_us where wanted
GET /api/gaps          exchange, symbol
GET /api/live          websocket: candles and gaps of one chart, markets every two seconds
"""

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import ConfigError, StorageError, ValidationError
from alpha_pulse.contracts.market import (
    TIME_US_MAX,
    TIME_US_MIN,
    TIMEFRAMES,
    check_exchange,
    check_symbol,
    get_timeframe,
)
from alpha_pulse.page.chart import Chart, ChartCandle, GapRow, MarketRow
from alpha_pulse.page.guard import guard, json_answer
from alpha_pulse.page.history import History
from alpha_pulse.page.live import LiveMarket, Mailbox

log = structlog.get_logger(__name__)

HOST = "127.0.0.1"
CANDLES_DEFAULT = 300
MARKETS_INTERVAL_S = 2.0
# Changes are gathered for so long: a browser draws no faster.
SEND_INTERVAL_S = 0.2
SEND_S_MAX = 10.0
CLOSE_S_MAX = 1.0
_STATIC = Path(__file__).parent / "static"


class Page:
    """The routes, and what they read from."""

    def __init__(self, config: Config, history: History, live: LiveMarket) -> None:
        self._settings = config.page
        # Seconds are published only where they are asked for.
        self._timeframes = [
            name for name in TIMEFRAMES if name != "1s" or config.processor.one_second_candles
        ]
        self._history = history
        self._live = live
        self._sockets: set[web.WebSocketResponse] = set()
        self._markets: list[MarketRow] = []
        self._markets_known = asyncio.Condition()

    def application(self) -> web.Application:
        """Return the routes; every other method than GET is refused."""
        pages = web.Application(middlewares=[guard])
        pages.router.add_get("/", _file("page.html", "text/html"))
        pages.router.add_get("/page.js", _file("page.js", "text/javascript"))
        pages.router.add_get("/candles.js", _file("candles.js", "text/javascript"))
        pages.router.add_get("/page.css", _file("page.css", "text/css"))
        pages.router.add_get("/plotly.js", _plotly)
        pages.router.add_get("/api/markets", self._get_markets)
        pages.router.add_get("/api/candles", self._get_candles)
        pages.router.add_get("/api/gaps", self._get_gaps)
        pages.router.add_get("/api/live", self._get_live)
        pages.on_shutdown.append(self._close_sockets)
        return pages

    async def look_at_markets(self) -> None:
        """Look at every symbol for ever, as long as somebody watches."""
        is_lost = False
        while True:
            if self._sockets:
                try:
                    markets = await self._history.markets()
                except StorageError as error:
                    if not is_lost:
                        log.warning("page.clickhouse_lost", error=str(error))
                    is_lost = True
                else:
                    is_lost = False
                    async with self._markets_known:
                        self._markets = markets
                        self._markets_known.notify_all()
            await asyncio.sleep(MARKETS_INTERVAL_S)

    async def _get_markets(self, request: web.Request) -> web.Response:
        return json_answer(
            {"timeframes": self._timeframes, "markets": await self._history.markets()}
        )

    async def _get_candles(self, request: web.Request) -> web.Response:
        chart = _chart_of(request)
        most = self._settings.candles_max
        count = _number(request, "count", 1, most) or min(CANDLES_DEFAULT, most)
        before_us = _number(request, "before_us", TIME_US_MIN, TIME_US_MAX)
        return json_answer({"candles": await self._history.candles(chart, count, before_us)})

    async def _get_gaps(self, request: web.Request) -> web.Response:
        return json_answer({"gaps": await self._history.gaps(_chart_of(request, timeframe="1m"))})

    async def _get_live(self, request: web.Request) -> web.WebSocketResponse:
        chart = _chart_of(request)
        if len(self._sockets) >= self._settings.clients_max:
            raise web.HTTPServiceUnavailable(
                text=f"expected at most {self._settings.clients_max} open pages, found more; close "
                "one, or raise [page] clients_max\n"
            )
        # A browser has nothing to tell us.
        socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=1024, timeout=CLOSE_S_MAX)
        mailbox = Mailbox(chart)
        self._sockets.add(socket)
        try:
            await socket.prepare(request)
            self._live.join(mailbox)
            senders = [
                asyncio.create_task(_send_events(socket, mailbox)),
                asyncio.create_task(self._send_markets(socket)),
            ]
            try:
                async for message in socket:
                    if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                        await socket.close(code=WSCloseCode.POLICY_VIOLATION)
            finally:
                for task in senders:
                    task.cancel()
                await asyncio.gather(*senders, return_exceptions=True)
        finally:
            self._live.leave(mailbox)
            self._sockets.discard(socket)
        return socket

    async def _send_markets(self, socket: web.WebSocketResponse) -> None:
        if self._markets:
            await _send(socket, {"markets": self._markets})
        while True:
            async with self._markets_known:
                await self._markets_known.wait()
            await _send(socket, {"markets": self._markets})

    async def _close_sockets(self, pages: web.Application) -> None:
        await asyncio.gather(
            *(socket.close(code=WSCloseCode.GOING_AWAY) for socket in list(self._sockets)),
            return_exceptions=True,
        )


@contextlib.asynccontextmanager
async def shown_page(config: Config) -> AsyncIterator[str]:
    """Show the page as long as the block lasts; gives its address.

    ClickHouse is asked as [page] clickhouse_user where there is one, else as everybody asks it.
    Raises: ConfigError for a ClickHouse address that is none, and without the charting library.
    """
    plotly_js()
    live = LiveMarket(config)
    async with History(config.clickhouse, config.page, config.database) as history:
        page = Page(config, history, live)
        # Nothing is logged of requests.
        runner = web.AppRunner(
            page.application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=CLOSE_S_MAX,
        )
        await runner.setup()
        tasks = [asyncio.create_task(live.run()), asyncio.create_task(page.look_at_markets())]
        try:
            yield f"http://{HOST}:{await _listen(runner, config.page.port)}/"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> int:
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError:
        await web.TCPSite(runner, HOST, 0).start()
    return int(runner.addresses[-1][1])


def _chart_of(request: web.Request, timeframe: str = "") -> Chart:
    """Return what a request asks for. Raises: ValidationError for anything that is no market."""
    asked = request.query
    return Chart(
        check_exchange(asked.get("exchange", "")),
        check_symbol(asked.get("symbol", "")),
        get_timeframe(timeframe or asked.get("timeframe", "1m")),
    )


def _number(request: web.Request, name: str, least: int, most: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and least <= int(text) <= most):
        raise ValidationError(
            f"expected {name} as a number from {least} to {most}, found {text[:40]!r}"
        )
    return int(text)


async def _send_events(socket: web.WebSocketResponse, mailbox: Mailbox) -> None:
    while True:
        reload, messages = await mailbox.take()
        await _send(
            socket,
            {
                "reload": reload,
                "candles": [message for message in messages if isinstance(message, ChartCandle)],
                "gaps": [message for message in messages if isinstance(message, GapRow)],
            },
        )
        await asyncio.sleep(SEND_INTERVAL_S)


async def _send(socket: web.WebSocketResponse, message: dict[str, Any]) -> None:
    try:
        async with asyncio.timeout(SEND_S_MAX):
            await socket.send_str(msgspec.json.encode(message).decode())
    except (TimeoutError, ConnectionError, RuntimeError):
        # It has gone, or takes nothing any more.
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
        raise


def _file(name: str, content_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(
            body=(_STATIC / name).read_bytes(),
            content_type=content_type,
            charset="utf-8",
            headers={"Cache-Control": "no-cache"},
        )

    return answer


async def _plotly(request: web.Request) -> web.FileResponse:
    return web.FileResponse(plotly_js(), headers={"Cache-Control": "max-age=3600"})


def plotly_js() -> Path:
    """Return the charting library's JavaScript, which the wheel `plotly` carries.

    Raises: ConfigError where it is not installed.
    """
    # Found without importing it: only the file is needed.
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        raise ConfigError(
            "expected the package plotly, found none; install alpha-pulse-data-pipeline[embedded]"
        )
    return Path(found.origin).parent / "package_data" / "plotly.min.js"
