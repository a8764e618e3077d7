"""What a state holds that today's settings or version do not know, and what can't be opened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import MINUTE_US, PUBLISHED_TIMEFRAMES
from alpha_pulse.processors.candles import rules
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import HEAD_KEY, StateWriter, restore

FeedOf = Callable[..., Any]


def reopened(feed: Any, config: ProcessorConfig, change: Callable[[Any], None]) -> StateWriter:
    """Open the feed's state with other settings, changed on the way."""
    (head,) = [value for _, value in StateWriter(10**9).snapshot(feed.kernel)]
    version, parts = msgspec.msgpack.decode(head)
    parts["symbols"] = [msgspec.msgpack.decode(symbol) for symbol in parts["symbols"]]
    change(parts)
    parts["symbols"] = [msgspec.msgpack.encode(symbol) for symbol in parts["symbols"]]
    feed.kernel = Kernel(config, "ingest.events.v1", 3)
    return restore(feed.kernel, {HEAD_KEY: msgspec.msgpack.encode([version, parts])})


@contextmanager
def published(names: tuple[str, ...]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "PUBLISHED_TIMEFRAMES", names)
        yield


def candles(events: list[Any], timeframe: str = "1m") -> list[Candle]:
    return [e for e in events if isinstance(e, Candle) and e.timeframe == timeframe]


def nothing(parts: Any) -> None:
    """Change nothing."""


def test_what_is_off_or_unknown_is_dropped_and_named(feed: Any) -> None:
    def change(parts: Any) -> None:
        # As a newer version might write it.
        (symbol,) = parts["symbols"]
        symbol["symbol"]["books"] = {"bids": []}
        symbol["symbol"]["live"]["levels"]["10m"] = symbol["symbol"]["live"]["levels"]["5m"]
        parts["timeframes"].insert(2, ["10m", 10 * MINUTE_US, 0])

    feed.trade(1, 10)
    feed.trade(2, 70)
    with published(tuple(name for name in PUBLISHED_TIMEFRAMES if name != "1w")):
        writer = reopened(feed, ProcessorConfig(one_second_candles=True), change)
    assert writer.dropped == ["10m", "1w", "books"]
    assert writer.begun == ["1s"]
    found = feed.trade(3, 303)
    assert [candle.trade_count for candle in candles(found, "5m")] == [2]
    assert reopened(feed, ProcessorConfig(one_second_candles=True), nothing).dropped == []


def test_the_same_settings_change_nothing(feed: Any) -> None:
    feed.trade(1, 10)
    writer = reopened(feed, ProcessorConfig(), nothing)
    assert (writer.dropped, writer.begun) == ([], [])


def test_a_timeframe_of_another_length_is_refused_with_what_to_do(feed: Any) -> None:
    def change(parts: Any) -> None:
        parts["timeframes"][1] = ["5m", 6 * MINUTE_US, 0]

    feed.trade(1, 10)
    with pytest.raises(ValidationError, match=r"5m windows of 300000000 .* new log epoch"):
        reopened(feed, ProcessorConfig(), change)


def test_a_version_that_is_not_known_is_refused(feed: Any) -> None:
    head = msgspec.msgpack.encode([4, {"position": 7}])
    with pytest.raises(ValidationError, match="version 2 or 3, found version 4; run the version"):
        restore(feed.kernel, {HEAD_KEY: head})


def test_windows_that_were_let_go_do_not_come_back_when_they_are_kept_longer(feed: Any) -> None:
    feed.trade(1, 10)
    feed.trade(2, 20)
    feed.trade(3, 3600)
    feed.trade(4, 3700)  # the first minute has left the state by now
    for day in (86_400.0, 90_000.0):
        reopened(feed, ProcessorConfig(closed_candle_keep_s=day), nothing)
        number = feed.kernel.symbols[b"binance:BTC/USDT"].live.order.last_id + 1
        late = feed.trade(number, 30)
        assert candles(late) == [], "one late trade is no new version of that minute"
        assert feed.kernel.symbols[b"binance:BTC/USDT"].live.late == number - 4
    assert [candle.trade_count for candle in candles(feed.trade(7, 3500))] == [1]


def test_another_grace_closes_what_is_open_at_its_own_time(feed: Any) -> None:
    feed.trade(1, 10)
    feed.trade(2, 50)
    feed.trade(3, 61)
    reopened(feed, ProcessorConfig(grace_s=30.0), nothing)
    assert candles(feed.trade(4, 89)) == []
    assert [candle.trade_count for candle in candles(feed.trade(5, 90))] == [2]
    feed.trade(6, 121)
    reopened(feed, replace(ProcessorConfig(), grace_s=0.0), nothing)
    assert [candle.trade_count for candle in candles(feed.trade(7, 122))] == [3]


@pytest.mark.parametrize("first", [False, True])
def test_one_second_candles_in_the_middle_of_a_minute(feed_of: FeedOf, first: bool) -> None:
    feed = feed_of(one_second_candles=first)
    for number in range(1, 40):
        feed.trade(number, number)
    reopened(feed, ProcessorConfig(one_second_candles=not first), nothing)
    found = [event for number in range(40, 70) for event in feed.trade(number, number)]
    (minute,) = candles(found)
    assert (minute.trade_count, minute.first_trade_id, minute.last_trade_id) == (59, "1", "59")
    seconds = [candle.trade_count for candle in candles(found, "1s")]
    assert len(seconds) == (0 if first else 27)
    assert set(seconds) <= {1}
