"""Closing in the compiled loop: the window that ended, and the longer ones that end with it.

Done here when it is plain: one base window ended, nothing is missing, and nothing else may stand
for it. Every longer window that is open is kept as what its closed parts come to, so a closed
window is merged once into the next longer one. The candles are written as `contracts.codec` would;
the windows go into the symbol's log, from where its stream is told of them. Whatever is not plain
is closed by the rules in Python, which come to the same candles.
"""

from typing import Any

from alpha_pulse.processors.candles.packed import EMPTY, TEXT_BYTES_MAX
from alpha_pulse.processors.candles.value import CONTIGUOUS, EXCHANGE, GAP, PARTIAL
from alpha_pulse.processors.compiled.candle_text import (
    CANDLE_REST_BYTES_MAX,
    put,
    put_candle,
    text_bytes,
)
from alpha_pulse.processors.compiled.numbers import add_to, compare
from alpha_pulse.processors.compiled.tables import ENDED, LOG_WINDOWS, LONGER
from alpha_pulse.processors.wire.audit_candle import audit_value
from alpha_pulse.processors.wire.compiler import compiled, copy_bytes

_AUDIT, _AUDIT_END = map(text_bytes, audit_value("ours", b"|").decode().split("|"))


# --- merging --------------------------------------------------------------------------------------


@compiled
def _is_before(us: int, rank: int, other_us: int, other_rank: int) -> bool:  # pragma: no cover
    return bool(us < other_us or (us == other_us and rank < other_rank))


@compiled
def _merge_first(merged: Any, part: Any) -> None:  # pragma: no cover - compiled
    if _is_before(part.first_us, part.first_rank, merged.first_us, merged.first_rank):
        merged.first_us = part.first_us
        merged.first_rank = part.first_rank
        merged.first_id = part.first_id
        merged.open_bytes = part.open_bytes
        copy_bytes(merged.open, 0, part.open, 0, TEXT_BYTES_MAX)


@compiled
def _merge_last(merged: Any, part: Any) -> None:  # pragma: no cover - compiled
    if _is_before(merged.last_us, merged.last_rank, part.last_us, part.last_rank):
        merged.last_us = part.last_us
        merged.last_rank = part.last_rank
        merged.last_id = part.last_id
        merged.close_bytes = part.close_bytes
        copy_bytes(merged.close, 0, part.close, 0, TEXT_BYTES_MAX)


@compiled
def _widen(merged: Any, part: Any) -> None:  # pragma: no cover - compiled
    found = compare(part.high_units[0], part.high_units[1], merged.high_units)
    if found > 0 or (found == 0 and part.high_bytes < merged.high_bytes):
        merged.high_units[0], merged.high_units[1] = part.high_units[0], part.high_units[1]
        merged.high_bytes = part.high_bytes
        copy_bytes(merged.high, 0, part.high, 0, TEXT_BYTES_MAX)
    found = compare(part.low_units[0], part.low_units[1], merged.low_units)
    if found < 0 or (found == 0 and part.low_bytes < merged.low_bytes):
        merged.low_units[0], merged.low_units[1] = part.low_units[0], part.low_units[1]
        merged.low_bytes = part.low_bytes
        copy_bytes(merged.low, 0, part.low, 0, TEXT_BYTES_MAX)


@compiled
def _merge(merged: Any, part: Any) -> None:  # pragma: no cover - compiled
    """Merge a window with trades into a longer one with trades, as `candles.value.absorb` does."""
    _merge_first(merged, part)
    _merge_last(merged, part)
    _widen(merged, part)
    add_to(merged.volume, part.volume[0], part.volume[1])
    add_to(merged.quote, part.quote[0], part.quote[1])
    add_to(merged.buy, part.buy[0], part.buy[1])
    merged.count += part.count
    merged.known &= part.known
    merged.coverage = max(merged.coverage, part.coverage)
    merged.source |= part.source
    merged.parts += part.parts


@compiled
def _absorb(windows: Any, place: int, part: int) -> None:  # pragma: no cover - compiled
    """Merge a symbol's window, which has trades, into a longer one, which may be empty."""
    merged = windows[place]
    if merged.known & EMPTY == 0:
        _merge(merged, windows[part])
        return
    # An empty window adds its proof and nothing else.
    open_us, coverage, source, parts = merged.open_us, merged.coverage, merged.source, merged.parts
    windows[place] = windows[part]
    merged.open_us = open_us
    merged.coverage = max(coverage, merged.coverage)
    merged.source |= source
    merged.parts += parts


# --- publishing -----------------------------------------------------------------------------------


@compiled
def _publish(
    tables: Any, place: int, at: int, key_bytes: int, end: int
) -> None:  # pragma: no cover - compiled
    """Note a candle that stands in the room for candles: its key from `at` on, then its value."""
    room = tables.room[0]
    candle = tables.candles[room.count]
    candle.place = place
    candle.key_at = at
    candle.key_bytes = key_bytes
    candle.value_at = at + key_bytes
    candle.value_bytes = end - at - key_bytes
    room.used = end
    room.count += 1


@compiled
def _close_window(
    tables: Any, number: int, level: int, place: int, revision: int
) -> None:  # pragma: no cover - compiled
    """Publish a window that ended, and add it to the symbol's log."""
    symbol, window = tables.symbols[number], tables.windows[number, place]
    out, arena = tables.candle_text, tables.arena
    at = tables.room[0].used
    key_bytes = symbol.key_bytes
    copy_bytes(out, at, arena, symbol.key_at, key_bytes)
    end = at + key_bytes
    copy_bytes(out, end, arena, symbol.candle_at, symbol.candle_bytes)
    end += symbol.candle_bytes
    name_bytes = tables.timeframes[level].name_bytes
    copy_bytes(out, end, tables.names, level * tables.names.shape[1], name_bytes)
    end = put_candle(out, end + name_bytes, window, revision)
    _publish(tables, level, at, key_bytes, end)
    levels = len(tables.timeframes)
    if level == tables.setting[0].audited:
        start = at + key_bytes
        size = end - start
        copy_bytes(out, end, out, at, key_bytes)
        to = put(out, end + key_bytes, _AUDIT)
        copy_bytes(out, to, out, start, size)
        _publish(tables, levels, end, key_bytes, put(out, to + size, _AUDIT_END))
    window.level = level
    window.at_us = symbol.watermark_us
    tables.windows[number, LONGER + levels - 1 + symbol.logged] = window
    symbol.logged += 1


# --- closing --------------------------------------------------------------------------------------


@compiled
def _rollup_coverage(
    coverage: int, parts: int, open_us: int, close_us: int, known_from_us: int, window_us: int
) -> int:  # pragma: no cover - compiled
    """Return the coverage of a longer window, as `candles.windows.Windows` says it."""
    from_us = open_us
    if known_from_us > open_us:
        from_us = known_from_us
        coverage = max(coverage, PARTIAL)
    return GAP if parts < (close_us - from_us) // window_us else coverage


@compiled
def _ended_levels(tables: Any, number: int, limit_us: int) -> int:  # pragma: no cover - compiled
    """Return how many levels end with a base window, 0: what stands for one is not ours to say."""
    levels = tables.timeframes
    window_us = levels[0].duration_us
    known_from_us = tables.symbols[number].known_from_us
    coverage, parts = CONTIGUOUS, 1
    for level in range(1, len(levels)):
        duration_us = levels[level].duration_us
        if (limit_us - levels[level].offset_us) % duration_us != 0:
            return level
        window = tables.windows[number, LONGER + level - 1]
        open_us = limit_us - duration_us
        if window.parts > 0 and window.open_us == open_us:
            coverage = max(coverage, window.coverage)
            parts += window.parts
        coverage = _rollup_coverage(coverage, parts, open_us, limit_us, known_from_us, window_us)
        if coverage > EXCHANGE:
            return 0
    return len(levels)


@compiled
def _has_room(tables: Any, number: int, ends: int) -> bool:  # pragma: no cover - compiled
    """Return whether so many windows of a symbol can be closed now."""
    symbol, room = tables.symbols[number], tables.room[0]
    candle_bytes = symbol.key_bytes + symbol.candle_bytes + CANDLE_REST_BYTES_MAX
    return bool(
        symbol.logged + ends <= LOG_WINDOWS
        and room.used + (ends + 1) * candle_bytes <= len(tables.candle_text)
        and room.count + ends + 1 <= len(tables.candles)
    )


@compiled
def close_plain(tables: Any, number: int, revision: int) -> bool:  # pragma: no cover - compiled
    """Close what the watermark passed where that is plain; return False, and do nothing, else."""
    symbol, levels = tables.symbols[number], tables.timeframes
    windows = tables.windows[number]
    window_us = tables.setting[0].window_us
    limit_us = symbol.close_at_us - tables.setting[0].grace_us
    from_us = limit_us - window_us
    if (
        symbol.closes == 0
        or symbol.has_ended == 0
        or windows[ENDED].open_us != from_us
        or symbol.watermark_us >= symbol.close_at_us + window_us
    ):
        return False
    ends = _ended_levels(tables, number, limit_us)
    if ends == 0 or not _has_room(tables, number, ends):
        return False
    place = ENDED
    for level in range(len(levels)):
        if level > 0:
            part, place = place, LONGER + level - 1
            duration_us = levels[level].duration_us
            open_us = from_us - (from_us - levels[level].offset_us) % duration_us
            window = windows[place]
            if window.parts > 0 and window.open_us == open_us:
                _absorb(windows, place, part)
            else:
                windows[place] = windows[part]
                window.open_us = open_us
            if level >= ends:
                break
            window.coverage = _rollup_coverage(
                window.coverage, window.parts, open_us, limit_us, symbol.known_from_us, window_us
            )
        _close_window(tables, number, level, place, revision)
    symbol.has_ended = 0
    symbol.close_at_us += window_us
    return True
