r"""Decimal numbers as plain text: the grammar of what travels, and exact integers behind it.

On the wire a price is the exchange's own digits (`"61837.63000000"`), never a float and never
`1E-8`. At most 20 integer and 12 fraction digits, which is what `Decimal(38,12)` columns hold
with room for sums. Code that calculates counts in units of 10^-12.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

from alpha_pulse.contracts.errors import ValidationError

FRACTION_DIGITS_MAX = 12
UNITS = 10**FRACTION_DIGITS_MAX


@dataclass(frozen=True, slots=True)
class Grammar:
    r"""Plain decimals with at most so many integer digits, and 12 fraction digits.

    >>> AMOUNT.pattern
    '^(0|[1-9][0-9]{0,19})(\\.[0-9]{1,12})?$(?!\\n)'
    """

    integer_digits_max: int

    @property
    def pattern(self) -> str:
        """The whole text, for JSON Schema and for any regex engine that knows lookaheads."""
        # `$` alone also matches before a final newline; `(?!\n)` closes that, in Python and in
        # ECMA regexes.
        return rf"^{self._integer}(\.{self._fraction})?$(?!\n)"

    @property
    def sql_pattern(self) -> str:
        """The whole text, for RE2 in SQL: without a lookahead, and without a backslash."""
        return f"^{self._integer}([.]{self._fraction})?$"

    @property
    def part(self) -> str:
        """A decimal inside a larger Python regex; no groups, and it never backtracks."""
        digits = f"[0-9]{{0,{self.integer_digits_max - 1}}}+"
        return rf"(?:0|[1-9]{digits})(?:\.{self._fraction}+)?+"

    def __str__(self) -> str:
        return (
            f"a plain decimal with at most {self.integer_digits_max} integer and "
            f"{FRACTION_DIGITS_MAX} fraction digits"
        )

    @property
    def _integer(self) -> str:
        return f"(0|[1-9][0-9]{{0,{self.integer_digits_max - 1}}})"

    @property
    def _fraction(self) -> str:
        return f"[0-9]{{1,{FRACTION_DIGITS_MAX}}}"


# Prices and amounts of one trade; and sums, which may be wider in a busy candle.
AMOUNT = Grammar(20)
SUM = Grammar(25)
DECIMAL_PATTERN = AMOUNT.pattern
SUM_PATTERN = SUM.pattern
GRAMMARS = {grammar.pattern: grammar for grammar in (AMOUNT, SUM)}

_POWERS = tuple(10 ** (FRACTION_DIGITS_MAX - digits) for digits in range(FRACTION_DIGITS_MAX + 1))

# A match where the text is an amount, an amount above 0, a sum; else None.
match_amount = re.compile(AMOUNT.pattern).match
match_positive = re.compile(r"(?=[0.]*[1-9])" + AMOUNT.pattern).match
match_sum = re.compile(SUM.pattern).match


def plain_text(number: Decimal) -> str:
    """Return the number as plain text, its own digits kept: `0.00000001`, never `1E-8`.

    >>> plain_text(Decimal("1E-8"))
    '0.00000001'
    """
    return format(number, "f")


def units_of(text: str) -> int:
    """Return a text that is known to be a plain decimal in units of 10^-12."""
    whole, _, fraction = text.partition(".")
    units: int = int(whole + fraction) * _POWERS[len(fraction)]
    return units


def parse_units(text: str) -> int:
    """Return a price or amount in units of 10^-12.

    Raises:
        ValidationError: the text is no plain decimal, or has too many digits.
    """
    if match_amount(text) is None:
        raise _not_plain(text, AMOUNT)
    return units_of(text)


def parse_sum(text: str) -> int:
    """Return a sum in units of 10^-12.

    Raises:
        ValidationError: the text is no plain decimal, or has too many digits.
    """
    if match_sum(text) is None:
        raise _not_plain(text, SUM)
    return units_of(text)


def _not_plain(text: str, grammar: Grammar) -> ValidationError:
    return ValidationError(f"expected {grammar}, found {text[:60]!r}")


def units_text(units: int) -> str:
    """Return units of 10^-12, 0 or more, as the shortest plain decimal.

    >>> units_text(15_077_020_000_000)
    '15.07702'
    """
    whole, fraction = divmod(units, UNITS)
    if not fraction:
        return str(whole)
    return f"{whole}.{fraction:0{FRACTION_DIGITS_MAX}d}".rstrip("0")


def shortest_text(text: str) -> str:
    """Return a plain decimal without the zeros that end its fraction: `15.07`, not `15.0700`."""
    return text.rstrip("0").rstrip(".") if "." in text else text
