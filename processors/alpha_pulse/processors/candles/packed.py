"""A value in 304 bytes: how windows that few look at again are kept in memory and in the state.

`FIELDS` is the only place that knows the layout; it is part of the state's format, so it may only
grow together with the state's version. Integers are little-endian. A value that does not fit (ranks
that are no numbers, longer texts, larger sums) stays an object.
"""

from struct import Struct

from alpha_pulse.processors.candles.value import Value

TEXT_BYTES_MAX = 20  # 18 digits, a point, and one to spare

# Each field's name and form: q, a signed number; 2Q, 128 bits in two halves, the upper one first;
# 20s, a text, padded. Ids of -1 are unknown. `known` holds bits. `level` and `at_us` mean nothing
# here: whoever fills a packed value in place may keep a note there. `open_bytes` and so on are how
# long the texts are. Ranks are the ids where trades stand behind the window.
FIELDS = (
    ("open_us", "q"), ("first_us", "q"), ("first_rank", "q"), ("first_id", "q"), ("last_us", "q"),
    ("last_rank", "q"), ("last_id", "q"), ("count", "q"), ("known", "q"), ("coverage", "q"),
    ("source", "q"), ("parts", "q"), ("level", "q"), ("at_us", "q"),
    ("open_bytes", "q"), ("high_bytes", "q"), ("low_bytes", "q"), ("close_bytes", "q"),
    ("high_units", "2Q"), ("low_units", "2Q"), ("volume", "2Q"), ("quote", "2Q"), ("buy", "2Q"),
    ("open", "20s"), ("high", "20s"), ("low", "20s"), ("close", "20s"),
)  # fmt: skip
_TEXTS = 4
# The texts as one, which is quicker to decode.
LAYOUT = Struct("<" + "".join(form for _, form in FIELDS[:-_TEXTS]) + f"{_TEXTS * TEXT_BYTES_MAX}s")
QUOTE_KNOWN, SIDES_KNOWN, COUNT_KNOWN, EMPTY = 1, 2, 4, 8
ALL_KNOWN = QUOTE_KNOWN | SIDES_KNOWN | COUNT_KNOWN

_LOW_HALF = 2**64 - 1
# What both halves may hold, so that sums of them never overflow.
_UNITS_MAX = 2**126


def offset_of(name: str) -> int:
    """Return where a field begins."""
    before = FIELDS[: [field for field, _ in FIELDS].index(name)]
    return Struct("<" + "".join(form for _, form in before)).size


_WORD = Struct("<q")
_HIGH_TEXT, _LOW_TEXT, _CLOSE_TEXT = (
    offset_of(name) - offset_of("open") for name in ("high", "low", "close")
)
_CLOSE_BYTES_AT, _CLOSE_AT = offset_of("close_bytes"), offset_of("close")


def pack(open_us: int, value: Value) -> bytes | None:
    """Return the value of a window that opens at `open_us`; None when it does not fit."""
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
    return LAYOUT.pack(
        open_us, value.first_time_us, first_rank, first_id, value.last_time_us, last_rank, last_id,
        value.count, known, value.coverage, value.source, value.parts, 0, 0, *map(len, texts),
        high >> 64, high & _LOW_HALF, low >> 64, low & _LOW_HALF, volume >> 64, volume & _LOW_HALF,
        quote >> 64, quote & _LOW_HALF, buy >> 64, buy & _LOW_HALF,
        "".join([text.ljust(TEXT_BYTES_MAX) for text in texts]).encode(),
    )  # fmt: skip


def unpack(packed: bytes) -> tuple[int, Value]:
    """Return the open time and the value of what `pack` made."""
    (
        open_us, first_us, first_rank, first_id, last_us, last_rank, last_id, count, known,
        coverage, source, parts, _, _, open_bytes, high_bytes, low_bytes, close_bytes, high_up,
        high_units, low_up, low_units, volume_up, volume, quote_up, quote, buy_up, buy, texts,
    ) = LAYOUT.unpack(packed)  # fmt: skip
    text = texts.decode("ascii")
    return open_us, Value(
        first_us, first_rank, None if first_id < 0 else str(first_id), text[:open_bytes],
        last_us, last_rank, None if last_id < 0 else str(last_id),
        text[_CLOSE_TEXT : _CLOSE_TEXT + close_bytes],
        high_up << 64 | high_units, text[_HIGH_TEXT : _HIGH_TEXT + high_bytes],
        low_up << 64 | low_units, text[_LOW_TEXT : _LOW_TEXT + low_bytes],
        volume_up << 64 | volume, quote_up << 64 | quote, buy_up << 64 | buy, count,
        known & QUOTE_KNOWN > 0, known & SIDES_KNOWN > 0, known & COUNT_KNOWN > 0,
        known & EMPTY > 0, coverage, source, parts,
    )  # fmt: skip


def open_time_and_close(packed: bytes) -> tuple[int, str]:
    """Return the open time and the closing price, without unpacking the rest."""
    close_bytes = _WORD.unpack_from(packed, _CLOSE_BYTES_AT)[0]
    return (
        _WORD.unpack_from(packed)[0],
        packed[_CLOSE_AT : _CLOSE_AT + close_bytes].decode("ascii"),
    )


def _id_number(trade_id: str | None) -> int | None:
    if trade_id is None:
        return -1
    if not (trade_id.isascii() and trade_id.isdigit() and len(trade_id) <= 18):
        return None
    number = int(trade_id)
    return number if str(number) == trade_id else None
