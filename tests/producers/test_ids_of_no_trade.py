"""What a perpetual leaves out of its own candles: the real ccxt against the replay exchange."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from alpha_pulse.contracts.codec import decode_event
from alpha_pulse.contracts.config import ProcessorConfig, ProducerConfig
from alpha_pulse.contracts.events import Candle, Ids, Trade
from alpha_pulse.contracts.kinds import IngestEvent
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.topics import CANDLES, GAPS, INGEST
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.wire.records import EncodedRecords
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.healing.catch_up import CatchUp
from alpha_pulse.replay.exchange.faults import FaultPlan, StreamFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.no_trades import WithNoTrades
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S

MINUTE_US = 60_000_000
MINUTES = 3
PER_MINUTE = 6_000  # 100 a second
SYMBOL = "BTC/USDT:USDT"


def market(runs: dict[int, int] | None = None, every: int = 250) -> WithNoTrades:
    end_us = BEGIN_US + MINUTES * MINUTE_US
    trades = SyntheticMarket("BTC/USDT", 5, end_us=end_us, trades_per_minute=PER_MINUTE)
    return WithNoTrades(trades, every=every, runs=runs)


def config(exchange: ReplayExchange) -> ProducerConfig:
    assert exchange.end_us is not None
    return ProducerConfig(
        exchange="binanceusdm",
        symbols=(SYMBOL,),
        exchange_url=exchange.url,
        clock="event",
        until_us=exchange.end_us,
    )


def ids_in(log: list[IngestEvent]) -> list[int]:
    """Every id of a log, of trades and of none, in its order."""
    found: list[int] = []
    for event in log:
        if isinstance(event, Trade):
            found.append(int(event.trade_id))
        elif isinstance(event, Ids):
            found += range(int(event.first_trade_id), int(event.last_trade_id) + 1)
    return found


def check_candles(published: Any, *, compiled: bool) -> None:
    """Let the processors' kernel make candles of a log: all are the exchange's own, and proven."""
    key = message_key("binanceusdm", SYMBOL)
    values = published.values[INGEST.name, key]
    kernel = Kernel(replace(ProcessorConfig(), compiled=compiled), INGEST.name, 0)
    records = EncodedRecords.of(range(len(values)), [key] * len(values), values)
    kernel.process(records, BEGIN_US // 1000 + 10 * 60_000, len(values))
    out = kernel.drain_outputs()
    assert kernel.counters.dead_letters == kernel.counters.duplicates == 0
    assert not [gap for _, gap in out.get(GAPS.name, ()) if b'"filled"' not in gap]
    newest: dict[int, Candle] = {}
    for _, value in out[CANDLES["1m"].name]:
        candle = decode_event(value)
        newest[candle.open_time_us] = candle
    theirs = {candle.open_time_us: candle for candle in published.candles()}
    # The last minute waits for the grace, which the recording does not have.
    assert len(newest) + 1 == len(theirs) == MINUTES
    for open_us, candle in newest.items():
        own = theirs[open_us]
        assert own.volume.rstrip("0") == candle.volume.rstrip("0")
        assert (own.trade_count, own.first_trade_id, own.last_trade_id) == (
            candle.trade_count, candle.first_trade_id, candle.last_trade_id,
        )  # fmt: skip
        for name in ("open", "high", "low", "close"):
            assert getattr(own, name) == getattr(candle, name)
        # The first minute was followed from its first trade on.
        assert candle.coverage == ("contiguous" if open_us > BEGIN_US else candle.coverage)


async def follow_to_the_end(
    exchange: ReplayExchange, follow: Any, *, filled: bool = False
) -> list[IngestEvent]:
    following = await follow(config(exchange))
    await asyncio.wait_for(following.task, PATIENCE_S)
    published = following.published
    log: list[IngestEvent] = published.log(SYMBOL)
    assert published.dead_letters() == []
    assert [gap for gap in published.gaps() if gap.status != "filled" or not filled] == []
    rows = list(exchange.ledger.published(SYMBOL))
    assert [int(trade.trade_id) for trade in published.trades()] == [row.trade_id for row in rows]
    found = ids_in(log)
    assert found == list(range(found[0], found[-1] + 1))
    assert any(isinstance(event, Ids) for event in log)
    for compiled in (True, False):
        check_candles(published, compiled=compiled)
    return log


@pytest.mark.parametrize(
    "runs",
    [{}, {0: 1}, {0: 3, 7_000: 40}, {9_000: 700}],
    ids=["now and then", "as the first frame", "a few together", "more than a page of REST"],
)
async def test_ids_of_no_trade_are_seen_and_nothing_is_asked_for(
    runs: dict[int, int], follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[SymbolFeed] = []
    monkeypatch.setattr(CatchUp, "start", lambda self, feed: asked.append(feed))
    async with ReplayExchange([market(runs)], dialect="binanceusdm") as exchange:
        log = await follow_to_the_end(exchange, follow)
    assert asked == [], "nothing waited, nothing was sought"
    events = [event for event in log if isinstance(event, Ids)]
    lengths = [int(e.last_trade_id) - int(e.first_trade_id) + 1 for e in events]
    trades = sum(isinstance(event, Trade) for event in log)
    assert sum(lengths) >= trades // 250 + sum(at and count for at, count in runs.items())
    assert max(lengths) >= max(runs.values(), default=1), "neighbours are one event"


@pytest.mark.parametrize("kind", ["close", "abort"])
@pytest.mark.parametrize(("at", "count"), [(0, 1), (0, 700), (1, 700), (5, 1), (5, 700)])
async def test_ids_of_no_trade_around_a_lost_connection(
    kind: str, at: int, count: int, follow: Any
) -> None:
    # The last frames before it, the first that are lost, in the middle of those.
    lost_at = 8_000
    plan = FaultPlan(stream=[StreamFault(kind, at_trade=lost_at)])
    source = market({lost_at + at: count})
    async with ReplayExchange([source], dialect="binanceusdm", faults=plan) as exchange:
        await follow_to_the_end(exchange, follow, filled=True)
        assert plan.applied


async def test_lost_frames_of_no_trade_are_found_absent_over_rest(follow: Any) -> None:
    # The frames of trade 8,000 and of the run behind it are lost; REST shows the trade alone.
    plan = FaultPlan(stream=[StreamFault("drop", at_trade=8_000, trades=3)])
    source = market({8_001: 700})
    async with ReplayExchange([source], dialect="binanceusdm", faults=plan) as exchange:
        log = await follow_to_the_end(exchange, follow, filled=True)
        assert plan.applied
    assert max(
        int(e.last_trade_id) - int(e.first_trade_id) for e in log if isinstance(e, Ids)
    ) >= 699  # fmt: skip
