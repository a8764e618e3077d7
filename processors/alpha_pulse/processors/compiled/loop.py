"""The compiled loop: runs of plain trades, each the next of its symbol, from Kafka's bytes.

A trade is plain (`plain_trade`) when its bytes are exactly the canonical form, its id is the
symbol's last + 1, and its numbers are not too long for 64 bits; it is ingested when its time lies
in the newest open window, or opens the next one. The loop stops at the first record that is
anything else: what that is and means is decided by the kernel, in Python, which comes to the same
result for plain trades too.
"""

from typing import Any

import numpy as np

from alpha_pulse.processors.candles.packed import ALL_KNOWN, SIDES_KNOWN, TEXT_BYTES_MAX
from alpha_pulse.processors.candles.value import CONTIGUOUS, FROM_TRADES
from alpha_pulse.processors.compiled.closing import close_plain
from alpha_pulse.processors.compiled.numbers import (
    add_to,
    compare,
    has_room,
    product_units,
    units_of,
)
from alpha_pulse.processors.compiled.plain_trade import BUYS, SELLS, read_plain, same_bytes
from alpha_pulse.processors.compiled.tables import ENDED, NEWEST
from alpha_pulse.processors.wire.compiler import compiled, copy_bytes, read_eight
from alpha_pulse.processors.wire.records import (
    KEY_AT,
    KEY_BYTES,
    OFFSET,
    VALUE_AT,
    VALUE_BYTES,
    write_record,
)

# Why the loop stopped. CLOSES: the record was ingested, and windows must be closed before the next
# one. NOT_PLAIN and FULL (no room in the buffer): nothing of the record was ingested.
DONE, NOT_PLAIN, CLOSES, FULL = range(4)

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
    """Return the number of a key's symbol, or -1; slots are searched from the key's hash on."""
    mask = len(slots) - 1
    slot = key_hash(text, at, size) & mask
    while slots[slot] != 0:
        number = slots[slot] - 1
        symbol = symbols[number]
        if symbol.key_bytes == size and same_bytes(text, at, arena, symbol.key_at, size):
            return int(number)
        slot = (slot + 1) & mask
    return -1


@compiled
def _begin(
    window: Any, open_us: int, time_us: int, trade_id: int
) -> None:  # pragma: no cover - compiled
    window.open_us = open_us
    window.first_us = time_us
    window.first_rank = trade_id
    window.first_id = trade_id
    window.count = 0
    window.known = ALL_KNOWN
    window.coverage = CONTIGUOUS
    window.source = FROM_TRADES
    window.parts = 1
    for total in (window.volume, window.quote, window.buy):
        total[0] = total[1] = 0


@compiled
def _add_price(window: Any, opens: bool, text: Any, trade: Any) -> None:  # pragma: no cover
    # Of equal prices in different digits the shorter text stands, as in `candles.value.widen`.
    # Copied are always as many bytes: what stands behind a price is longer than that.
    at, size = trade.price_at, trade.price_bytes
    high, low = units_of(trade.price, trade.price_fraction)
    found = compare(high, low, window.high_units)
    if opens or found > 0 or (found == 0 and size < window.high_bytes):
        window.high_units[0], window.high_units[1] = high, low
        window.high_bytes = size
        copy_bytes(window.high, 0, text, at, TEXT_BYTES_MAX)
    found = compare(high, low, window.low_units)
    if opens or found < 0 or (found == 0 and size < window.low_bytes):
        window.low_units[0], window.low_units[1] = high, low
        window.low_bytes = size
        copy_bytes(window.low, 0, text, at, TEXT_BYTES_MAX)
    if opens:
        window.open_bytes = size
        copy_bytes(window.open, 0, text, at, TEXT_BYTES_MAX)
    window.close_bytes = size
    copy_bytes(window.close, 0, text, at, TEXT_BYTES_MAX)


@compiled
def _add_trade(
    window: Any, opens: bool, text: Any, trade: Any, trade_id: int, quote_high: Any, quote_low: Any
) -> None:  # pragma: no cover - compiled
    _add_price(window, opens, text, trade)
    high, low = units_of(trade.amount, trade.amount_fraction)
    add_to(window.volume, high, low)
    add_to(window.quote, quote_high, quote_low)
    if trade.side == BUYS:
        add_to(window.buy, high, low)
    elif trade.side != SELLS:
        window.known &= ~SIDES_KNOWN
    window.count += 1
    window.last_us = trade.time_us
    window.last_rank = trade_id
    window.last_id = trade_id


@compiled
def run(
    text: Any, index: Any, control: Any, tables: Any, buffer: Any, written: Any
) -> None:  # pragma: no cover - compiled
    """Ingest plain trades from `control.row` on, and say in `control` where and why it stopped.

    Args:
        text: bytes of the batch's records.
        index: where in them each record is (`wire.records.EncodedRecords`).
        control: one CONTROL.
        tables: the loop's `Tables`.
        buffer: of the writer of trades.
        written: that writer's state.
    """
    setting, slots, arena, symbols, windows, _, _, _, _, _ = tables
    state = control[0]
    window_us, limit_us = setting[0].window_us, setting[0].limit_us
    for row in range(state.row, len(index)):
        state.row = row
        state.reason = NOT_PLAIN
        key_at, key_bytes = index[row, KEY_AT], index[row, KEY_BYTES]
        value_at, value_bytes = index[row, VALUE_AT], index[row, VALUE_BYTES]
        number = find_symbol(slots, symbols, arena, text, key_at, max(key_bytes, 0))
        if number < 0 or symbols[number].is_handed_over == 0:
            return
        symbol = symbols[number]
        start_bytes = symbol.start_bytes
        if start_bytes > value_bytes or not same_bytes(
            text, value_at, arena, symbol.start_at, start_bytes
        ):
            return
        trade_id = symbol.last_id + 1
        trade = read_plain(text, value_at + start_bytes, value_at + value_bytes, trade_id)
        time_us = trade.time_us
        if time_us < 0 or time_us > limit_us:
            return
        window = windows[number, NEWEST]
        opens = time_us >= window.open_us + window_us
        if (opens and symbol.has_ended != 0) or (not opens and time_us < window.last_us):
            return
        fits, quote_high, quote_low = product_units(
            trade.price, trade.price_fraction, trade.amount, trade.amount_fraction
        )
        if not (fits and has_room(window.volume) and has_room(window.quote)):
            return
        if not write_record(buffer, written, text, key_at, key_bytes, value_at, value_bytes):
            state.reason = FULL
            return
        if opens:
            symbol.has_ended = 1
            windows[number, ENDED] = window
            _begin(window, time_us - time_us % window_us, time_us, trade_id)
        _add_trade(window, opens, text, trade, trade_id, quote_high, quote_low)
        symbol.last_id = trade_id
        symbol.is_changed = 1
        symbol.is_behind = 1
        state.trades += 1
        if time_us > symbol.watermark_us:
            symbol.watermark_us = time_us
            if time_us >= symbol.close_at_us and not close_plain(
                tables, number, setting[0].revisions_from + index[row, OFFSET]
            ):
                state.row = row + 1
                state.reason = CLOSES
                return
    state.row = len(index)
    state.reason = DONE
