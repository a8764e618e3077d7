"""Whether ids are consecutive: told by the log, kept in the state, else as 4d9f32e took it."""

from collections.abc import Callable
from typing import Any

import pytest

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, DeadLetter, Gap, Ids, StreamStatus, Trade
from alpha_pulse.contracts.market import SECOND_US
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import StateWriter, restore

# As in the feeds of these tests.
MONDAY_US = 1_763_942_400_000_000
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


def ids_of_none(feed: Any, first: int, last: int, at_s: float, **changes: Any) -> list[Any]:
    fields: dict[str, Any] = dict(
        exchange=feed.exchange, symbol=feed.symbol, first_trade_id=str(first),
        last_trade_id=str(last), time_us=MONDAY_US + round(at_s * SECOND_US), reason="no_trade",
    )  # fmt: skip
    found: list[Any] = feed.event(Ids(**{**fields, **changes}))
    return found


def minutes(events: list[Any]) -> list[tuple[int, str]]:
    candles = [c for c in kinds(events, Candle) if c.timeframe == "1m"]
    return [(c.trade_count, c.coverage) for c in candles]


def test_ids_of_no_trade_close_minutes_and_prove_that_they_are_empty(feed_of: FeedOf) -> None:
    feed = feed_of("binance")
    feed.heartbeat(0, ids_are_consecutive=True)
    feed.trade(1, 10)
    feed.trade(2, 70)
    found = ids_of_none(restarted(feed), 3, 9, 190)
    assert minutes(found) == [(1, "contiguous"), (0, "contiguous")]
    assert [(e.first_trade_id, e.last_trade_id) for e in kinds(found, Ids)] == [("3", "9")]
    assert not kinds(restarted(feed).trade(10, 200), Gap)
    (status,) = kinds(feed.heartbeat(210), StreamStatus)
    assert status.last_trade_id == "10"


def test_the_last_trade_stays_the_last_trade_behind_ids_of_none(feed_of: FeedOf) -> None:
    feed = feed_of("binance")
    ids_of_none(feed, 5, 6, 5)
    (status,) = kinds(restarted(feed).heartbeat(6), StreamStatus)
    assert (status.last_trade_id, status.last_trade_time_us) == (None, None)
    feed.trade(7, 10)
    ids_of_none(feed, 8, 8, 20)
    (status,) = kinds(restarted(feed).heartbeat(30), StreamStatus)
    assert status.last_trade_id == "7"
    assert status.last_trade_time_us == MONDAY_US + 10 * SECOND_US


def test_a_hole_behind_ids_of_no_trade_begins_at_their_time(feed_of: FeedOf) -> None:
    feed = feed_of("binance")
    feed.heartbeat(0)
    feed.trade(1, 10)
    ids_of_none(feed, 2, 2, 130)
    found = restarted(feed).trade(5, 250)
    (gap,) = kinds(found, Gap)
    assert (gap.first_trade_id, gap.last_trade_id) == ("3", "4")
    assert gap.start_time_us == MONDAY_US + 130 * SECOND_US
    assert not [c for c in kinds(found, Candle) if c.open_time_us < MONDAY_US + 120 * SECOND_US]


def test_late_ids_of_no_trade_fill_a_hole_and_known_ones_change_nothing(feed_of: FeedOf) -> None:
    feed = feed_of("binance")
    feed.heartbeat(0)
    feed.trade(1, 10)
    feed.trade(6, 70)
    assert minutes(feed.trade(7, 130)) == [(1, "gap")]
    feed.trade(2, 20)
    found = ids_of_none(restarted(feed), 3, 5, 65)
    (gap,) = kinds(found, Gap)
    assert (gap.first_trade_id, gap.last_trade_id, gap.status) == ("2", "5", "filled")
    assert minutes(found) == [(2, "unverified"), (1, "contiguous")]
    assert ids_of_none(feed, 3, 5, 65) == []
    assert feed.trade(4, 65) == [], "the exchange said that it was none"


def test_a_job_explains_what_the_live_stream_waits_for(feed_of: FeedOf) -> None:
    feed = feed_of("binance")
    feed.trade(1, 10)
    feed.trade(4, 11)
    feed.history("start", 0, 60)
    found = ids_of_none(feed, 2, 3, 11, job="j")
    assert [gap.status for gap in kinds(found, Gap)] == ["filled"]
    assert [ids.job for ids in kinds(found, Ids)] == ["j"]


def test_ids_that_say_something_else_or_nonsense_do_not_count(feed_of: FeedOf) -> None:
    feed = feed_of("binance")
    feed.trade(1, 10)
    assert ids_of_none(feed, 2, 3, 11, reason="restarted") == []
    assert feed.kernel.counters.unknown_kinds == 1
    for changes in ({"last_trade_id": "1"}, {"first_trade_id": "x"}, {"symbol": "ETH/USDT"}):
        assert kinds(ids_of_none(feed, 2, 3, 11, **changes), DeadLetter)
    assert kinds(ids_of_none(feed, 2, 3, 10**6), DeadLetter), "far ahead"
    assert kinds(ids_of_none(feed_of("bybit"), 2, 3, 11), DeadLetter)
    assert kinds(feed.trade(4, 12), Gap), "2 and 3 are still missing"
