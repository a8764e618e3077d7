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

from alpha_pulse.processors.candles.packed import (
    ALL_KNOWN,
    SIDES_KNOWN,
    TEXT_BYTES_MAX,
)
from alpha_pulse.processors.candles.value import CONTIGUOUS, FROM_TRADES
from alpha_pulse.processors.compiled.closing import (
    CLOSE_AT_US,
    ENDED,
    IS_BEHIND,
    IS_CHANGED,
    IS_COMPILED,
    KEY_AT,
    KEY_BYTES,
    LAST_TRADE,
    LIMIT_US,
    NEWEST,
    REVISION,
    ROLLED,
    START_AT,
    START_BYTES,
    WATERMARK_US,
    WINDOW_US,
    block_of,
    close_plain,
    copy_row,
)
from alpha_pulse.processors.compiled.numbers import add_to, has_room, product_units, units_of
from alpha_pulse.processors.compiled.plain_trade import (
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
from alpha_pulse.processors.compiled.rows import (
    BUY,
    CLOSE,
    COUNT,
    COVERAGE,
    FIRST_ID,
    FIRST_RANK,
    FIRST_US,
    HIGH,
    HIGH_UNITS,
    KNOWN,
    LAST_ID,
    LAST_RANK,
    LAST_US,
    LOW,
    LOW_UNITS,
    OPEN,
    OPEN_US,
    PARTS,
    QUOTE,
    SOURCE,
    TEXTS_AT,
    VOLUME,
)
from alpha_pulse.processors.wire.compiler import compiled, copy_bytes, read_eight
from alpha_pulse.processors.wire.records import write_record

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
    numbers: Any, texts: Any, row: int, which: int, text: Any, at: int, size: int
) -> None:  # pragma: no cover - compiled
    numbers[row, which] = size
    # Always as many: what stands behind a price is longer than that.
    start = row * texts.shape[1] + TEXTS_AT + (which - OPEN) * TEXT_BYTES_MAX
    copy_bytes(texts, start, text, at, TEXT_BYTES_MAX)


@compiled
def _begin(
    numbers: Any, unsigned: Any, row: int, open_us: int, time_us: int, trade_id: int
) -> None:  # pragma: no cover - compiled
    numbers[row, OPEN_US] = open_us
    numbers[row, FIRST_US] = time_us
    numbers[row, FIRST_RANK] = numbers[row, FIRST_ID] = trade_id
    numbers[row, COUNT] = 0
    numbers[row, KNOWN] = ALL_KNOWN
    numbers[row, COVERAGE] = CONTIGUOUS
    numbers[row, SOURCE] = FROM_TRADES
    numbers[row, PARTS] = 1
    for total in (VOLUME, QUOTE, BUY):
        unsigned[row, total] = unsigned[row, total + 1] = 0


@compiled
def _price(
    numbers: Any, unsigned: Any, texts: Any, row: int, opens: bool, text: Any, trade: Any
) -> None:  # pragma: no cover - compiled
    # Of equal prices in different digits the shorter text stands, as in `candles.widen`.
    at, size = trade[PRICE_AT], trade[PRICE_BYTES]
    high, low = units_of(trade[PRICE], trade[PRICE_FRACTION])
    other_high, other_low = unsigned[row, HIGH_UNITS], unsigned[row, HIGH_UNITS + 1]
    above = high > other_high or (high == other_high and low > other_low)
    same = high == other_high and low == other_low
    if opens or above or (same and size < numbers[row, HIGH]):
        unsigned[row, HIGH_UNITS], unsigned[row, HIGH_UNITS + 1] = high, low
        _set_text(numbers, texts, row, HIGH, text, at, size)
    other_high, other_low = unsigned[row, LOW_UNITS], unsigned[row, LOW_UNITS + 1]
    below = high < other_high or (high == other_high and low < other_low)
    same = high == other_high and low == other_low
    if opens or below or (same and size < numbers[row, LOW]):
        unsigned[row, LOW_UNITS], unsigned[row, LOW_UNITS + 1] = high, low
        _set_text(numbers, texts, row, LOW, text, at, size)
    _set_text(numbers, texts, row, CLOSE, text, at, size)


@compiled
def run(  # noqa: C901 - one loop, step by step
    text: Any, index: Any, control: Any, setting: Any, slots: Any, tables: Any, timeframes: Any,
    closed: Any, buffer: Any, written: Any,
) -> None:  # fmt: skip  # pragma: no cover - compiled
    """Take in plain trades from `control[ROW]` on, and say in `control` where and why it stopped.

    CLOSES: the record was taken in, and windows must be closed before the next one. NOT_PLAIN and
    FULL (no room in `buffer`): nothing of the record was taken in.
    """
    arena, symbols, numbers, unsigned, texts = tables
    window_us = setting[WINDOW_US]
    for row in range(control[ROW], len(index)):
        control[ROW] = row
        control[REASON] = NOT_PLAIN
        key_at, key_bytes = index[row, 1], index[row, 2]
        value_at, value_bytes = index[row, 3], index[row, 4]
        number = find_symbol(slots, symbols, arena, text, key_at, max(key_bytes, 0))
        if number < 0 or symbols[number, IS_COMPILED] == 0:
            return
        start_bytes = symbols[number, START_BYTES]
        if start_bytes > value_bytes or not same_bytes(
            text, value_at, arena, symbols[number, START_AT], start_bytes
        ):
            return
        trade_id = symbols[number, LAST_TRADE] + 1
        trade = read_plain(text, value_at + start_bytes, value_at + value_bytes, trade_id)
        time_us = trade[TIME_US]
        if time_us < 0 or time_us > setting[LIMIT_US]:
            return
        new = block_of(number, len(timeframes[0])) + NEWEST
        opens = time_us >= numbers[new, OPEN_US] + window_us
        if opens and symbols[number, ROLLED] != 0:
            return
        if not opens and time_us < numbers[new, LAST_US]:
            return
        fits, quote_high, quote_low = product_units(
            trade[PRICE], trade[PRICE_FRACTION], trade[AMOUNT], trade[AMOUNT_FRACTION]
        )
        if not (fits and has_room(unsigned, new, VOLUME) and has_room(unsigned, new, QUOTE)):
            return
        if not write_record(buffer, written, text, key_at, key_bytes, value_at, value_bytes):
            control[REASON] = FULL
            return
        if opens:
            symbols[number, ROLLED] = 1
            copy_row(texts, new - NEWEST + ENDED, new)
            _begin(numbers, unsigned, new, time_us - time_us % window_us, time_us, trade_id)
            _set_text(numbers, texts, new, OPEN, text, trade[PRICE_AT], trade[PRICE_BYTES])
        _price(numbers, unsigned, texts, new, opens, text, trade)
        high, low = units_of(trade[AMOUNT], trade[AMOUNT_FRACTION])
        add_to(unsigned, new, VOLUME, high, low)
        add_to(unsigned, new, QUOTE, quote_high, quote_low)
        if trade[SIDE] == BUYS:
            add_to(unsigned, new, BUY, high, low)
        elif trade[SIDE] != SELLS:
            numbers[new, KNOWN] &= ~SIDES_KNOWN
        numbers[new, COUNT] += 1
        numbers[new, LAST_US] = time_us
        numbers[new, LAST_RANK] = numbers[new, LAST_ID] = trade_id
        symbols[number, LAST_TRADE] = trade_id
        symbols[number, IS_CHANGED] = symbols[number, IS_BEHIND] = 1
        control[TRADES] += 1
        if time_us > symbols[number, WATERMARK_US]:
            symbols[number, WATERMARK_US] = time_us
            if time_us >= symbols[number, CLOSE_AT_US] and not close_plain(
                tables, timeframes, closed, setting, number, setting[REVISION] + index[row, 0]
            ):
                control[ROW] = row + 1
                control[REASON] = CLOSES
                return
    control[ROW] = len(index)
    control[REASON] = DONE
