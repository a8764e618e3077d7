"""The hot loop: runs of plain trades, each the next of its symbol, taken in by compiled code.

A trade is plain (`plain_trade`) when its bytes are exactly the canonical form, its id is the
symbol's last + 1, and its numbers are not too long for 64 bits; it is taken in when its time lies
in the newest open window, or opens the next one. The loop stops at the first record that is
anything else: what that is and means is decided by the kernel, in Python, which comes to the same
result for plain trades too.

The tables that it works on belong to `hot_trades.HotTrades`.
"""

from typing import Any

import numpy as np

from alpha_pulse.processors.compiled import compiled, copy_bytes, read_eight
from alpha_pulse.processors.hot_numbers import add_to, has_room, product_units, units_of
from alpha_pulse.processors.plain_trade import (
    AMOUNT,
    AMOUNT_FRACTION,
    BUYS,
    PRICE,
    PRICE_AT,
    PRICE_BYTES,
    PRICE_FRACTION,
    SELLS,
    SIDE,
    TIME_US,
    read_plain,
    same_bytes,
)
from alpha_pulse.processors.wire import write_record

# What a symbol is, and where its stream stands. IS_HOT: the loop may take its trades. ROLLED: the
# window before the newest was left behind in the row after it.
(
    IS_HOT, IS_DIRTY, ROLLED, LAST_ID, WATERMARK_US, CLOSE_AT_US, KEY_AT, KEY_BYTES, START_AT,
    START_BYTES,
) = range(10)  # fmt: skip
SYMBOL_COLUMNS = 10
# A window: a symbol's newest in row 2 n, the one before it in row 2 n + 1. Lengths are of texts.
(
    OPEN_US, FIRST_US, FIRST_ID, TRADE_US, TRADE_ID, COUNT, SIDES_KNOWN, OPEN, HIGH, LOW, CLOSE,
) = range(11)  # fmt: skip
WINDOW_COLUMNS = 11
# Sums and prices in 128 bits, two columns each: high half, low half.
HIGH_UNITS, LOW_UNITS, VOLUME, QUOTE, BUY = range(0, 10, 2)
SUM_COLUMNS = 10
TEXTS = (OPEN, HIGH, LOW, CLOSE)
TEXT_BYTES_MAX = 20  # 18 digits, a point, and one to spare

# Why the loop stopped.
DONE, NOT_PLAIN, CLOSES, FULL = range(4)
# Control: how the run stands.
ROW, REASON, TRADES = range(3)

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_HASH_SHIFT, _HASH_BITS = np.uint64(32), np.uint64(0x7FFFFFFF)


@compiled
def key_hash(text: Any, at: int, size: int) -> int:  # pragma: no cover - compiled
    """Return a number of 31 bits for a key."""
    found = np.uint64(size)
    end = at + size
    while end - at >= 8:
        found = (found ^ read_eight(text, at)) * _PRIME
        found ^= found >> _HASH_SHIFT
        at += 8
    while at < end:
        found = (found ^ np.uint64(text[at])) * _PRIME
        at += 1
    return int((found >> _HASH_SHIFT) & _HASH_BITS)


@compiled
def find_symbol(
    slots: Any, symbols: Any, arena: Any, text: Any, at: int, size: int
) -> int:  # pragma: no cover - compiled
    """Return the row of a key, or -1; `slots` hold rows + 1, searched from the key's hash on."""
    mask = len(slots) - 1
    slot = key_hash(text, at, size) & mask
    while slots[slot] != 0:
        row = slots[slot] - 1
        key_at = symbols[row, KEY_AT]
        if symbols[row, KEY_BYTES] == size and same_bytes(text, at, arena, key_at, size):
            return int(row)
        slot = (slot + 1) & mask
    return -1


@compiled
def _set_text(
    windows: Any, texts: Any, row: int, which: int, text: Any, at: int, size: int
) -> None:  # pragma: no cover - compiled
    windows[row, which] = size
    # Always as many: what stands behind a price is longer than that.
    start = row * texts.shape[1] + (which - OPEN) * TEXT_BYTES_MAX
    copy_bytes(texts, start, text, at, TEXT_BYTES_MAX)


@compiled
def _roll(windows: Any, sums: Any, texts: Any, row: int) -> None:  # pragma: no cover - compiled
    for column in range(WINDOW_COLUMNS):
        windows[row + 1, column] = windows[row, column]
    for column in range(SUM_COLUMNS):
        sums[row + 1, column] = sums[row, column]
        sums[row, column] = 0
    size = texts.shape[1]
    copy_bytes(texts, (row + 1) * size, texts, row * size, size)


@compiled
def _begin(
    windows: Any, row: int, open_us: int, time_us: int, last_id: int
) -> None:  # pragma: no cover - compiled
    windows[row, OPEN_US] = open_us
    windows[row, FIRST_US] = time_us
    windows[row, FIRST_ID] = last_id + 1
    windows[row, COUNT] = 0
    windows[row, SIDES_KNOWN] = 1


@compiled
def _price(
    windows: Any, sums: Any, texts: Any, row: int, opens: bool, text: Any, trade: Any
) -> None:  # pragma: no cover - compiled
    # Of equal prices in different digits the shorter text stands, as in `candles.widen`.
    at, size = trade[PRICE_AT], trade[PRICE_BYTES]
    high, low = units_of(trade[PRICE], trade[PRICE_FRACTION])
    other_high, other_low = sums[row, HIGH_UNITS], sums[row, HIGH_UNITS + 1]
    above = high > other_high or (high == other_high and low > other_low)
    same = high == other_high and low == other_low
    if opens or above or (same and size < windows[row, HIGH]):
        sums[row, HIGH_UNITS], sums[row, HIGH_UNITS + 1] = high, low
        _set_text(windows, texts, row, HIGH, text, at, size)
    other_high, other_low = sums[row, LOW_UNITS], sums[row, LOW_UNITS + 1]
    below = high < other_high or (high == other_high and low < other_low)
    same = high == other_high and low == other_low
    if opens or below or (same and size < windows[row, LOW]):
        sums[row, LOW_UNITS], sums[row, LOW_UNITS + 1] = high, low
        _set_text(windows, texts, row, LOW, text, at, size)
    _set_text(windows, texts, row, CLOSE, text, at, size)


@compiled
def run(  # noqa: C901 - one loop, step by step
    text: Any, index: Any, control: Any, limit_us: int, window_us: int, slots: Any, arena: Any,
    symbols: Any, windows: Any, sums: Any, texts: Any, buffer: Any, written: Any,
) -> None:  # fmt: skip  # pragma: no cover - compiled
    """Take in plain trades from `control[ROW]` on, and say in `control` where and why it stopped.

    CLOSES: the record was taken in, and windows must be closed before the next one. NOT_PLAIN and
    FULL (no room in `buffer`): nothing of the record was taken in.
    """
    for row in range(control[ROW], len(index)):
        control[ROW] = row
        control[REASON] = NOT_PLAIN
        key_at, key_bytes = index[row, 1], index[row, 2]
        value_at, value_bytes = index[row, 3], index[row, 4]
        number = find_symbol(slots, symbols, arena, text, key_at, max(key_bytes, 0))
        if number < 0 or symbols[number, IS_HOT] == 0:
            return
        start_bytes = symbols[number, START_BYTES]
        if start_bytes > value_bytes or not same_bytes(
            text, value_at, arena, symbols[number, START_AT], start_bytes
        ):
            return
        trade = read_plain(
            text, value_at + start_bytes, value_at + value_bytes, symbols[number, LAST_ID] + 1
        )
        time_us = trade[TIME_US]
        if time_us < 0 or time_us > limit_us:
            return
        new = 2 * number
        opens = time_us >= windows[new, OPEN_US] + window_us
        if opens and symbols[number, ROLLED] != 0:
            return
        if not opens and time_us < windows[new, TRADE_US]:
            return
        fits, quote_high, quote_low = product_units(
            trade[PRICE], trade[PRICE_FRACTION], trade[AMOUNT], trade[AMOUNT_FRACTION]
        )
        if not (fits and has_room(sums, new, VOLUME) and has_room(sums, new, QUOTE)):
            return
        if not write_record(buffer, written, text, key_at, key_bytes, value_at, value_bytes):
            control[REASON] = FULL
            return
        if opens:
            symbols[number, ROLLED] = 1
            _roll(windows, sums, texts, new)
            _begin(windows, new, time_us - time_us % window_us, time_us, symbols[number, LAST_ID])
            _set_text(windows, texts, new, OPEN, text, trade[PRICE_AT], trade[PRICE_BYTES])
        _price(windows, sums, texts, new, opens, text, trade)
        high, low = units_of(trade[AMOUNT], trade[AMOUNT_FRACTION])
        add_to(sums, new, VOLUME, high, low)
        add_to(sums, new, QUOTE, quote_high, quote_low)
        if trade[SIDE] == BUYS:
            add_to(sums, new, BUY, high, low)
        elif trade[SIDE] != SELLS:
            windows[new, SIDES_KNOWN] = 0
        last_id = symbols[number, LAST_ID] + 1
        windows[new, COUNT] += 1
        windows[new, TRADE_US] = time_us
        windows[new, TRADE_ID] = last_id
        symbols[number, LAST_ID] = last_id
        symbols[number, IS_DIRTY] = 1
        control[TRADES] += 1
        if time_us > symbols[number, WATERMARK_US]:
            symbols[number, WATERMARK_US] = time_us
            if time_us >= symbols[number, CLOSE_AT_US]:
                control[ROW] = row + 1
                control[REASON] = CLOSES
                return
    control[ROW] = len(index)
    control[REASON] = DONE
