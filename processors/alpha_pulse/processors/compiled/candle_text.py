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
def _put_sum(out: Any, at: int, total: Any, known: int) -> int:  # pragma: no cover - compiled
    if known == 0:
        return put(out, at, _NULL)
    out[at] = _QUOTE_MARK
    at = write_units(out, at + 1, total[0], total[1])
    out[at] = _QUOTE_MARK
    return at + 1


@compiled
def _put_quote(out: Any, at: int, total: Any, known: int) -> int:  # pragma: no cover - compiled
    if known == 0:
        return put(out, at, _NULL)
    out[at] = _QUOTE_MARK
    at = write_quote(out, at + 1, total[0], total[1])
    out[at] = _QUOTE_MARK
    return at + 1


@compiled
def _put_price(out: Any, at: int, text: Any, size: int) -> int:  # pragma: no cover - compiled
    copy_bytes(out, at, text, 0, size)
    return at + size


@compiled
def put_candle(out: Any, at: int, window: Any, revision: int) -> int:  # pragma: no cover - compiled
    """Write a candle from its open time on; return the position behind it."""
    at = write_number(out, at, np.uint64(window.open_us))
    at = _put_price(out, put(out, at, _OPEN), window.open, window.open_bytes)
    at = _put_price(out, put(out, at, _HIGH), window.high, window.high_bytes)
    at = _put_price(out, put(out, at, _LOW), window.low, window.low_bytes)
    at = _put_price(out, put(out, at, _CLOSE), window.close, window.close_bytes)
    at = put(out, at, _VOLUME)
    at = write_units(out, at, window.volume[0], window.volume[1])
    at = _put_quote(out, put(out, at, _QUOTE), window.quote, window.known & QUOTE_KNOWN)
    at = _put_sum(out, put(out, at, _BUY), window.buy, window.known & SIDES_KNOWN)
    at = put(out, at, _COUNT)
    if window.known & COUNT_KNOWN:
        at = write_number(out, at, np.uint64(window.count))
    else:
        at = put(out, at, _NULL)
    at = _put_id(out, put(out, at, _FIRST), window.first_id)
    at = _put_id(out, put(out, at, _LAST), window.last_id)
    at = write_number(out, put(out, at, _REVISION), np.uint64(revision))
    at = put(out, at, _FROM_TRADES if window.source == FROM_TRADES else _MIXED)
    return put(out, at, _CONTIGUOUS if window.coverage == CONTIGUOUS else _EXCHANGE)
