"""The verdict sees every difference: what is missing, altered, too much."""

from decimal import Decimal
from typing import Any

import pytest

from alpha_pulse.replay.markets.market import RecordedCandle, TradeRow
from alpha_pulse.replay.markets.recording import Recording
from alpha_pulse.replay.verdict import (
    StoredCandle,
    StoredTrade,
    compare_with_exchange,
    compare_with_trades,
    count_altered_trades,
)

MINUTE_US = 60_000_000
START_US = 1_767_225_600_000_000
TRADES = (
    TradeRow(1, START_US + 1, "10.0", "1", "buy"),
    TradeRow(2, START_US + 1, "12.0", "2", "sell"),
    TradeRow(3, START_US + 30_000_000, "9.5", "0.1", "sell"),
    TradeRow(4, START_US + 2 * MINUTE_US, "11.00", "1", "buy"),
)
CANDLES = (
    RecordedCandle(START_US, "10", "12", "9.5", "9.5", "3.10", 3),
    RecordedCandle(START_US + MINUTE_US, "9.5", "9.5", "9.5", "9.5", "0", 0),
)
RECORDING = Recording("binance", "spot", "BTC/USDT", "test", TRADES, CANDLES)


def stored(**changes: Any) -> StoredCandle:
    first = StoredCandle(
        timeframe="1m",
        open_time_us=START_US,
        open=Decimal(10),
        high=Decimal(12),
        low=Decimal("9.5"),
        close=Decimal("9.5"),
        volume=Decimal("3.1"),
        quote_volume=Decimal("34.95"),
        buy_volume=Decimal(1),
        trade_count=3,
        first_trade_id="1",
        last_trade_id="3",
        source="trades",
        coverage="contiguous",
    )
    return first._replace(**changes)


EMPTY = stored(
    open_time_us=START_US + MINUTE_US,
    open=Decimal("9.5"),
    high=Decimal("9.5"),
    volume=Decimal(0),
    quote_volume=Decimal(0),
    buy_volume=Decimal(0),
    trade_count=0,
    first_trade_id=None,
    last_trade_id=None,
)


def test_equal_candles_are_equal_whatever_their_trailing_zeros() -> None:
    comparison = compare_with_exchange(RECORDING, [stored(), EMPTY])
    assert (comparison.compared, comparison.equal, comparison.different) == (2, 2, [])
    comparison = compare_with_trades(RECORDING, [stored(), EMPTY])
    assert (comparison.compared, comparison.equal, comparison.different) == (2, 2, [])


def test_a_missing_candle_counts_as_different() -> None:
    assert compare_with_exchange(RECORDING, [stored()]).equal == 1
    comparison = compare_with_trades(RECORDING, [stored()])
    assert comparison.equal == 1
    assert comparison.different[0]["open_time_us"] == START_US + MINUTE_US


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume", "trade_count"])
def test_a_difference_in_any_field_of_the_exchange_is_named(field: str) -> None:
    comparison = compare_with_exchange(RECORDING, [stored(**{field: 7}), EMPTY])
    assert comparison.equal == 1
    assert list(comparison.different[0]["differences"]) == [field]


@pytest.mark.parametrize("field", ["quote_volume", "buy_volume", "first_trade_id", "last_trade_id"])
def test_a_difference_in_a_field_known_from_trades_is_named(field: str) -> None:
    comparison = compare_with_trades(RECORDING, [stored(**{field: None}), EMPTY])
    assert list(comparison.different[0]["differences"]) == [field]


def test_what_the_exchanges_own_candle_does_not_know_is_not_compared() -> None:
    unknown = {"trade_count": None, "first_trade_id": None, "buy_volume": None}
    taken_over = stored(source="exchange", coverage="exchange", **unknown)
    assert compare_with_trades(RECORDING, [taken_over, EMPTY]).equal == 2
    wrong = taken_over._replace(volume=Decimal(3))
    assert compare_with_trades(RECORDING, [wrong, EMPTY]).equal == 1
    assert compare_with_trades(RECORDING, [stored(**unknown), EMPTY]).equal == 1


def test_a_candle_that_should_not_be_there_counts_as_different() -> None:
    extra = stored(timeframe="5m")
    comparison = compare_with_trades(RECORDING, [stored(), EMPTY, extra])
    assert (comparison.compared, comparison.equal) == (3, 2)


def test_an_altered_trade_is_counted_whichever_field_was_altered() -> None:
    good = StoredTrade("1", START_US + 1, Decimal("10.00"), Decimal(1), "buy")
    assert count_altered_trades(RECORDING, [good]) == 0
    altered = [
        good._replace(trade_id="9"),
        good._replace(price=Decimal("10.01")),
        good._replace(amount=Decimal(2)),
        good._replace(trade_time_us=START_US),
        good._replace(side="sell"),
    ]
    assert count_altered_trades(RECORDING, altered) == 5
