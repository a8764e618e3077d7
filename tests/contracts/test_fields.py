"""What the fields of the events hold follows from their types."""

from typing import Any

import pytest
from msgspec import inspect

from alpha_pulse.contracts.decimals import AMOUNT, SUM
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.fields import decimal_fields, fields_of, time_fields
from alpha_pulse.contracts.kinds import CANDLE, DEAD_LETTER, GAP, KINDS, STATUS, TRADE, Kind


def test_decimals_are_the_fields_whose_type_is_decimal_text() -> None:
    assert decimal_fields(Trade) == TRADE.decimal_fields == ("price", "amount")
    assert CANDLE.decimal_fields == (
        *("open", "high", "low", "close"),
        *("volume", "quote_volume", "buy_volume"),
    )
    grammars = {field.name: field.decimal for field in fields_of(Candle) if field.decimal}
    assert grammars["close"] == AMOUNT
    assert grammars["volume"] == grammars["quote_volume"] == SUM
    assert GAP.decimal_fields == ()


def test_times_are_the_fields_whose_type_is_a_time() -> None:
    assert time_fields(Trade) == TRADE.time_fields == ("trade_time_us", "receive_time_us")
    assert STATUS.time_fields == ("complete_until_us", "last_trade_time_us")
    assert DEAD_LETTER.time_fields == ("time_us",)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_time_of_a_kind_is_without_its_mark(kind: Kind[Any]) -> None:
    integers = [field for field in kind.fields if isinstance(field.type, inspect.IntType)]
    assert [field.name for field in integers if field.name.endswith("_us")] == [*kind.time_fields]


def test_a_field_says_whether_it_may_be_null_or_left_out() -> None:
    fields = {field.name: field for field in fields_of(Candle)}
    assert fields["quote_volume"].is_nullable
    assert not fields["quote_volume"].is_optional
    assert fields["job"].is_nullable
    assert fields["job"].is_optional
    assert not fields["close"].is_nullable
    assert fields["open_time_us"].column == "open_time"
    assert fields["open"].column == "open"
    assert fields["buy_volume"].description.startswith("base units bought by takers")
    assert fields["quote_volume"].description.startswith("sum of price x amount")


def test_choices_keep_the_order_in_which_they_were_declared() -> None:
    assert {field.name: field.choices for field in fields_of(Trade) if field.choices} == {
        "side": ("unknown", "buy", "sell")
    }
    coverage = next(field for field in fields_of(Candle) if field.name == "coverage")
    assert coverage.choices == ("contiguous", "unverified", "partial", "gap", "exchange")
