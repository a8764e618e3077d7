"""Scripted faults: each does what it says, and the same seed does the same again."""

import asyncio
import contextlib
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.dialects.sockets import Channel
from alpha_pulse.replay.exchange.faults import (
    GARBAGE_KINDS,
    REST_FAULTS,
    STREAM_FAULTS,
    FaultPlan,
    RestFault,
    StreamFault,
    garbage,
    seeded_plan,
)
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import TradeRow
from alpha_pulse.replay.markets.recorded import RecordedMarket
from alpha_pulse.replay.markets.recording import Recording
from tests.application.replay.conftest import until

SUBSCRIBE = '{"method":"SUBSCRIBE","params":["btcusdt@trade","btcusdt@kline_1m"],"id":1}'
ACKNOWLEDGEMENT = '{"result":null,"id":1}'


class Watcher:
    """A bare client that subscribes again whenever it is disconnected."""

    def __init__(self, exchange: ReplayExchange, silence_s: float = 20.0) -> None:
        self.url = f"{exchange.url}/stream.binance.com:9443/ws/0"
        self.silence_s = silence_s
        self.ids: list[int] = []
        self.others: list[str] = []
        self.closed_by: list[Any] = []

    async def run(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                ws = await session.ws_connect(self.url, heartbeat=None)
                await ws.send_str(SUBSCRIBE)
                with contextlib.suppress(TimeoutError):
                    await self._read(ws)
                await ws.close()

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await ws.receive(timeout=self.silence_s)
            if message.type != aiohttp.WSMsgType.TEXT:
                self.closed_by.append(message.type)
                return
            self._note(message.data)

    def _note(self, text: str) -> None:
        try:
            frame = orjson.loads(text)
            if frame["e"] == "trade":
                self.ids.append(int(frame["t"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            self.others.append(text)


async def watched(recording: Recording, *faults: StreamFault, **options: Any) -> Any:
    """Return (ids received, the watcher, the exchange's report) of a whole recording."""
    plan = FaultPlan(faults)
    async with ReplayExchange([RecordedMarket(recording)], faults=plan) as exchange:
        watcher = Watcher(exchange, **options)
        task = asyncio.create_task(watcher.run())
        await until(lambda: exchange.conductor.finished)
        await until(lambda: recording.trades[-1].trade_id in watcher.ids)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert len(plan.applied) == len(faults)
        return watcher, exchange.ledger.report()["symbols"]["BTC/USDT"]


def ids_of(recording: Recording) -> list[int]:
    return [row.trade_id for row in recording.trades]


async def test_duplicated_trades_come_twice(recording: Recording) -> None:
    watcher, report = await watched(recording, StreamFault("duplicate", 100, trades=5))
    ids = ids_of(recording)
    assert sorted(watcher.ids) == sorted(ids + ids[100:105])
    assert (report["sent_again"], report["not_sent_ids"]) == (5, [])


async def test_swapped_trades_change_places_and_none_is_lost(recording: Recording) -> None:
    watcher, report = await watched(recording, StreamFault("swap", 100))
    ids = ids_of(recording)
    assert watcher.ids != ids
    assert sorted(watcher.ids) == ids
    assert (report["sent_again"], report["not_sent_ids"]) == (0, [])


async def test_dropped_trades_are_published_and_not_sent(recording: Recording) -> None:
    watcher, report = await watched(recording, StreamFault("drop", 100, trades=7))
    ids = ids_of(recording)
    assert watcher.ids == ids[:100] + ids[107:]
    assert report["published"] == len(ids)
    assert report["not_sent_ids"] == [[ids[100], ids[106]]]


@pytest.mark.parametrize("kind", ["close", "abort"])
async def test_a_broken_connection_misses_trades_and_goes_on(
    recording: Recording, kind: str
) -> None:
    watcher, _ = await watched(recording, StreamFault(kind, 100, trades=9))
    ids = ids_of(recording)
    assert watcher.ids == ids[:100] + ids[109:]
    expected = aiohttp.WSMsgType.CLOSE if kind == "close" else aiohttp.WSMsgType.CLOSED
    assert len(watcher.closed_by) == 1
    if kind == "close":
        assert watcher.closed_by[0] in (expected, aiohttp.WSMsgType.CLOSING)
    else:
        assert watcher.closed_by[0] in (expected, aiohttp.WSMsgType.ERROR)


async def test_a_dead_peer_is_silent_until_the_client_gives_up(recording: Recording) -> None:
    watcher, report = await watched(recording, StreamFault("no-pong", 100, trades=9), silence_s=1.0)
    ids = ids_of(recording)
    assert watcher.ids == ids[:100] + ids[109:]
    assert watcher.closed_by == []
    assert report["not_sent_ids"] == [[ids[100], ids[108]]]


@pytest.mark.parametrize("kind", GARBAGE_KINDS)
async def test_garbage_comes_before_a_trade_that_follows_unharmed(
    recording: Recording, kind: str
) -> None:
    watcher, _ = await watched(recording, StreamFault("garbage", 100, garbage=kind))
    ids = ids_of(recording)
    extra = [text for text in watcher.others if text != ACKNOWLEDGEMENT]
    looks_like_a_trade = kind in (
        "wrong-type",
        "absurd-price",
        "negative-amount",
        "unknown-symbol",
    )
    assert len(extra) == (0 if looks_like_a_trade else 1)
    assert watcher.ids == ids[:100] + ids[100:101] * looks_like_a_trade + ids[100:]


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("kind", GARBAGE_KINDS)
def test_garbage_differs_from_the_frame_in_every_dialect(name: str, kind: str) -> None:
    row = TradeRow(7, 1_723_161_255_342_000, "61837.63000000", "0.02000000", "buy")
    market = RecordedMarket(Recording("binance", "spot", "BTC/USDT", "", (row,), ()))
    feed = Feed(market, DIALECTS[name].unified_symbol("BTC/USDT"))
    dialect = DIALECTS[name]([feed], Options())
    channel = Channel("trades", feed.symbol, "btcusdt@trade")
    socket = SocketInHand()
    frame = dialect.trade_frames(socket, channel, [row])[0]  # type: ignore[arg-type]
    assert garbage(kind, frame, row, dialect.wire_symbol(feed)) != frame


class SocketInHand:
    """What a dialect needs of a socket."""

    path = "/ws/0"

    def next_sequence(self) -> int:
        return 0


async def test_a_stall_delays_and_loses_nothing(recording: Recording) -> None:
    watcher, report = await watched(recording, StreamFault("stall", 100, seconds=0.5))
    assert watcher.ids == ids_of(recording)
    assert report["not_sent_ids"] == []


async def test_faults_of_one_trade_happen_one_after_the_other(recording: Recording) -> None:
    watcher, report = await watched(
        recording,
        StreamFault("drop", 100, trades=2),
        StreamFault("duplicate", 100, trades=2),
        StreamFault("close", 100, trades=2),
    )
    ids = ids_of(recording)
    assert sorted(set(watcher.ids)) == ids[:100] + ids[102:104] + ids[106:]
    assert report["sent_again"] == 2


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("http429", 429, None),
        ("http418", 418, None),
        ("http500", 500, None),
        ("empty", 200, b""),
        ("null", 200, b"null"),
    ],
)
async def test_a_rest_fault_meets_one_request(
    recording: Recording, kind: str, status: int, body: bytes | None
) -> None:
    plan = FaultPlan(rest=[RestFault(kind, at_request=1, seconds=7)])
    market = RecordedMarket(recording)
    async with (
        ReplayExchange([market], faults=plan, at_end=True) as exchange,
        aiohttp.ClientSession() as session,
    ):
        url = f"{exchange.url}/api.binance.com/api/v3/trades?symbol=BTCUSDT"
        answers = []
        for _ in range(3):
            async with session.get(url) as response:
                answers.append((response.status, await response.read(), response.headers))
        assert [answer[0] for answer in answers] == [200, status, 200]
        if body is not None:
            assert answers[1][1] == body
        if kind in ("http429", "http418"):
            assert answers[1][2]["Retry-After"] == "7"


async def test_a_truncated_answer_is_half_of_the_real_one(recording: Recording) -> None:
    plan = FaultPlan(rest=[RestFault("truncated", at_request=0)])
    async with (
        ReplayExchange([RecordedMarket(recording)], faults=plan, at_end=True) as exchange,
        aiohttp.ClientSession() as session,
    ):
        url = f"{exchange.url}/api.binance.com/api/v3/trades?symbol=BTCUSDT"
        async with session.get(url) as response:
            cut = await response.read()
        async with session.get(url) as response:
            whole = await response.read()
        assert whole.startswith(cut)
        assert len(cut) == len(whole) // 2


@given(
    kinds=st.lists(st.sampled_from(STREAM_FAULTS + REST_FAULTS), max_size=6),
    seed=st.integers(0, 100),
    trades=st.integers(1, 100_000),
)
def test_a_seed_is_one_script(kinds: list[str], seed: int, trades: int) -> None:
    first, second = seeded_plan(kinds, seed, trades), seeded_plan(kinds, seed, trades)
    assert (first.stream, first.rest) == (second.stream, second.rest)
    assert len(first.stream) + len(first.rest) == 2 * len(kinds)
    assert all(1 <= fault.at_trade < max(trades, 3) for fault in first.stream)
    requests = [fault.at_request for fault in first.rest]
    assert len(set(requests)) == len(requests)


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ConfigError, match="earthquake"):
        seeded_plan(["earthquake"], 1, 100)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
async def test_all_stream_faults_together_end_with_every_trade_accounted_for(
    recording: Recording, seed: int
) -> None:
    kinds = [kind for kind in STREAM_FAULTS if kind not in ("stall", "no-pong")]
    plan = seeded_plan(kinds, seed, len(recording.trades))
    watcher, report = await watched(recording, *plan.stream)
    missing = {
        number for first, last in report["not_sent_ids"] for number in range(first, last + 1)
    }
    received = set(watcher.ids) & set(ids_of(recording))
    assert received | missing == set(ids_of(recording))
    assert not received & missing
    assert report["published"] == len(recording.trades)
