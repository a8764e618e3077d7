"""Exact numbers in compiled code: decimal text, and unsigned integers of 128 bits in two halves.

What is written has the form that `decimals.units_text` and `value.quote_text` give.

All are uint64: numba makes floats of a uint64 and an int64 together.
"""

from typing import Any

import numpy as np

from alpha_pulse.contracts.decimals import FRACTION_DIGITS_MAX, UNITS
from alpha_pulse.processors.wire.compiler import compiled, read_eight

# More digits than this may not fit 64 bits: such a number goes the long way.
DIGITS_MAX = 18
_ZERO, _ONE, _TEN = np.uint64(0), np.uint64(1), np.uint64(10)
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_FOUR, _EIGHT, _SIXTEEN = np.uint64(4), np.uint64(8), np.uint64(16)
_UPPER_HALVES, _SIXES = np.uint64(0xF0F0F0F0F0F0F0F0), np.uint64(0x0606060606060606)
_THREES, _ZEROS = np.uint64(0x3333333333333333), np.uint64(0x3030303030303030)
_PAIRS = np.uint64(0x000000FF000000FF)
_TIMES_FIRST, _TIMES_LAST = np.uint64(0x000F424000000064), np.uint64(0x0000271000000001)
assert UNITS == 10**12, "units are divided by a million twice"
# No sum comes near: what would be larger goes the long way.
_HIGH_MAX = np.uint64(1 << 62)
_MILLION, _TRILLION = np.uint64(10**6), np.uint64(UNITS)
_DIGIT_ZERO, _POINT = 48, 46
# The longest number written: 39 digits and a point.
NUMBER_BYTES_MAX = 40
_POWERS = np.array([10**digits for digits in range(FRACTION_DIGITS_MAX + 1)], np.uint64)


@compiled
def eight_digits(word: Any) -> bool:  # pragma: no cover - compiled
    """Return whether eight bytes are all digits."""
    upper = word & _UPPER_HALVES
    return bool((upper | (((word + _SIXES) & _UPPER_HALVES) >> _FOUR)) == _THREES)


@compiled
def number_of(word: Any) -> Any:  # pragma: no cover - compiled
    """Return the number that eight digits are, in three multiplications."""
    word = word - _ZEROS
    word = word * _TEN + (word >> _EIGHT)
    pairs = (word & _PAIRS) * _TIMES_FIRST + ((word >> _SIXTEEN) & _PAIRS) * _TIMES_LAST
    return pairs >> _HALF


@compiled
def read_digits(text: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """Return (position behind, number) of up to 18 digits; -1 where there are more."""
    number = _ZERO
    start = at
    if end - at >= 8:
        word = read_eight(text, at)
        if eight_digits(word):
            number = number_of(word)
            at += 8
    while at < end:
        digit = text[at] - 48
        if digit < 0 or digit > 9:
            break
        number = number * _TEN + np.uint64(digit)
        at += 1
        if at - start > DIGITS_MAX:
            return -1, number
    return at, number


@compiled
def read_decimal(text: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    """Return (position behind, digits as a number, fraction digits) of a plain decimal.

    The grammar is `contracts.decimals.AMOUNT` with at most 18 digits; the position is -1
    for anything else, and for zero.
    """
    start = at
    at, number = read_digits(text, at, end)
    if at <= start or (at - start > 1 and text[start] == 48):
        return -1, _ZERO, 0
    fraction = 0
    if at < end and text[at] == 46:
        point = at
        at, digits = read_digits(text, at + 1, end)
        fraction = at - point - 1
        if fraction < 1 or fraction > FRACTION_DIGITS_MAX or at - start - 1 > DIGITS_MAX:
            return -1, _ZERO, 0
        number = number * _POWERS[fraction] + digits
    if number == _ZERO:
        return -1, _ZERO, 0
    return at, number, fraction


@compiled
def multiply(a: Any, b: Any) -> Any:  # pragma: no cover - compiled
    """Return the product of two 64-bit numbers: high half, low half."""
    a_low, a_high = a & _LOW, a >> _HALF
    b_low, b_high = b & _LOW, b >> _HALF
    low = a_low * b_low
    middle = a_high * b_low + (low >> _HALF)
    other = a_low * b_high + (middle & _LOW)
    high = a_high * b_high + (middle >> _HALF) + (other >> _HALF)
    return high, (other << _HALF) | (low & _LOW)


@compiled
def scale(high: Any, low: Any, digits: int) -> Any:  # pragma: no cover - compiled
    """Return (fits, high, low) of a 128-bit number times 10^digits, digits up to 12."""
    over, high_scaled = multiply(high, _POWERS[digits])
    carry, low_scaled = multiply(low, _POWERS[digits])
    fits = over == _ZERO and high_scaled < _HIGH_MAX and carry < _HIGH_MAX
    return fits, high_scaled + carry, low_scaled


@compiled
def units_of(number: Any, fraction: int) -> Any:  # pragma: no cover - compiled
    """Return (high, low) of a decimal in units of 10^-12."""
    return multiply(number, _POWERS[FRACTION_DIGITS_MAX - fraction])


@compiled
def product_units(
    price: Any, price_fraction: int, amount: Any, amount_fraction: int
) -> Any:  # pragma: no cover - compiled
    """Return (fits, high, low) of price times amount in units of 10^-24."""
    high, low = multiply(price, amount)
    fits, high, low = scale(high, low, FRACTION_DIGITS_MAX - price_fraction)
    if not fits:
        return False, _ZERO, _ZERO
    return scale(high, low, FRACTION_DIGITS_MAX - amount_fraction)


@compiled
def add_to(total: Any, high: Any, low: Any) -> None:  # pragma: no cover - compiled
    """Add a 128-bit number to a total of two halves, the upper one first."""
    sum_low = total[1] + low
    carry = _ONE if sum_low < low else _ZERO
    total[1] = sum_low
    total[0] += high + carry


@compiled
def has_room(total: Any) -> bool:  # pragma: no cover - compiled
    """Return whether what fits may still be added to a total."""
    return bool(total[0] < _HIGH_MAX)


@compiled
def compare(high: Any, low: Any, other: Any) -> int:  # pragma: no cover - compiled
    """Return 1, 0 or -1: whether a 128-bit number is above, at or below another one."""
    if high != other[0]:
        return 1 if high > other[0] else -1
    if low != other[1]:
        return 1 if low > other[1] else -1
    return 0


@compiled
def _divide(high: Any, low: Any) -> Any:  # pragma: no cover - compiled
    """Return (high, low, rest) of a 128-bit number divided by a million."""
    upper = high >> _HALF
    part = ((upper % _MILLION) << _HALF) | (high & _LOW)
    quotient_high = ((upper // _MILLION) << _HALF) | (part // _MILLION)
    part = ((part % _MILLION) << _HALF) | (low >> _HALF)
    quotient = (part // _MILLION) << _HALF
    part = ((part % _MILLION) << _HALF) | (low & _LOW)
    return quotient_high, quotient | (part // _MILLION), part % _MILLION


@compiled
def _divide_units(high: Any, low: Any) -> Any:  # pragma: no cover - compiled
    """Return (high, low, rest) of a 128-bit number divided by 10^12."""
    high, low, lower = _divide(high, low)
    high, low, upper = _divide(high, low)
    return high, low, upper * _MILLION + lower


@compiled
def write_number(out: Any, at: int, number: Any) -> int:  # pragma: no cover - compiled
    """Write a number's digits; return the position behind them."""
    digits = 1
    rest = number // _TEN
    while rest != _ZERO:
        rest //= _TEN
        digits += 1
    for place in range(at + digits - 1, at - 1, -1):
        out[place] = _DIGIT_ZERO + np.int64(number % _TEN)
        number //= _TEN
    return at + digits


@compiled
def _write_group(out: Any, at: int, group: Any) -> int:  # pragma: no cover - compiled
    for place in range(at + 5, at - 1, -1):
        out[place] = _DIGIT_ZERO + np.int64(group % _TEN)
        group //= _TEN
    return at + 6


@compiled
def _write_whole(out: Any, at: int, high: Any, low: Any) -> int:  # pragma: no cover - compiled
    """Write a number up to 2^128 / 10^12: what is above 64 bits ends in three groups of digits."""
    if high == _ZERO:
        return write_number(out, at, low)
    high, low, third = _divide(high, low)
    high, low, second = _divide(high, low)
    high, low, first = _divide(high, low)
    at = write_number(out, at, low)
    at = _write_group(out, at, first)
    at = _write_group(out, at, second)
    return _write_group(out, at, third)


@compiled
def write_units(out: Any, at: int, high: Any, low: Any) -> int:  # pragma: no cover - compiled
    """Write units of 10^-12 as the shortest plain decimal; return the position behind it."""
    high, low, fraction = _divide_units(high, low)
    at = _write_whole(out, at, high, low)
    if fraction == _ZERO:
        return at
    out[at] = _POINT
    _write_group(out, at + 1, fraction // _MILLION)
    at = _write_group(out, at + 7, fraction % _MILLION)
    while out[at - 1] == _DIGIT_ZERO:
        at -= 1
    return at


@compiled
def write_quote(out: Any, at: int, high: Any, low: Any) -> int:  # pragma: no cover - compiled
    """Write units of 10^-24, rounded half-even to 12 fraction digits; return the position behind.

    Rounding looks at the last digit that stays, which is even or odd as all of the number is.
    """
    high, low, rest = _divide_units(high, low)
    twice = rest + rest
    if twice > _TRILLION or (twice == _TRILLION and (low & _ONE) == _ONE):
        low += _ONE
        if low == _ZERO:
            high += _ONE
    return write_units(out, at, high, low)
