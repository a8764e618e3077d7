"""Streams and candle jobs that were written with other timeframes, brought to today's. Pure.

Windows are a tree, so a timeframe that goes hands its contents up, and one that comes stands
between two others from its first window on. What was published is never recalled: a window that
lacks something which can't be told any more is let go as it stands, or says that it has a gap.
"""

from collections.abc import Sequence
from dataclasses import replace

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.processors.candles.proof import Span
from alpha_pulse.processors.candles.rules import Rules
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.candles.value import (
    CONTIGUOUS,
    FROM_TRADES,
    Value,
    copy_value,
    merge,
)
from alpha_pulse.processors.candles.windows import Window, Windows


def with_rules(stream: Stream, rules: Rules) -> Stream:
    """Return a stream, which has the rules that its state was written with, under today's.

    Raises: ValidationError when its windows can't be brought to today's timeframes.
    """
    before = stream.rules
    names = [timeframe.name for timeframe in rules.timeframes]
    for timeframe in before.timeframes:
        if timeframe.name not in names:
            _remove(stream, timeframe)
    for level, timeframe in enumerate(rules.timeframes):
        if timeframe not in stream.windows.timeframes:
            _insert(stream, level, timeframe)
    old = stream.windows
    windows = Windows(
        rules.timeframes, old.levels, old.followed_from_us, old.promised_from_us,
        begins_us=old.begins_us, former_base=old.former_base,
    )  # fmt: skip
    found = Stream.of(stream.exchange, stream.symbol, rules, stream.proof, windows, stream.job)
    found.late = stream.late
    for name in (
        "first_id", "last_id", "last_trade_us", "last_trade_id", "passed_us", "unpriced_until_us",
        "recent",
    ):  # fmt: skip
        setattr(found.order, name, getattr(stream.order, name))
    for name in ("watermark_us", "closed_until_us", "gone_until_us"):
        setattr(found.closing, name, getattr(stream.closing, name))
    found.versions.price = stream.versions.price
    found.versions.price_open_us = stream.versions.price_open_us
    if rules.closed_keep_us > before.closed_keep_us:
        gone_until_us = found.closing.watermark_us - before.closed_keep_us
        found.closing.gone_until_us = max(found.closing.gone_until_us, gone_until_us)
    found.closing.resume()
    return found


def _remove(stream: Stream, timeframe: Timeframe) -> None:
    windows = stream.windows
    level = windows.timeframes.index(timeframe)
    if level and level == windows.former_base:
        raise ValidationError(
            f"expected {timeframe.name} among the timeframes while its windows hold trades, found "
            "it turned off; turn it on again, or begin a new log epoch"
        )
    if level + 1 < len(windows.timeframes):
        if level == 0:
            _give_trades_up(stream)
        else:
            for window in windows.levels[level].values():
                above = windows.get(level + 1, window.open_us)
                if above is not None and window.settled is not None:
                    above.settled = _merged(above.settled, window.settled)
    windows.timeframes = (*windows.timeframes[:level], *windows.timeframes[level + 1 :])
    del windows.levels[level], windows.begins_us[level]
    if level < windows.former_base:
        windows.former_base -= 1
    stream.rules = replace(stream.rules, timeframes=windows.timeframes)


def _give_trades_up(stream: Stream) -> None:
    """Make the timeframe above the base the new base: its windows hold the trades from now on."""
    windows, closing = stream.windows, stream.closing
    base, above = windows.timeframes[:2]
    ratio = above.duration_us // base.duration_us
    for window in list(windows.levels[1].values()):
        _gather_trades(stream, window)
    for level, found in enumerate(windows.levels):
        for window in found.values():
            for value in (window.settled, window.standing, window.exchange):
                if value is not None:
                    # What is followed from within a window counts as a whole one.
                    value.parts = 1 if level == 1 else -(-value.parts // ratio)
    if windows.followed_from_us is not None:
        windows.followed_from_us = above.open_time_us(windows.followed_from_us)
    closing.closed_until_us = above.open_time_us(closing.closed_until_us)
    stream.versions.price_open_us = above.open_time_us(stream.versions.price_open_us)
    if windows.former_base == 1:
        windows.former_base = 0


def _gather_trades(stream: Stream, window: Window) -> None:
    windows = stream.windows
    children = list(windows.children(1, window))
    trades = window.trades
    for child in children:
        if child.trades is not None:
            trades = _merged(trades, child.trades)
        if child.ids:
            window.ids = (window.ids or set()) | child.ids
    settled = window.settled
    is_of_trades = settled is None or settled.source == FROM_TRADES
    # The ids of the trades that left may be unknown: one that comes again would count again.
    is_known = is_of_trades and stream.proof.consecutive
    if settled is not None and window.closed and not is_known:
        _let_go(stream, window)
        return
    if not is_of_trades:
        stream.proof.spans.append(Span(window.open_us, window.close_us, "gap"))
    elif settled is not None and not settled.empty:
        trades = _merged(trades, settled)
    window.is_base, window.settled = True, None
    if trades is None:
        standing = window.standing
        if window.closed and standing is not None and standing.source == FROM_TRADES:
            window.price = standing.close
        return
    trades = copy_value(trades)
    trades.coverage, trades.source, trades.parts = CONTIGUOUS, FROM_TRADES, 1
    window.trades = trades


def _let_go(stream: Stream, window: Window) -> None:
    windows = stream.windows
    del windows.levels[1][window.open_us]
    stream.closing.gone_until_us = max(stream.closing.gone_until_us, window.close_us)
    if window.stands and len(windows.levels) > 2:
        above = windows.get(2, window.open_us)
        if above is not None:
            above.settle(window)


def _merged(a: Value | None, b: Value) -> Value:
    return copy_value(b) if a is None else merge(a, b)


def _insert(stream: Stream, level: int, timeframe: Timeframe) -> None:
    windows, closing = stream.windows, stream.closing
    if level == 0:
        _split_base(stream, timeframe)
    begins_us = 0
    if closing.watermark_us:
        begins_us = timeframe.close_time_us(timeframe.open_time_us(closing.watermark_us))
    windows.timeframes = (*windows.timeframes[:level], timeframe, *windows.timeframes[level:])
    windows.levels.insert(level, {})
    windows.begins_us.insert(level, begins_us)
    if level == 0:
        windows.former_base = 1
    else:
        if windows.former_base >= level:
            windows.former_base += 1
        _stand_between(stream, level)
    stream.rules = replace(stream.rules, timeframes=windows.timeframes)


def _split_base(stream: Stream, timeframe: Timeframe) -> None:
    windows = stream.windows
    base = windows.timeframes[0]
    if windows.begins_us[0] or base.duration_us % timeframe.duration_us:
        raise ValidationError(
            f"expected a base timeframe that may become {timeframe.name}, found {base.name}; turn "
            "off one timeframe after the other, or begin a new log epoch"
        )
    ratio = base.duration_us // timeframe.duration_us
    for level, found in enumerate(windows.levels):
        for window in found.values():
            for value in (window.settled, window.standing, window.exchange):
                if value is not None:
                    value.parts *= ratio
            if level == 0:
                window.is_base = False


def _stand_between(stream: Stream, level: int) -> None:
    # Parents that are never published hand on what the windows below them come to.
    windows, closed_until_us = stream.windows, stream.closing.closed_until_us
    timeframe = windows.timeframes[level]
    for child in windows.levels[level - 1].values():
        open_us = timeframe.open_time_us(child.open_us)
        if open_us not in windows.levels[level]:
            window = Window(open_us, timeframe.close_time_us(open_us), is_base=False)
            window.closed = window.close_us <= closed_until_us
            windows.levels[level][open_us] = window
    for window in windows.levels[level].values():
        if window.closed:
            window.standing = windows.merged(level, window)


def longer_of(
    longer: dict[str, tuple[int, Value]], begins_us: dict[str, int],
    written: Sequence[Timeframe], timeframes: Sequence[Timeframe], next_us: int,
) -> tuple[dict[int, tuple[int, Value]], dict[int, int]]:  # fmt: skip
    """Return a candle job's open windows above its own timeframe, and where timeframes begin.

    Args:
        longer: open time and value by the name of the timeframe, as it was written.
        begins_us: where some of those timeframes begin, by name.
        written: the timeframes that it was written with, ascending.
        timeframes: today's, ascending.
        next_us: where the job goes on.

    Returns: both by today's level.
    """
    levels = {timeframe.name: level for level, timeframe in enumerate(timeframes)}
    held: dict[int, tuple[int, Value]] = {}
    for timeframe in sorted(written, key=lambda timeframe: timeframe.duration_us):
        if timeframe.name not in longer:
            continue
        open_us, value = longer[timeframe.name]
        # A timeframe that is gone hands its part to the next longer one.
        above = (t for t in timeframes if t.duration_us > timeframe.duration_us)
        found = timeframes[levels[timeframe.name]] if timeframe.name in levels else None
        found = found or next(above, None)
        if found is None:
            continue
        level, found_open_us = levels[found.name], found.open_time_us(open_us)
        other = held.get(level)
        if other is None or other[0] < found_open_us:
            held[level] = (found_open_us, value)
        elif other[0] == found_open_us:
            held[level] = (found_open_us, merge(other[1], value))
    begin = {levels[name]: begin_us for name, begin_us in begins_us.items() if name in levels}
    names = {timeframe.name for timeframe in written}
    for level, timeframe in enumerate(timeframes):
        if timeframe.name not in names and next_us:
            begin[level] = timeframe.close_time_us(timeframe.open_time_us(next_us - 1))
    return held, begin
