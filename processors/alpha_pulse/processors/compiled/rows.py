"""Windows as rows of numbers: what the hot loop works on, what the state keeps, and back as values.

A row is 38 words of 64 bits: signed numbers, then five sums of 128 bits (high half, low half), then
the texts of four prices. A value that does not fit a row goes the long way, as an object.
"""

from struct import Struct

from alpha_pulse.processors.candles.value import Value

# Signed numbers. Ranks are the ids where trades stand behind the window; ids of -1: unknown.
# KNOWN: bits. LEVEL and AT_US: of a window that the loop closed, its timeframe and the watermark.
# OPEN to CLOSE: how long the texts are.
(
    OPEN_US, FIRST_US, FIRST_RANK, FIRST_ID, LAST_US, LAST_RANK, LAST_ID, COUNT, KNOWN, COVERAGE,
    SOURCE, PARTS, LEVEL, AT_US, OPEN, HIGH, LOW, CLOSE,
) = range(18)  # fmt: skip
# Sums and prices in units, two words each.
HIGH_UNITS, LOW_UNITS, VOLUME, QUOTE, BUY = range(18, 28, 2)
QUOTE_KNOWN, SIDES_KNOWN, COUNT_KNOWN, EMPTY = 1, 2, 4, 8
ALL_KNOWN = QUOTE_KNOWN | SIDES_KNOWN | COUNT_KNOWN
TEXTS = (OPEN, HIGH, LOW, CLOSE)
TEXT_BYTES_MAX = 20  # 18 digits, a point, and one to spare
TEXTS_AT = 28 * 8
ROW = Struct(f"<18q10Q{len(TEXTS) * TEXT_BYTES_MAX}s")
ROW_WORDS = ROW.size // 8
_WORD, _LEVEL_AND_TIME = Struct("<q"), Struct("<2q")
assert ROW.size == ROW_WORDS * 8

_LOW_HALF = 2**64 - 1
# What both halves may hold, so that sums of them never overflow.
_UNITS_MAX = 2**126
_HIGH_AT, _LOW_AT, _CLOSE_AT = (TEXT_BYTES_MAX * place for place in (1, 2, 3))


def row_of(open_us: int, value: Value) -> tuple[int | bytes, ...] | None:
    """Return the words of a window's row, for `ROW`; None when the value does not fit one."""
    first_rank, last_rank = value.first_rank, value.last_rank
    texts = (value.open, value.high, value.low, value.close)
    if (
        not isinstance(first_rank, int)
        or not isinstance(last_rank, int)
        or max(map(len, texts)) > TEXT_BYTES_MAX
        or max(value.high_units, value.volume_units, value.quote_units) >= _UNITS_MAX
    ):
        return None
    first_id, last_id = _id_number(value.first_id), _id_number(value.last_id)
    if first_id is None or last_id is None:
        return None
    known = (
        value.quote_known * QUOTE_KNOWN + value.sides_known * SIDES_KNOWN
        + value.count_known * COUNT_KNOWN + value.empty * EMPTY
    )  # fmt: skip
    high, low, volume, quote, buy = (
        value.high_units, value.low_units, value.volume_units, value.quote_units, value.buy_units
    )  # fmt: skip
    return (
        open_us, value.first_time_us, first_rank, first_id, value.last_time_us, last_rank, last_id,
        value.count, known, value.coverage, value.source, value.parts, 0, 0, *map(len, texts),
        high >> 64, high & _LOW_HALF, low >> 64, low & _LOW_HALF, volume >> 64, volume & _LOW_HALF,
        quote >> 64, quote & _LOW_HALF, buy >> 64, buy & _LOW_HALF,
        "".join([text.ljust(TEXT_BYTES_MAX) for text in texts]).encode(),
    )  # fmt: skip


def value_of_row(row: bytes) -> tuple[int, Value]:
    """Return the open time and the value of a row."""
    (
        open_us, first_us, first_rank, first_id, last_us, last_rank, last_id, count, known,
        coverage, source, parts, _, _, open_bytes, high_bytes, low_bytes, close_bytes, high_up,
        high, low_up, low, volume_up, volume, quote_up, quote, buy_up, buy, texts,
    ) = ROW.unpack(row)  # fmt: skip
    text = texts.decode("ascii")
    return open_us, Value(
        first_us, first_rank, None if first_id < 0 else str(first_id), text[:open_bytes],
        last_us, last_rank, None if last_id < 0 else str(last_id),
        text[_CLOSE_AT : _CLOSE_AT + close_bytes],
        high_up << 64 | high, text[_HIGH_AT : _HIGH_AT + high_bytes],
        low_up << 64 | low, text[_LOW_AT : _LOW_AT + low_bytes],
        volume_up << 64 | volume, quote_up << 64 | quote, buy_up << 64 | buy, count,
        known & QUOTE_KNOWN > 0, known & SIDES_KNOWN > 0, known & COUNT_KNOWN > 0,
        known & EMPTY > 0, coverage, source, parts,
    )  # fmt: skip


def closed_row(row: bytes) -> tuple[int, int, int, str]:
    """Return level, watermark, open time and close price of a window that the loop closed."""
    close_bytes = _WORD.unpack_from(row, 8 * CLOSE)[0]
    close = row[TEXTS_AT + _CLOSE_AT : TEXTS_AT + _CLOSE_AT + close_bytes].decode("ascii")
    level, at_us = _LEVEL_AND_TIME.unpack_from(row, 8 * LEVEL)
    return level, at_us, _WORD.unpack_from(row)[0], close


def _id_number(trade_id: str | None) -> int | None:
    if trade_id is None:
        return -1
    if not (trade_id.isascii() and trade_id.isdigit() and len(trade_id) <= 18):
        return None
    number = int(trade_id)
    return number if str(number) == trade_id else None
