"""A plain trade: the canonical bytes of a symbol's next trade, read without a parser.

The bytes up to the id are the symbol's own, the id is foretold, and what follows has one form only:
its bytes then prove exchange, symbol and id, and cannot hold a second key, an escape or a space.
"""

from typing import Any, NamedTuple

import numpy as np

from alpha_pulse.contracts.market import TIME_US_MAX, TIME_US_MIN
from alpha_pulse.processors.compiled.numbers import (
    eight_digits,
    number_of,
    read_decimal,
    read_digits,
)
from alpha_pulse.processors.wire.canonical import (
    END,
    TIME_DIGITS,
    TRADE_AMOUNT,
    TRADE_PRICE,
    TRADE_RECEIVED,
    TRADE_SIDE,
    TRADE_TIME,
)
from alpha_pulse.processors.wire.compiler import compiled, read_eight

BUYS, SELLS = ord("b"), ord("s")
_BRACE, _DIGIT_ZERO = ord(END), ord("0")
_TIME_US_MIN, _TIME_US_END, _TIME_DIGITS = TIME_US_MIN, TIME_US_MAX, TIME_DIGITS
assert _TIME_DIGITS == 16, "a time is read as two words of eight digits"


def _bytes(text: str) -> Any:
    return np.frombuffer(text.encode(), np.uint8)


_PRICE, _AMOUNT, _SIDE = map(_bytes, (TRADE_PRICE, TRADE_AMOUNT, TRADE_SIDE))
_BUY, _SELL, _UNKNOWN = (_bytes(side + TRADE_TIME) for side in ("buy", "sell", "unknown"))
_RECEIVED = _bytes(TRADE_RECEIVED)
_ZERO = np.uint64(0)


class PlainTrade(NamedTuple):
    """What `read_plain` returns.

    time_us: -1, it is no plain trade. side: the first letter. price_at, price_bytes: where the text
    is. price, amount: their digits as a number, of which so many are fraction digits.
    """

    time_us: Any
    side: Any
    price_at: int
    price_bytes: int
    price: Any
    price_fraction: int
    amount: Any
    amount_fraction: int


@compiled
def same_bytes(
    text: Any, at: int, other: Any, other_at: int, size: int
) -> bool:  # pragma: no cover - compiled
    """Return whether the same bytes stand in both from the positions on."""
    if size < 8:
        same = True
        for i in range(size):
            same = same and text[at + i] == other[other_at + i]
        return same
    last = size - 8
    for i in range(0, last, 8):
        if read_eight(text, at + i) != read_eight(other, other_at + i):
            return False
    return bool(read_eight(text, at + last) == read_eight(other, other_at + last))


@compiled
def _after(text: Any, at: int, end: int, literal: Any) -> int:  # pragma: no cover - compiled
    # The position behind a literal; -1 where something else stands.
    size = len(literal)
    if at < 0 or size > end - at or not same_bytes(text, at, literal, 0, size):
        return -1
    return at + size


@compiled
def _read_time(text: Any, at: int, end: int) -> Any:  # pragma: no cover - compiled
    if at < 0 or end - at < _TIME_DIGITS:
        return 0, -1
    first, last = read_eight(text, at), read_eight(text, at + 8)
    if not (eight_digits(first) and eight_digits(last)):
        return 0, -1
    number = np.int64(number_of(first)) * 100_000_000 + np.int64(number_of(last))
    if number < _TIME_US_MIN or number >= _TIME_US_END:
        return 0, -1
    return number, at + _TIME_DIGITS


@compiled
def read_plain(text: Any, at: int, end: int, next_id: int) -> Any:  # pragma: no cover - compiled
    """Return the trade whose id begins at `at`; a time of -1: it is not plain.

    end: of the value. next_id: the id that it must have, without leading zeros.
    """
    nothing = PlainTrade(-1, 0, 0, 0, _ZERO, 0, _ZERO, 0)
    if at >= end or (text[at] == _DIGIT_ZERO and next_id != 0):
        return nothing
    at, trade_id = read_digits(text, at, end)
    price_at = _after(text, at, end, _PRICE)
    if price_at < 0 or np.int64(trade_id) != next_id:
        return nothing
    price_end, price, price_fraction = read_decimal(text, price_at, end)
    amount_at = _after(text, price_end, end, _AMOUNT)
    if amount_at < 0:
        return nothing
    at, amount, amount_fraction = read_decimal(text, amount_at, end)
    at = _after(text, at, end, _SIDE)
    if at < 0 or at >= end:
        return nothing
    side = np.int64(text[at])
    if side == BUYS:
        at = _after(text, at, end, _BUY)
    elif side == SELLS:
        at = _after(text, at, end, _SELL)
    else:
        at = _after(text, at, end, _UNKNOWN)
    time_us, at = _read_time(text, at, end)
    at = _after(text, at, end, _RECEIVED)
    _, at = _read_time(text, at, end)
    # The closing brace is the last byte, or the value is something else.
    if at < 0 or at != end - 1 or text[at] != _BRACE:
        return nothing
    return PlainTrade(
        time_us, side, price_at, price_end - price_at, price, price_fraction, amount,
        amount_fraction,
    )  # fmt: skip
