"""The windows of one stream, from the base timeframe up to the week: a tree of mergeable values.

A window keeps its children until they can't change any more; then their values settle into it. So
memory follows what may still be corrected, not history, and a corrected minute is merged again into
every window above it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.processors.candles.packed import unpack
from alpha_pulse.processors.candles.value import (
    EXCHANGE,
    GAP,
    PARTIAL,
    Value,
    absorb,
    copy_value,
    merge,
)


class Window:
    """One window of one timeframe.

    trades: what the trades say (base timeframe only). settled: the children that left the state.
    exchange: the exchange's own candle. price: the previous close of a window that is proven to be
    empty. standing: what was published last; None: nothing yet. ids: of its trades, where ids are
    not consecutive (the dedupe state). encoded: the window as `state` wrote it, while it is closed
    and nothing touches it: every snapshot holds all windows, and almost none of them changed.

    packed: the standing value of a closed window, and of its trades, until somebody looks at them;
    settled_packed: children that left the state in that form. Each stands in place of values, never
    beside them: most windows are never looked at again.
    """

    __slots__ = (
        "_settled", "_standing", "_trades", "close_us", "closed", "encoded", "exchange", "ids",
        "is_base", "open_us", "packed", "price", "settled_packed",
    )  # fmt: skip

    def __init__(self, open_us: int, close_us: int, *, is_base: bool) -> None:
        self.open_us = open_us
        self.close_us = close_us
        self.is_base = is_base
        self.exchange: Value | None = None
        self.price: str | None = None
        self.closed = False
        self.ids: set[str] | None = None
        self.encoded: Any = None
        self.packed: bytes | None = None
        self.settled_packed: list[bytes] = []
        self._trades: Value | None = None
        self._standing: Value | None = None
        self._settled: Value | None = None

    def close_as(self, packed: bytes) -> None:
        """Close the window with a value that was published."""
        self.packed, self.encoded, self.closed = packed, None, True

    def _unpack(self) -> None:
        if self.packed is not None:
            packed, self.packed = self.packed, None
            _, self._standing = unpack(packed)
            if self.is_base:
                # Trades that come later change the one, and not what was published.
                self._trades = copy_value(self._standing)

    @property
    def trades(self) -> Value | None:
        """What the trades say, in the base timeframe."""
        self._unpack()
        return self._trades

    @trades.setter
    def trades(self, value: Value | None) -> None:
        self._unpack()
        self._trades = value

    @property
    def standing(self) -> Value | None:
        """What was published last."""
        self._unpack()
        return self._standing

    @standing.setter
    def standing(self, value: Value | None) -> None:
        self._unpack()
        self._standing = value

    @property
    def settled(self) -> Value | None:
        """What the children that left the state come to."""
        settled, self.settled_packed = self.settled_packed, []
        for packed in settled:
            _, value = unpack(packed)
            self._settled = value if self._settled is None else merge(self._settled, value)
        return self._settled

    @settled.setter
    def settled(self, value: Value | None) -> None:
        self._settled = value

    @property
    def stands(self) -> bool:
        """Whether anything was published."""
        return self.packed is not None or self._standing is not None

    def settle(self, child: "Window") -> None:
        """Merge the value of a child that leaves the state."""
        self.encoded = None
        if child.packed is not None and self._settled is None:
            self.settled_packed.append(child.packed)
            return
        settled, value = self.settled, child.standing
        if value is not None:
            self._settled = value if settled is None else merge(settled, value)


@dataclass(slots=True)
class Windows:
    """All windows of a stream that are open or may still change, per timeframe from base to week.

    followed_from_us: open time of the first base window that is known of; what is missing before
    it makes a rollup partial, what is missing later a gap. promised_from_us: from here on nothing
    is missing even before the first trade, because a history job says so. changes: how often what
    stands was changed, `Stream.follow` left aside.

    A timeframe may be turned on while the stream runs. begins_us: per timeframe, when its first
    candle opens; an earlier window is never published and only hands on what lies in it. Before
    the base timeframe begins, windows of level `former_base` hold the trades. whole_from_us:
    windows that open from here on know nothing of all that.
    """

    timeframes: tuple[Timeframe, ...]
    levels: list[dict[int, Window]] = field(default_factory=list)
    followed_from_us: int | None = None
    promised_from_us: int | None = None
    changes: int = 0
    begins_us: list[int] = field(default_factory=list)
    former_base: int = 0
    whole_from_us: int = field(init=False)

    def __post_init__(self) -> None:
        if not self.levels:
            self.levels = [{} for _ in self.timeframes]
        if not self.begins_us:
            self.begins_us = [0] * len(self.timeframes)
        former = self.timeframes[self.former_base]
        seam_us = self.begins_us[0]
        over_us = former.close_time_us(former.open_time_us(seam_us)) if seam_us else 0
        self.whole_from_us = max(*self.begins_us, over_us)

    def base_at(self, time_us: int) -> int:
        """Return the level whose windows hold the trades of a time."""
        return 0 if time_us >= self.begins_us[0] else self.former_base

    def holds_trades(self, level: int, window: Window) -> bool:
        """Return whether trades of its own lie in a window, not only in those below it."""
        return level == 0 or (level == self.former_base and window.open_us < self.begins_us[0])

    def bases(self, from_us: int, until_us: int) -> Iterator[tuple[int, int]]:
        """Yield level and open time of the windows that hold the trades of `[from_us, until_us)`.

        Whether they are in the state or not; ascending. The one in which a new base timeframe
        begins is among them.
        """
        seam_us = self.begins_us[0]
        if from_us < seam_us:
            former = self.timeframes[self.former_base]
            start_us, end_us = former.open_time_us(from_us), min(until_us, seam_us)
            for open_us in range(start_us, end_us, former.duration_us):
                yield self.former_base, open_us
            from_us = seam_us
        base = self.timeframes[0]
        for open_us in range(base.open_time_us(from_us), until_us, base.duration_us):
            yield 0, open_us

    def level_of(self, timeframe: str) -> int | None:
        """Return the level of a timeframe, 0 for the base; None when it is not among them."""
        for level, found in enumerate(self.timeframes):
            if found.name == timeframe:
                return level
        return None

    def get(self, level: int, time_us: int) -> Window | None:
        """Return the window that holds the time, when it is in the state."""
        return self.levels[level].get(self.timeframes[level].open_time_us(time_us))

    def ensure(self, level: int, time_us: int, closed_until_us: int) -> Window:
        """Return the window that holds the time; it is made, with those above it, when missing."""
        timeframe = self.timeframes[level]
        open_us = timeframe.open_time_us(time_us)
        window = self.levels[level].get(open_us)
        if window is None:
            window = Window(open_us, open_us + timeframe.duration_us, is_base=level == 0)
            window.closed = window.close_us <= closed_until_us
            self._insert(self.levels[level], window)
            if level + 1 < len(self.levels):
                self.ensure(level + 1, time_us, closed_until_us)
        return window

    def know_from(self, open_us: int) -> None:
        """Note a base window that is known of."""
        if self.followed_from_us is None or open_us < self.followed_from_us:
            self.followed_from_us = open_us

    def newest_traded(self) -> Window | None:
        """Return the newest open base window that has trades."""
        for window in reversed(self.levels[0].values()):
            if window.closed:
                return None
            if window.trades is not None:
                return window
        return None

    def _insert(self, windows: dict[int, Window], window: Window) -> None:
        # Every level stays in time order, so that what is old is found at its start. A late window
        # is one of the newest: only those after it step aside.
        newer = []
        while windows and next(reversed(windows)) > window.open_us:
            newer.append(windows.popitem())
        windows[window.open_us] = window
        windows.update(reversed(newer))

    def parts_of(self, level: int) -> int:
        """Return how many base windows one window of a level spans."""
        return self.timeframes[level].duration_us // self.timeframes[0].duration_us

    def children(self, level: int, window: Window) -> Iterator[Window]:
        """Yield the windows of the level below that are in the state, in time order."""
        below = self.levels[level - 1]
        step = self.timeframes[level - 1].duration_us
        if len(below) * step < window.close_us - window.open_us:
            for open_us in below:
                if window.open_us <= open_us < window.close_us:
                    yield below[open_us]
            return
        for open_us in range(window.open_us, window.close_us, step):
            if open_us in below:
                yield below[open_us]

    def merged(self, level: int, window: Window) -> Value | None:
        """Return what the closed parts of a window above the base come to."""
        settled = window.settled
        merged = None if settled is None else copy_value(settled)
        for child in self.children(level, window):
            if child.standing is None:
                continue
            merged = (
                copy_value(child.standing) if merged is None else absorb(merged, child.standing)
            )
        return merged

    def judge_rollup(self, level: int, window: Window, own: Value | None) -> Value | None:
        """Return what stands for a window above the base: its parts, or the exchange's candle.

        own: its own trades, from before the base timeframe began.
        """
        merged = self.merged(level, window)
        if own is not None:
            merged = own if merged is None else absorb(own, merged)
        if merged is not None and window.open_us >= self.begins_us[level]:
            merged.coverage = self._rollup_coverage(window, merged)
        return better(merged, window.exchange)

    def _rollup_coverage(self, window: Window, merged: Value) -> int:
        followed_from_us = window.open_us
        coverage = merged.coverage
        if self.followed_from_us is not None and self.followed_from_us > window.open_us:
            followed_from_us = self.followed_from_us
            if self.promised_from_us is None or self.promised_from_us > window.open_us:
                coverage = max(coverage, PARTIAL)
        expected = (window.close_us - followed_from_us) // self.timeframes[0].duration_us
        return GAP if merged.parts < expected else coverage

    def drop(self, keep_from_us: int, keeps: Callable[[int, int], bool] | None) -> list[Window]:
        """Let go of closed windows that can't change; return those that held trades.

        keep_from_us: windows that close later stay. keeps: asked about the others; None: none.
        """
        gone: list[Window] = []
        for level, windows in enumerate(self.levels):
            old: list[Window] = []
            for window in windows.values():
                if window.close_us > keep_from_us:
                    break
                if window.closed and (keeps is None or not keeps(window.open_us, window.close_us)):
                    old.append(window)
            if not old and level >= self.former_base:
                return gone
            for window in old:
                if self._is_needed(level, window):
                    continue
                del windows[window.open_us]
                if window.stands and level + 1 < len(self.levels):
                    above = self.get(level + 1, window.open_us)
                    if above is not None:
                        above.settle(window)
                if self.holds_trades(level, window):
                    gone.append(window)
        return gone

    def _is_needed(self, level: int, window: Window) -> bool:
        if level and any(True for _ in self.children(level, window)):
            return True
        # An empty candle repeats the close before it, and changes with that.
        if window.price is None or window.trades is not None:
            return False
        return window.open_us - (window.close_us - window.open_us) in self.levels[level]


def better(ours: Value | None, exchange: Value | None) -> Value | None:
    """Return which values stand: contiguous trades, the exchange's, unverified, partial or gap."""
    if exchange is None or (ours is not None and ours.coverage <= EXCHANGE):
        return ours
    return exchange
