"""The pump between the feeds and a publisher that is slow, or stopped while it waits."""

import asyncio
from typing import Any

import pytest

from alpha_pulse.contracts.events import DeadLetter, Trade
from alpha_pulse.producers.feed.continuity import ConsecutiveIds
from alpha_pulse.producers.feed.pump import Gate, Pump
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from tests.producers.conftest import MemoryPublisher

TIME_US = 1_700_000_040_000_000


def trade(trade_id: int, symbol: str) -> Trade:
    return Trade(
        exchange="binance",
        symbol=symbol,
        trade_id=str(trade_id),
        price="1.5",
        amount="2",
        side="buy",
        trade_time_us=TIME_US,
        receive_time_us=TIME_US,
    )


def a_pump(publisher: MemoryPublisher) -> Pump:
    return Pump(
        publisher,
        Gate("binance"),
        topic="ingest.events.v1",
        dead_letter_topic="market.deadletters.v1",
        pending_bytes_max=1_000,
    )


def letter(number: int) -> DeadLetter:
    return DeadLetter(
        identity=f"sha256:{number}",
        reason="bad_frame",
        error="expected a frame, found none",
        exchange="binance",
        symbol=None,
        topic=None,
        partition=None,
        offset=None,
        payload_base64="",
        payload_bytes=0,
        time_us=TIME_US,
    )


@pytest.mark.parametrize("with_letters", [False, True])
async def test_a_pump_that_is_stopped_while_it_waits_loses_nothing(with_letters: bool) -> None:
    publisher = MemoryPublisher()
    pump = a_pump(publisher)
    feeds = [
        SymbolFeed("binance", symbol, ConsecutiveIds(), grace_us=0) for symbol in ("A/B", "C/D")
    ]

    def take(trade_id: int) -> None:
        for feed in feeds:
            feed.add_trade(trade(trade_id, feed.symbol), 0)
            pump.mark(feed)

    take(1)
    if with_letters:
        pump.add_letter(letter(1))
        pump.add_letter(letter(2))
    publisher.may_take.clear()
    running: asyncio.Task[Any] = asyncio.create_task(pump.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    take(2)  # comes while the publisher makes it wait
    running.cancel()
    await asyncio.wait([running])
    publisher.may_take.set()
    await pump.flush()
    for feed in feeds:
        assert [event.trade_id for event in publisher.trades(feed.symbol)] == ["1", "2"]
    assert len(publisher.dead_letters()) == 2 * with_letters
    assert [feed.outbox for feed in feeds] == [[], []]
