"""Closing in the hot loop: the window that ended, and the longer ones that end with it.

Done here when it is plain: one base window ended, nothing is missing, and nothing else may stand
for it. Every longer window that is open has a row with what its closed parts come to, so a closed
window is merged once into the next longer one. The candles are written as `contracts.codec` would;
the windows go into the symbol's log, from where `hot_trades` brings them into the stream. Whatever
is not plain is closed in Python, which comes to the same candles.

Rows of a symbol: the newest window, the one before it, one for each longer timeframe, the log.
"""

from typing import Any

from alpha_pulse.processors.candles.packed import (
    EMPTY,
    TEXT_BYTES_MAX,
)
from alpha_pulse.processors.candles.value import CONTIGUOUS, EXCHANGE, GAP, PARTIAL
from alpha_pulse.processors.compiled.candle_text import (
    CANDLE_REST_BYTES_MAX,
    put,
    put_candle,
    text_bytes,
)
from alpha_pulse.processors.compiled.numbers import add_to
from alpha_pulse.processors.compiled.rows import (
    AT_US,
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
    LEVEL,
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
from alpha_pulse.processors.wire.audit_candle import audit_value
from alpha_pulse.processors.wire.compiler import compiled, copy_bytes

# What a symbol is, and where its stream stands. IS_COMPILED: the loop may take its trades.
# IS_CHANGED:
# since someone asked. IS_BEHIND: its stream does not know yet. ROLLED: the window before the newest
# was left behind. IS_PLAIN: its next window may be closed here. LOGGED: rows in its log.
(
    IS_COMPILED, IS_CHANGED, IS_BEHIND, ROLLED, LAST_TRADE, WATERMARK_US, CLOSE_AT_US, IS_PLAIN,
    LOGGED, KNOWN_FROM_US, KEY_AT, KEY_BYTES, START_AT, START_BYTES, CANDLE_AT, CANDLE_BYTES,
) = range(16)  # fmt: skip
SYMBOL_COLUMNS = 16
NEWEST, ENDED, LONGER = range(3)
LOG_ROWS = 12
# Columns of the levels: length, offset of open times, and how long the text is that names it.
DURATION_US, OFFSET_US, NAME_BYTES = range(3)
# Settings of a run.
LIMIT_US, WINDOW_US, GRACE_US, REVISION, AUDITED = range(5)
# Closed candles: a row each. PLACE: its level, or `levels` for what goes to the audit.
PLACE, KEY_START, KEY_SIZE, VALUE_START, VALUE_SIZE = range(5)
USED, CLOSED = range(2)
_AUDIT, _AUDIT_END = map(text_bytes, audit_value("ours", b"|").decode().split("|"))


@compiled
def block_of(number: int, levels: int) -> int:  # pragma: no cover - compiled
    """Return a symbol's first row."""
    return number * (LONGER + levels - 1 + LOG_ROWS)


@compiled
def copy_row(texts: Any, to: int, row: int) -> None:  # pragma: no cover - compiled
    """Copy a row onto another."""
    size = texts.shape[1]
    copy_bytes(texts, to * size, texts, row * size, size)


@compiled
def _is_before(numbers: Any, a: int, b: int, us: int, rank: int) -> bool:  # pragma: no cover
    if numbers[a, us] != numbers[b, us]:
        return bool(numbers[a, us] < numbers[b, us])
    return bool(numbers[a, rank] < numbers[b, rank])


@compiled
def _take_text(
    numbers: Any, texts: Any, to: int, row: int, which: int
) -> None:  # pragma: no cover - compiled
    numbers[to, which] = numbers[row, which]
    size = texts.shape[1]
    at = TEXTS_AT + (which - OPEN) * TEXT_BYTES_MAX
    copy_bytes(texts, to * size + at, texts, row * size + at, TEXT_BYTES_MAX)


@compiled
def _compare(unsigned: Any, a: int, b: int, at: int) -> int:  # pragma: no cover - compiled
    if unsigned[a, at] != unsigned[b, at]:
        return 1 if unsigned[a, at] > unsigned[b, at] else -1
    if unsigned[a, at + 1] != unsigned[b, at + 1]:
        return 1 if unsigned[a, at + 1] > unsigned[b, at + 1] else -1
    return 0


@compiled
def _widen(
    numbers: Any, unsigned: Any, texts: Any, to: int, row: int, units: int, which: int, sign: int
) -> None:  # pragma: no cover - compiled
    found = sign * _compare(unsigned, row, to, units)
    if found > 0 or (found == 0 and numbers[row, which] < numbers[to, which]):
        unsigned[to, units], unsigned[to, units + 1] = (
            unsigned[row, units],
            unsigned[row, units + 1],
        )
        _take_text(numbers, texts, to, row, which)


@compiled
def _absorb(
    numbers: Any, unsigned: Any, texts: Any, to: int, row: int
) -> None:  # pragma: no cover - compiled
    """Merge a window in which something was traded into a longer one, as `candles.absorb` does."""
    coverage = max(numbers[to, COVERAGE], numbers[row, COVERAGE])
    source = numbers[to, SOURCE] | numbers[row, SOURCE]
    parts = numbers[to, PARTS] + numbers[row, PARTS]
    if numbers[to, KNOWN] & EMPTY:
        open_us = numbers[to, OPEN_US]
        copy_row(texts, to, row)
        numbers[to, OPEN_US] = open_us
    else:
        if _is_before(numbers, row, to, FIRST_US, FIRST_RANK):
            numbers[to, FIRST_US] = numbers[row, FIRST_US]
            numbers[to, FIRST_RANK] = numbers[row, FIRST_RANK]
            numbers[to, FIRST_ID] = numbers[row, FIRST_ID]
            _take_text(numbers, texts, to, row, OPEN)
        if _is_before(numbers, to, row, LAST_US, LAST_RANK):
            numbers[to, LAST_US] = numbers[row, LAST_US]
            numbers[to, LAST_RANK] = numbers[row, LAST_RANK]
            numbers[to, LAST_ID] = numbers[row, LAST_ID]
            _take_text(numbers, texts, to, row, CLOSE)
        _widen(numbers, unsigned, texts, to, row, HIGH_UNITS, HIGH, 1)
        _widen(numbers, unsigned, texts, to, row, LOW_UNITS, LOW, -1)
        for total in (VOLUME, QUOTE, BUY):
            add_to(unsigned, to, total, unsigned[row, total], unsigned[row, total + 1])
        numbers[to, COUNT] += numbers[row, COUNT]
        numbers[to, KNOWN] &= numbers[row, KNOWN]
    numbers[to, COVERAGE] = coverage
    numbers[to, SOURCE] = source
    numbers[to, PARTS] = parts


@compiled
def _publish(
    closed: Any, place: int, at: int, key_bytes: int, end: int
) -> None:  # pragma: no cover - compiled
    _, index, state = closed
    count = state[CLOSED]
    index[count, PLACE] = place
    index[count, KEY_START] = at
    index[count, KEY_SIZE] = key_bytes
    index[count, VALUE_START] = at + key_bytes
    index[count, VALUE_SIZE] = end - at - key_bytes
    state[USED] = end
    state[CLOSED] = count + 1


@compiled
def _close_row(
    tables: Any, timeframes: Any, closed: Any, setting: Any, number: int, level: int, row: int,
    revision: int,
) -> None:  # fmt: skip  # pragma: no cover - compiled
    """Publish a window that ended, and add it to the symbol's log."""
    arena, symbols, numbers, unsigned, texts = tables
    levels, names = timeframes
    out, _, state = closed
    at = state[USED]
    key_bytes = symbols[number, KEY_BYTES]
    copy_bytes(out, at, arena, symbols[number, KEY_AT], key_bytes)
    end = at + key_bytes
    copy_bytes(out, end, arena, symbols[number, CANDLE_AT], symbols[number, CANDLE_BYTES])
    end += symbols[number, CANDLE_BYTES]
    copy_bytes(out, end, names, level * names.shape[1], levels[level, NAME_BYTES])
    end += levels[level, NAME_BYTES]
    end = put_candle(out, end, numbers, unsigned, texts, row, revision)
    _publish(closed, level, at, key_bytes, end)
    if level == setting[AUDITED]:
        start = at + key_bytes
        size = end - start
        copy_bytes(out, end, out, at, key_bytes)
        to = put(out, end + key_bytes, _AUDIT)
        copy_bytes(out, to, out, start, size)
        _publish(closed, len(levels), end, key_bytes, put(out, to + size, _AUDIT_END))
    numbers[row, LEVEL] = level
    numbers[row, AT_US] = symbols[number, WATERMARK_US]
    log = block_of(number, len(levels)) + LONGER + len(levels) - 1
    copy_row(texts, log + symbols[number, LOGGED], row)
    symbols[number, LOGGED] += 1


# --- closing --------------------------------------------------------------------------------------


@compiled
def _rollup_coverage(
    coverage: int, parts: int, open_us: int, close_us: int, known_from_us: int, window_us: int
) -> int:  # pragma: no cover - compiled
    """Return the coverage of a longer window, as `rollup.Windows` says it."""
    from_us = open_us
    if known_from_us > open_us:
        from_us = known_from_us
        coverage = max(coverage, PARTIAL)
    return GAP if parts < (close_us - from_us) // window_us else coverage


@compiled
def _ended_levels(
    tables: Any, levels: Any, number: int, limit_us: int
) -> int:  # pragma: no cover - compiled
    """Return how many levels end with a base window, 0: what stands for one is not ours to say."""
    _, symbols, numbers, _, _ = tables
    longer = block_of(number, len(levels)) + LONGER - 1
    window_us = levels[0, DURATION_US]
    coverage, parts = CONTIGUOUS, 1
    for level in range(1, len(levels)):
        duration_us = levels[level, DURATION_US]
        if (limit_us - levels[level, OFFSET_US]) % duration_us != 0:
            return level
        row = longer + level
        open_us = limit_us - duration_us
        if numbers[row, PARTS] > 0 and numbers[row, OPEN_US] == open_us:
            coverage = max(coverage, numbers[row, COVERAGE])
            parts += numbers[row, PARTS]
        known_from_us = symbols[number, KNOWN_FROM_US]
        coverage = _rollup_coverage(coverage, parts, open_us, limit_us, known_from_us, window_us)
        if coverage > EXCHANGE:
            return 0
    return len(levels)


@compiled
def close_plain(
    tables: Any, timeframes: Any, closed: Any, setting: Any, number: int, revision: int
) -> bool:  # pragma: no cover - compiled
    """Close what the watermark passed where that is plain; return False, and do nothing, else."""
    _, symbols, numbers, unsigned, texts = tables
    levels, _ = timeframes
    window_us = setting[WINDOW_US]
    block = block_of(number, len(levels))
    limit_us = symbols[number, CLOSE_AT_US] - setting[GRACE_US]
    from_us = limit_us - window_us
    if (
        symbols[number, IS_PLAIN] == 0
        or symbols[number, ROLLED] == 0
        or numbers[block + ENDED, OPEN_US] != from_us
        or symbols[number, WATERMARK_US] >= symbols[number, CLOSE_AT_US] + window_us
    ):
        return False
    ends = _ended_levels(tables, levels, number, limit_us)
    texts_bytes = symbols[number, KEY_BYTES] + symbols[number, CANDLE_BYTES] + CANDLE_REST_BYTES_MAX
    out, index, state = closed
    if (
        ends == 0
        or symbols[number, LOGGED] + ends > LOG_ROWS
        or state[USED] + (ends + 1) * texts_bytes > len(out)
        or state[CLOSED] + ends + 1 > len(index)
    ):
        return False
    row = block + ENDED
    for level in range(len(levels)):
        if level > 0:
            part, row = row, block + LONGER + level - 1
            duration_us = levels[level, DURATION_US]
            open_us = from_us - (from_us - levels[level, OFFSET_US]) % duration_us
            if numbers[row, PARTS] > 0 and numbers[row, OPEN_US] == open_us:
                _absorb(numbers, unsigned, texts, row, part)
            else:
                copy_row(texts, row, part)
                numbers[row, OPEN_US] = open_us
            if level >= ends:
                break
            numbers[row, COVERAGE] = _rollup_coverage(
                numbers[row, COVERAGE], numbers[row, PARTS], open_us, limit_us,
                symbols[number, KNOWN_FROM_US], window_us,
            )  # fmt: skip
        _close_row(tables, timeframes, closed, setting, number, level, row, revision)
    symbols[number, ROLLED] = 0
    symbols[number, CLOSE_AT_US] += window_us
    return True
