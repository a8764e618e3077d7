"""Timeframe arithmetic and names."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import (
    PUBLISHED_TIMEFRAMES,
    TIMEFRAMES,
    check_exchange,
    check_symbol,
    get_timeframe,
    message_key,
)

TIMES = st.integers(1_230_768_000_000_000, 4_102_444_799_999_999)
NAMES = st.sampled_from(sorted(TIMEFRAMES))


def us(when: str) -> int:
    return int(datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()) * 1_000_000


@given(NAMES, TIMES)
def test_every_time_lies_in_exactly_one_window(name: str, time_us: int) -> None:
    timeframe = get_timeframe(name)
    open_us = timeframe.open_time_us(time_us)
    assert timeframe.is_open_time(open_us)
    assert open_us <= time_us < timeframe.close_time_us(open_us)
    assert timeframe.open_time_us(timeframe.close_time_us(open_us) - 1) == open_us


@given(TIMES)
def test_each_published_timeframe_is_made_of_whole_windows_of_the_one_before(time_us: int) -> None:
    for smaller, larger in pairwise(PUBLISHED_TIMEFRAMES):
        open_us = get_timeframe(larger).open_time_us(time_us)
        assert get_timeframe(smaller).is_open_time(open_us)


def test_a_week_starts_monday_midnight_utc() -> None:
    week = get_timeframe("1w")
    assert week.open_time_us(us("2026-01-04T23:59")) == us("2025-12-29")
    assert week.open_time_us(us("2026-01-05")) == us("2026-01-05")


def test_an_unknown_timeframe_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ValidationError, match=r"found '7m'; use one of 1s 1m 3m .* 1w"):
        get_timeframe("7m")


@pytest.mark.parametrize("symbol", ["BTC/USDT", "BTC/USDT:USDT", "1000SHIB/USDT:USDT-240628"])
def test_unified_symbols_are_accepted(symbol: str) -> None:
    assert check_symbol(symbol) == symbol


@pytest.mark.parametrize(
    "symbol",
    ["", "BTCUSDT", "BTC/", "/USDT", "BTC/USDT\n", "a'; DROP TABLE x/USDT", "../../x", "B/U:"],
)
def test_other_symbols_are_refused(symbol: str) -> None:
    with pytest.raises(ValidationError, match="expected a symbol"):
        check_symbol(symbol)


@pytest.mark.parametrize("exchange", ["", "Binance", "-x", "a b", "x" * 33, "okx\n"])
def test_other_exchange_names_are_refused(exchange: str) -> None:
    with pytest.raises(ValidationError, match="expected an exchange name"):
        check_exchange(exchange)


def test_the_key_is_exchange_and_symbol() -> None:
    assert message_key("binance", "BTC/USDT") == b"binance:BTC/USDT"
