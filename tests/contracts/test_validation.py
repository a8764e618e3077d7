"""Rules beyond the schema."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.decimals import plain_text
from alpha_pulse.contracts.errors import AlphaPulseError, ValidationError
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import check_exchange, get_timeframe
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.validation import (
    validate_candle,
    validate_ohlcv,
    validate_symbol,
    validate_timeframe,
)


def candle(**changes: Any) -> Candle:
    example = EXAMPLES[Candle]["contiguous"]
    assert isinstance(example, Candle)
    return msgspec.structs.replace(example, **changes)


@pytest.mark.parametrize("example", EXAMPLES[Candle].values(), ids=EXAMPLES[Candle])
def test_the_example_candles_are_valid(example: Candle) -> None:
    validate_candle(example)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"high": "61000"}, "low <= open, close <= high"),
        ({"low": "61837.64"}, "low <= open, close <= high"),
        ({"open": "0", "low": "0"}, "above 0"),
        ({"open_time_us": 1_767_225_600_000_001}, "aligned to 1m"),
        ({"trade_count": 0}, "volume 0"),
    ],
)
def test_a_candle_that_breaks_a_rule_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        validate_candle(candle(**changes))


def test_rows_of_ccxt_are_accepted() -> None:
    validate_ohlcv([[1000, 1.0, 2.0, 0.5, 1.5, 10.0], [2000, "1", "2", "0.5", "1.5", "0"]])
    validate_ohlcv([])


def test_candles_are_accepted_in_place_of_rows_and_must_ascend_too() -> None:
    first = candle()
    second = candle(open_time_us=first.open_time_us + 60_000_000)
    validate_ohlcv([first, second])
    for wrong, message in (
        ([second, first], "ascending open times"),
        ([candle(high="61000")], "low <= open, close <= high"),
    ):
        with pytest.raises(ValidationError, match=message):
            validate_ohlcv(wrong)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1000, 1, 2, 0.5, 1.5]], "expected 6 values"),
        ([[1000, 1, 2, 0.5, 1.5, None]], "expected 6 values"),
        ([[1000, 1, 2, 0.5, 3, 1]], "low <= open"),
        ([[1000, 1, 2, 0.5, "x", 1]], "expected numbers"),
        ([[1000, 1, float("nan"), 0.5, 1, 1]], "finite"),
        ([[1000, 1, 2, 0.5, 1, -1]], "volume of 0 or more"),
        ([[2000, 1, 2, 0.5, 1, 1], [2000, 1, 2, 0.5, 1, 1]], "ascending"),
        ([[float("nan"), 1, 2, 0.5, 1, 1]], "open time in ms, found nan"),
        ([["soon", 1, 2, 0.5, 1, 1]], "expected numbers"),
        ([7], "expected 6 values"),
        (["1231230"], "expected 6 values"),
        ([{"open": 1, "high": 2, "low": 1, "close": 1, "volume": 1, "time": 0}], "expected 6"),
        ({"BTC/USDT": []}, "rows of 6 values"),
        ("1231230", "rows of 6 values"),
        (None, "rows of 6 values"),
    ],
)
def test_a_row_that_is_no_candle_is_refused(rows: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        validate_ohlcv(rows)


def test_timeframe_and_symbol_are_checked_against_what_is_allowed() -> None:
    validate_timeframe("1h", ["1m", "1h"])
    validate_symbol("BTC/USDT")
    with pytest.raises(AlphaPulseError, match="found '5m'; use one of 1m 1h"):
        validate_timeframe("5m", ["1m", "1h"])
    with pytest.raises(ValidationError):
        validate_symbol("BTCUSDT")


@pytest.mark.parametrize("rubbish", [None, 7, ["1h"], {}, b"1h", "1h\n", "x" * 10_000], ids=repr)
def test_rubbish_is_a_validation_error_of_one_short_line(rubbish: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: validate_timeframe(rubbish),
        lambda: validate_symbol(rubbish),
        lambda: check_exchange(rubbish),
        lambda: get_timeframe(rubbish),
        lambda: validate_timeframe("7m", rubbish),
    ]
    for call in calls:
        with pytest.raises(ValidationError) as raised:
            call()
        assert len(str(raised.value)) < 400
        assert "\n" not in str(raised.value)


@given(st.decimals(min_value=0, max_value=10**20, places=12))
def test_plain_text_has_no_exponent_and_loses_nothing(number: Decimal) -> None:
    text = plain_text(number)
    assert "e" not in text.lower()
    assert Decimal(text) == number
