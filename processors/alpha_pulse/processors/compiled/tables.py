"""The tables of the compiled loop: structured arrays, whose fields compiled code reads by name."""

from typing import Any, NamedTuple

import numpy as np

from alpha_pulse.processors.candles.packed import FIELDS, LAYOUT

_FORMS: dict[str, Any] = {"q": "<i8", "2Q": ("<u8", 2), "20s": ("u1", 20)}


def _integers(*names: str) -> np.dtype[np.void]:
    return np.dtype([(name, "<i8") for name in names])


# A packed value. `level` and `at_us` are of a window in the log: its timeframe, and the watermark
# that closed it.
WINDOW: np.dtype[np.void] = np.dtype([(name, _FORMS[form]) for name, form in FIELDS])
assert WINDOW.itemsize == LAYOUT.size

# Where a symbol's stream stands. is_handed_over: the loop may take its trades. is_changed: since
# someone asked. is_behind: its stream has something to be told. has_ended: the window before the
# newest ended and is not closed. closes: the next window may be closed here. logged: how many
# windows are in its log. known_from_us: from here on the stream is followed. The rest is where its
# texts are: the key, and how its trades and its candles begin.
SYMBOL = _integers(
    "is_handed_over", "is_changed", "is_behind", "has_ended", "last_id", "watermark_us",
    "close_at_us", "closes", "logged", "known_from_us",
    "key_at", "key_bytes", "start_at", "start_bytes", "candle_at", "candle_bytes",
)  # fmt: skip
# Windows of a symbol, by place: the newest, the one before it, one for each longer timeframe (what
# its closed parts come to), and the log of those that were closed.
NEWEST, ENDED, LONGER = range(3)
LOG_WINDOWS = 12

# name_bytes: of the text that names it in a candle.
TIMEFRAME = _integers("duration_us", "offset_us", "name_bytes")
# audited: the level whose candles go to the audit too; -1: none.
SETTING = _integers("limit_us", "window_us", "grace_us", "revisions_from", "audited")
# How a run stands: the next record, why it stopped, and the trades ingested.
CONTROL = _integers("row", "reason", "trades")
# A candle that waits. place: its level, or the number of levels for what goes to the audit.
CANDLE = _integers("place", "key_at", "key_bytes", "value_at", "value_bytes")
# How much of the room for candles is taken: bytes, and candles.
ROOM = _integers("used", "count")


class Tables(NamedTuple):
    """All that the loop works on; NumPy arrays, written in place.

    setting, room: one each. slots: rows of `symbols` + 1 by the hash of their keys, 0: free. arena:
    the symbols' texts. windows: by symbol and place. names: of the timeframes. candle_text,
    candles, room: what was closed and waits for its topic.
    """

    setting: Any
    slots: Any
    arena: Any
    symbols: Any
    windows: Any
    timeframes: Any
    names: Any
    candle_text: Any
    candles: Any
    room: Any


def windows_of(levels: int) -> int:
    """Return how many windows a symbol has."""
    return LONGER + levels - 1 + LOG_WINDOWS
