"""A closed candle as bytes, written by compiled code: those that `contracts.codec` gives."""

from typing import Any

import numpy as np

from alpha_pulse.processors.candles.packed import (
    COUNT_KNOWN,
    QUOTE_KNOWN,
    SIDES_KNOWN,
    TEXT_BYTES_MAX,
)
from alpha_pulse.processors.candles.value import CONTIGUOUS, FROM_TRADES
from alpha_pulse.processors.compiled.numbers import (
    NUMBER_BYTES_MAX,
    write_number,
    write_quote,
    write_units,
)
from alpha_pulse.processors.compiled.rows import (
    BUY,
    CLOSE,
    COUNT,
    COVERAGE,
    FIRST_ID,
    HIGH,
    KNOWN,
    LAST_ID,
    LOW,
    OPEN,
    OPEN_US,
    QUOTE,
    SOURCE,
    TEXTS_AT,
    VOLUME,
)
from alpha_pulse.processors.wire import canonical
from alpha_pulse.processors.wire.compiler import compiled, copy_bytes

# From the open time on; before it stand the texts of the symbol and of the timeframe.
CANDLE_REST_BYTES_MAX = 4 * TEXT_BYTES_MAX + 8 * NUMBER_BYTES_MAX + 300


def text_bytes(text: str) -> Any:
    """Return a text as an array that compiled code can read."""
    return np.frombuffer(text.encode(), np.uint8)


_OPEN, _HIGH, _LOW, _CLOSE = map(
    text_bytes,
    (canonical.CANDLE_OPEN, canonical.CANDLE_HIGH, canonical.CANDLE_LOW, canonical.CANDLE_CLOSE),
)
_VOLUME = text_bytes(canonical.CANDLE_VOLUME)
_QUOTE = text_bytes(canonical.CANDLE_QUOTE_VOLUME)
_BUY = text_bytes(canonical.CANDLE_BUY_VOLUME)
_COUNT = text_bytes(canonical.CANDLE_TRADE_COUNT)
_FIRST, _LAST = map(text_bytes, (canonical.CANDLE_FIRST_ID, canonical.CANDLE_LAST_ID))
_REVISION, _NULL = map(text_bytes, (canonical.CANDLE_REVISION, canonical.NULL))
_FROM_TRADES, _MIXED = (
    text_bytes(canonical.CANDLE_SOURCE + source) for source in ("trades", "mixed")
)
_CONTIGUOUS, _EXCHANGE = (
    text_bytes(canonical.CANDLE_COVERAGE + coverage + canonical.CANDLE_END)
    for coverage in ("contiguous", "exchange")
)
_QUOTE_MARK = 34


@compiled
def put(out: Any, at: int, text: Any) -> int:  # pragma: no cover - compiled
    """Write a text; return the position behind it."""
    copy_bytes(out, at, text, 0, len(text))
    return at + len(text)


@compiled
def _put_id(out: Any, at: int, number: int) -> int:  # pragma: no cover - compiled
    if number < 0:
        return put(out, at, _NULL)
    out[at] = _QUOTE_MARK
    at = write_number(out, at + 1, np.uint64(number))
    out[at] = _QUOTE_MARK
    return at + 1


@compiled
def _put_sum(
    out: Any, at: int, unsigned: Any, row: int, which: int, known: int
) -> int:  # pragma: no cover - compiled
    if known == 0:
        return put(out, at, _NULL)
    high, low = unsigned[row, which], unsigned[row, which + 1]
    out[at] = _QUOTE_MARK
    if which == QUOTE:
        at = write_quote(out, at + 1, high, low)
    else:
        at = write_units(out, at + 1, high, low)
    out[at] = _QUOTE_MARK
    return at + 1


@compiled
def _put_price(
    out: Any, at: int, numbers: Any, texts: Any, row: int, which: int
) -> int:  # pragma: no cover - compiled
    size = numbers[row, which]
    start = row * texts.shape[1] + TEXTS_AT + (which - OPEN) * TEXT_BYTES_MAX
    copy_bytes(out, at, texts, start, size)
    return int(at + size)


@compiled
def put_candle(
    out: Any, at: int, numbers: Any, unsigned: Any, texts: Any, row: int, revision: int
) -> int:  # pragma: no cover - compiled
    """Write a candle from its open time on; return the position behind it."""
    at = write_number(out, at, np.uint64(numbers[row, OPEN_US]))
    at = _put_price(out, put(out, at, _OPEN), numbers, texts, row, OPEN)
    at = _put_price(out, put(out, at, _HIGH), numbers, texts, row, HIGH)
    at = _put_price(out, put(out, at, _LOW), numbers, texts, row, LOW)
    at = _put_price(out, put(out, at, _CLOSE), numbers, texts, row, CLOSE)
    at = put(out, at, _VOLUME)
    at = write_units(out, at, unsigned[row, VOLUME], unsigned[row, VOLUME + 1])
    known = numbers[row, KNOWN]
    at = put(out, at, _QUOTE)
    at = _put_sum(out, at, unsigned, row, QUOTE, known & QUOTE_KNOWN)
    at = put(out, at, _BUY)
    at = _put_sum(out, at, unsigned, row, BUY, known & SIDES_KNOWN)
    at = put(out, at, _COUNT)
    if known & COUNT_KNOWN:
        at = write_number(out, at, np.uint64(numbers[row, COUNT]))
    else:
        at = put(out, at, _NULL)
    at = _put_id(out, put(out, at, _FIRST), numbers[row, FIRST_ID])
    at = _put_id(out, put(out, at, _LAST), numbers[row, LAST_ID])
    at = write_number(out, put(out, at, _REVISION), np.uint64(revision))
    at = put(out, at, _FROM_TRADES if numbers[row, SOURCE] == FROM_TRADES else _MIXED)
    return put(out, at, _CONTIGUOUS if numbers[row, COVERAGE] == CONTIGUOUS else _EXCHANGE)
