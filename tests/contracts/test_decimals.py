"""One grammar of decimals: its forms for JSON Schema, SQL and Python accept the same texts."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.decimals import (
    AMOUNT,
    FRACTION_DIGITS_MAX,
    SUM,
    UNITS,
    Grammar,
    match_amount,
    match_positive,
    parse_sum,
    parse_units,
    shortest_text,
    units_of,
    units_text,
)
from alpha_pulse.contracts.errors import ValidationError

near = st.from_regex(r"\A-?(0|[0-9]{1,27})(\.[0-9]{0,14})?\n?\Z") | st.text("0123456789.+-eE \n")


@pytest.mark.parametrize("grammar", [AMOUNT, SUM], ids=["amount", "sum"])
@given(text=near)
def test_all_forms_of_a_grammar_accept_the_same_texts(grammar: Grammar, text: str) -> None:
    whole, point, fraction = text.partition(".")
    expected = (
        re.fullmatch("[0-9]+", whole) is not None
        and (whole == "0" or whole[0] != "0")
        and len(whole) <= grammar.integer_digits_max
        and (not point or re.fullmatch("[0-9]+", fraction) is not None)
        and len(fraction) <= FRACTION_DIGITS_MAX
    )
    assert bool(re.match(grammar.pattern, text)) == expected
    assert bool(re.fullmatch(grammar.part, text)) == expected
    # RE2's `$` is the end of the text.
    assert bool(re.match(grammar.sql_pattern.replace("$", r"\Z"), text)) == expected


@given(text=near)
def test_units_are_the_exact_number(text: str) -> None:
    if match_amount(text) is None:
        assert match_positive(text) is None
        with pytest.raises(ValidationError, match="expected a plain decimal with at most 20"):
            parse_units(text)
        return
    units = parse_units(text)
    assert units == units_of(text) == parse_sum(text)
    assert Decimal(units) == Decimal(text) * UNITS
    assert (match_positive(text) is not None) == (units > 0)
    assert units_text(units) == shortest_text(text)
    assert parse_units(units_text(units)) == units


def test_a_sum_may_have_more_integer_digits_than_an_amount() -> None:
    assert parse_sum("9" * 25) == int("9" * 25) * UNITS
    with pytest.raises(ValidationError, match="at most 20 integer and 12 fraction digits"):
        parse_units("9" * 21)
    with pytest.raises(ValidationError, match="at most 25 integer and 12 fraction digits"):
        parse_sum("9" * 26)
