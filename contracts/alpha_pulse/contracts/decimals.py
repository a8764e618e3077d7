"""Decimal numbers as plain text: what travels, and the way back.

On the wire a price is the exchange's own digits (`"61837.63000000"`), never a float and never
`1E-8`. At most 20 integer and 12 fraction digits, which is what `Decimal(38,12)` columns hold
with room for sums.
"""

from decimal import Decimal

FRACTION_DIGITS_MAX = 12

# `$` alone also matches before a final newline; `(?!\n)` closes that in Python and in ECMA regexes.
DECIMAL_PATTERN = r"^(0|[1-9][0-9]{0,19})(\.[0-9]{1,12})?$(?!\n)"
# Sums of a busy candle may be wider than one trade's amount.
SUM_PATTERN = r"^(0|[1-9][0-9]{0,24})(\.[0-9]{1,12})?$(?!\n)"


def plain_text(number: Decimal) -> str:
    """Return the number as plain text, its own digits kept: `0.00000001`, never `1E-8`.

    >>> plain_text(Decimal("1E-8"))
    '0.00000001'
    """
    return format(number, "f")
