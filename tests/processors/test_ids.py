"""Whether ids are consecutive: told by the log, kept in the state, else as 4d9f32e took it."""

from collections.abc import Callable
from typing import Any

import pytest

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, Gap, Trade
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import StateWriter, restore

FeedOf = Callable[..., Any]


def restarted(feed: Any) -> Any:
    records = dict(StateWriter(10**9).snapshot(feed.kernel))
    feed.kernel = Kernel(ProcessorConfig(), "ingest.events.v1", 3)
    restore(feed.kernel, records)
    return feed


def kinds(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if type(event) is kind]


def test_a_log_that_does_not_say_is_taken_as_4d9f32e_took_it(feed_of: FeedOf) -> None:
    for exchange, is_numbered in (("kraken-testnet", True), ("bybit", False), ("gate", False)):
        feed = feed_of(exchange)
        feed.trade(1, 10)
        assert bool(kinds(feed.trade(4, 11), Gap)) == is_numbered


@pytest.mark.parametrize("told", ["heartbeat", "history"])
def test_a_stream_without_trades_takes_what_the_log_says(feed_of: FeedOf, told: str) -> None:
    feed = feed_of("gate")
    if told == "heartbeat":
        feed.heartbeat(5, ids_are_consecutive=True)
    else:
        feed.history("start", -600, -60, ids_are_consecutive=True)
    restarted(feed).trade(1, 10)
    (gap,) = kinds(restarted(feed).trade(4, 11), Gap)
    assert (gap.first_trade_id, gap.last_trade_id) == ("2", "3")

    feed = feed_of("binance")
    feed.heartbeat(5, ids_are_consecutive=False)
    feed.trade("b-7", 10)
    assert not kinds(restarted(feed).trade("b-9", 11), Gap)


def test_a_stream_that_learns_later_goes_on_from_its_highest_id(feed_of: FeedOf) -> None:
    feed = feed_of("gate")
    for number, at_s in ((7, 10), (9, 11), (8, 12)):
        feed.trade(number, at_s)
    feed.heartbeat(20, ids_are_consecutive=True)
    restarted(feed)
    assert feed.trade(8, 12) == [], "no trade counts twice"
    (trade,) = feed.trade(10, 30)
    assert isinstance(trade, Trade), "nothing is said of what lies before"
    (gap,) = kinds(feed.trade(13, 40), Gap)
    assert (gap.first_trade_id, gap.last_trade_id) == ("11", "12")
    candles = kinds(feed.trade(14, 63), Candle)
    assert [(c.trade_count, c.coverage) for c in candles if c.timeframe == "1m"] == [(5, "gap")]
    feed.trade(15, 90)
    candles = kinds(feed.trade(16, 123), Candle)
    assert [(c.trade_count, c.coverage) for c in candles if c.timeframe == "1m"] == [
        (2, "contiguous")
    ]


def test_a_stream_whose_ids_prove_nothing_any_more_counts_no_trade_twice(feed_of: FeedOf) -> None:
    feed = feed_of("binance")
    for number in (1, 2, 3, 6):
        feed.trade(number, 10 + number)
    feed.heartbeat(20, ids_are_consecutive=False)
    restarted(feed)
    assert feed.trade(3, 13) == feed.trade(6, 16) == []
    assert kinds(feed.trade(5, 17), Trade), "it was missing"
    assert not kinds(feed.trade(40, 30), Gap)
    assert feed.trade(40, 30) == []


def test_saying_what_is_known_changes_nothing(feed_of: FeedOf) -> None:
    outputs = []
    for told in (None, True):
        feed, found = feed_of("binance"), []
        for minute in range(8):
            found += feed.trade(minute + 1 + minute // 5, minute * 60 + 7)
            found += feed.heartbeat(minute * 60 + 30, ids_are_consecutive=told)
        outputs.append(found)
    assert outputs[0] == outputs[1]
