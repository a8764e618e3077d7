"""The exchange on loopback: aiohttp around a dialect, its feeds and the stream.

A client reaches it under the exchange's own addresses with the host moved into the path:
`http://127.0.0.1:PORT/api.binance.com/api/v3/klines`. ccxt looks at the host in an address, and
so does the dispatch here.
"""

import asyncio
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Self

import orjson
from aiohttp import WSMsgType, web

from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.replay.dialects import DIALECT_DEFAULT, DIALECTS
from alpha_pulse.replay.dialects.base import Options, RestReply, RestRequest
from alpha_pulse.replay.dialects.rules import Breach
from alpha_pulse.replay.dialects.sockets import ClientSocket
from alpha_pulse.replay.exchange.clock import Clock, FullSpeedClock, LiveClock, PacedClock
from alpha_pulse.replay.exchange.conductor import Conductor
from alpha_pulse.replay.exchange.faults import (
    FINAL_FAULTS,
    SHORT_FAULTS,
    SOCKET_PATHS,
    TRADE_PATHS,
    FaultPlan,
    RestFault,
    StreamFault,
    shortened,
)
from alpha_pulse.replay.exchange.ledger import Ledger
from alpha_pulse.replay.exchange.limits import AddressLimits, Verdict, WeightLimit
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import Market

CANDLE_INTERVAL_US = 2_000_000
MESSAGE_BYTES_MAX = 1 << 20
SOCKETS_MAX = 1_000


class ReplayExchange:
    """A running exchange: `async with ReplayExchange([market]) as exchange: exchange.url`.

    markets: one per symbol.
    dialect: whose protocol is spoken.
    speed: None for as fast as the client reads, else 1.0 for the recorded pace. Ignored when
        live: then event time is the wall clock, for markets without end.
    wait_for: kinds of channel ("trades", "candles") that must be subscribed for every symbol that
        is not refused before the stream begins, so that nobody misses its first frames. Not when
        live.
    at_end: everything has happened already: REST serves it all, the stream is over.
    """

    def __init__(
        self,
        markets: Sequence[Market],
        *,
        dialect: str = DIALECT_DEFAULT,
        live: bool = False,
        speed: float | None = None,
        wait_for: Iterable[str] = ("trades", "candles"),
        candle_interval_us: int = CANDLE_INTERVAL_US,
        faults: FaultPlan | None = None,
        options: Options | None = None,
        at_end: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        if dialect not in DIALECTS:
            raise ConfigError(
                f"expected a dialect of {', '.join(DIALECTS)}, found {dialect!r}; name one of them"
            )
        if not markets:
            raise ConfigError("expected at least one market, found none")
        kind = DIALECTS[dialect]
        self.feeds = [Feed(m, kind.unified_symbol(m.instrument.symbol)) for m in markets]
        self.faults = faults or FaultPlan()
        self.ledger = Ledger(self.feeds)
        self._options = options or Options()
        self.dialect = kind(self.feeds, self._options)
        clock = _clock(markets, live=live, speed=speed)
        begin_us, end_us = _span(markets, clock, live=live)
        if at_end and end_us is not None:
            begin_us = end_us
        for feed in self.feeds:
            feed.enter(begin_us)
        kinds = set(wait_for) if kind.has_candle_channel else set(wait_for) - {"candles"}
        open_to_all = [f.symbol for f in self.feeds if f.symbol not in self._options.refused]
        self.conductor = Conductor(
            self.feeds,
            self.dialect,
            clock,
            self.ledger,
            self.faults,
            expected=[] if live else [(k, symbol) for k in kinds for symbol in open_to_all],
            candle_interval_us=candle_interval_us,
            begin_us=begin_us,
            end_us=end_us,
        )
        weight_max = self._options.weight_per_minute_max
        self._weight_limit = WeightLimit(weight_max, kind.weights) if weight_max else None
        self._limits = AddressLimits(kind.rules, self._options.limits_scale)
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None
        self._sockets_opened = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/_ledger", self._get_ledger)
        app.router.add_get("/_state", self._get_state)
        app.router.add_route("*", "/{address:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as e:
            await self._runner.cleanup()
            raise OSError(
                e.errno,
                f"expected port {self._port} of {self._host} to be free, found {e.strerror}; "
                "choose another, or 0 for any",
            ) from e
        self.port = self._runner.addresses[0][1]
        self.url = f"http://{self._host}:{self.port}"
        self._task = asyncio.create_task(self.conductor.run(), name="replay-stream")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        task = self._task
        if task is not None:
            failed = task.done() and not task.cancelled()
            task.cancel()
            with suppress(asyncio.CancelledError):
                if not failed:
                    await task
        for socket in list(self.conductor.sockets.values()):
            socket.abort()
        if self._runner is not None:
            await self._runner.cleanup()
        if task is not None and task.done() and not task.cancelled():
            task.result()

    @property
    def end_us(self) -> int | None:
        """Return when the market ends, None when it does not."""
        return self.conductor.end_us

    def state(self) -> dict[str, Any]:
        """Return how far the exchange has come."""
        conductor = self.conductor
        failure = self._task.exception() if self._task and self._task.done() else None
        return {
            "dialect": self.dialect.name,
            "symbols": [feed.symbol for feed in self.feeds],
            "started": conductor.started,
            "finished": conductor.finished,
            "failed": repr(failure) if failure else None,
            "waiting_for": [list(pair) for pair in conductor.missing],
            "event_time_us": conductor.now_us,
            "end_us": conductor.end_us,
            "published": {feed.symbol: feed.published - feed.begin for feed in self.feeds},
            "sockets_opened": self._sockets_opened,
            "sockets": [
                {
                    "number": socket.number,
                    "path": socket.path,
                    "channels": [channel.name for channel in socket.channels],
                    "frames_sent": socket.frames_sent,
                    "unsent_bytes": socket.unsent_bytes,
                }
                for socket in conductor.sockets.values()
            ],
            "faults_applied": [_fault_json(fault) for fault in self.faults.applied],
        }

    # HTTP

    async def _get_ledger(self, request: web.Request) -> web.Response:
        with_sha256 = request.query.get("sha256", "") not in ("", "0", "false")
        return _json(self.ledger.report(with_sha256=with_sha256))

    async def _get_state(self, request: web.Request) -> web.Response:
        return _json(self.state())

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        address = request.match_info["address"]
        host, _, rest = address.partition("/")
        if host not in self.dialect.hosts:
            body = {
                "replay": f"expected a host of {self.dialect.name} as the first part of the path, "
                f"found {host!r}",
                "hosts": list(self.dialect.hosts),
            }
            return _json(body, status=404)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve_socket(request, rest)
        return await self._serve_rest(request, address)

    async def _serve_rest(self, request: web.Request, path: str) -> web.StreamResponse:
        query = await _parameters(request)
        address = self.dialect.address(path, query)
        verdict = self._weigh(address)
        headers = {"X-MBX-USED-WEIGHT-1M": str(verdict.used)} if verdict else {}
        if verdict and verdict.status != 200:
            self.ledger.rest_refused[verdict.status] += 1
            return _too_many(verdict.status, verdict.retry_after_s, headers)
        fault = self.faults.take_rest(address)
        if fault is not None:
            refused = self._refusal(fault) or await _refuse(fault)
            if refused is not None:
                self.conductor.refused = True
                return refused
        reply = await self.dialect.rest(RestRequest(address, query, request.headers))
        if reply is not None:
            self.ledger.rest_requests[address.rpartition("/")[2]] += 1
        else:
            reply = RestReply({"replay": f"expected a path of {self.dialect.name}"}, status=404)
        if fault is None and re.search(TRADE_PATHS, address):
            self.conductor.asked.set()
        answer = reply.body
        if fault is not None and fault.kind in SHORT_FAULTS and reply.status == 200:
            answer = shortened(answer, fault.kind)
        body = orjson.dumps(answer)
        if fault is not None and fault.kind == "truncated":
            body = body[: len(body) // 2]
        return web.Response(
            body=body,
            status=reply.status,
            headers={**headers, **reply.headers},
            content_type="application/json",
        )

    def _refusal(self, fault: RestFault) -> web.Response | None:
        if fault.kind not in FINAL_FAULTS:
            return None
        until_ms = round((time.time() + fault.seconds) * 1000)
        banned = fault.kind == "banned"
        reply = self.dialect.banned(until_ms) if banned else self.dialect.restricted()
        return web.Response(
            body=orjson.dumps(reply.body),
            status=reply.status,
            headers=dict(reply.headers),
            content_type="application/json",
        )

    def _weigh(self, address: str) -> Verdict | None:
        limit = self._weight_limit
        return limit.ask(address, time.monotonic()) if limit is not None else None

    async def _serve_socket(self, request: web.Request, path: str) -> web.StreamResponse:
        if len(self.conductor.sockets) >= SOCKETS_MAX:
            return _json({"replay": f"{SOCKETS_MAX} sockets are open already"}, status=503)
        wait_s = self._limits.refuses_dial_s(time.monotonic())
        if wait_s > 0:
            self.ledger.sockets_refused["dials"] += 1
            return _too_many(self._limits.rules.dial_status, math.ceil(wait_s), {})
        fault = self.faults.take_rest(f"{SOCKET_PATHS}{path}")
        refused = await _refuse(fault) if fault is not None else None
        if refused is not None:
            return refused
        ws = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=MESSAGE_BYTES_MAX)
        await ws.prepare(request)
        self._sockets_opened += 1
        socket = ClientSocket(self._sockets_opened, "/" + path, ws, request)
        self.conductor.sockets[socket.number] = socket
        pings = asyncio.create_task(self._ping(socket), name="replay-pings")
        try:
            socket.put(self.dialect.greet(socket))
            channels = self.dialect.channels_of_url("/" + path, request.query)
            self.conductor.subscribe(socket, channels)
            await self._listen(socket)
        finally:
            pings.cancel()
            self.conductor.left(socket)
        return ws

    async def _listen(self, socket: ClientSocket) -> None:
        limits = self._limits.of_socket()
        async for message in socket.ws:
            if socket.dead:
                continue
            text = message.data if message.type == WSMsgType.TEXT else ""
            breach = limits.breach(time.monotonic(), is_request=self.dialect.is_request(text))
            if breach is None and text:
                breach = self._answer(socket, text)
            elif breach is None and message.type == WSMsgType.PING:
                socket.pong(message.data)
            if breach is not None:
                self.ledger.sockets_refused[breach] += 1
                frames = self.dialect.on_breach(breach, text)
                if frames is None:
                    await socket.close(1008, b"Too many requests")
                    return
                socket.put(frames)
                socket.flush()

    def _answer(self, socket: ClientSocket, text: str) -> Breach | None:
        reply = self.dialect.answer(socket, text)
        if self._options.limits_scale is not None:
            breach = self.dialect.breach(socket, reply)
            if breach is not None:
                return breach
        socket.put(reply.frames)
        self.conductor.subscribe(socket, reply.subscribe)
        self.conductor.unsubscribe(socket, reply.unsubscribe)
        return None

    async def _ping(self, socket: ClientSocket) -> None:
        while True:
            await asyncio.sleep(self.dialect.ping_interval_s)
            socket.ping()


def _clock(markets: Sequence[Market], *, live: bool, speed: float | None) -> Clock:
    if live:
        return LiveClock()
    if speed is None:
        return FullSpeedClock()
    return PacedClock(min(market.begin_us for market in markets), speed)


def _span(markets: Sequence[Market], clock: Clock, *, live: bool) -> tuple[int, int | None]:
    ends = [market.end_us for market in markets]
    end_us = None if None in ends else max(end for end in ends if end is not None)
    if live:
        return clock.limit_us(), end_us
    return min(market.begin_us for market in markets), end_us


async def _parameters(request: web.Request) -> dict[str, str]:
    body = await request.read()
    try:
        inside = dict(_leaves("", orjson.loads(body))) if body else {}
    except orjson.JSONDecodeError:
        inside = {}  # a body of another kind holds no parameters
    return {**request.query, **inside}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    # Of {"type": "x", "req": {"limit": 5}}: type and limit.
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(key, inner)
    elif isinstance(value, str | int | float):
        yield name, str(value)


async def _refuse(fault: RestFault) -> web.Response | None:
    if fault.kind == "delay":
        await asyncio.sleep(fault.seconds)
        return None
    if fault.kind in ("truncated", *SHORT_FAULTS):
        return None
    if fault.kind in ("http429", "http418"):
        return _too_many(int(fault.kind[-3:]), max(1, round(fault.seconds)), {})
    if fault.kind == "http500":
        return web.Response(body=b"<html>500</html>", status=500, content_type="text/html")
    return web.Response(
        body=b"null" if fault.kind == "null" else b"", content_type="application/json"
    )


def _too_many(status: int, retry_after_s: int, headers: Mapping[str, str]) -> web.Response:
    what = "Too many requests." if status == 429 else "Way too many requests; IP banned."
    return web.Response(
        body=orjson.dumps({"code": -1003, "msg": what}),
        status=status,
        headers={**headers, "Retry-After": str(retry_after_s)},
        content_type="application/json",
    )


def _fault_json(fault: StreamFault | RestFault) -> dict[str, Any]:
    fields = asdict(fault)
    return {n: v.decode("latin-1") if isinstance(v, bytes) else v for n, v in fields.items()}


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
