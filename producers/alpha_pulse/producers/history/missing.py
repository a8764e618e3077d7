"""What is missing from a wanted window, and why: pure, no clock, no client."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter, lt
from typing import Literal

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import Timeframe

Reason = Literal[
    "not_listed_yet", "not_offered", "halted", "no_trades", "ended", "refused", "open", "unanswered"
]

# How each reason reads; those of FINAL_REASONS will not change by asking again.
REASONS: dict[Reason, str] = {
    "not_listed_yet": "the symbol was not listed yet",
    "not_offered": "the exchange does not serve it",
    "halted": "the exchange was halted: it printed no trade and has no candle",
    "no_trades": "nothing was traded, and this exchange serves no candle then",
    "ended": "the exchange trades the symbol no more, while its other symbols go on",
    "refused": "the exchange's candle breaks the contract: its dead letter says how",
    "open": "not closed yet by the exchange's clock",
    "unanswered": "the exchange did not answer; ask again",
}
FINAL_REASONS: frozenset[Reason] = frozenset(
    ("not_listed_yet", "not_offered", "halted", "no_trades", "ended", "refused")
)

_FOREVER_US = 2**62


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A stretch of time, half-open, in microseconds."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True, order=True)
class Missing:
    """Candles that are missing, all for one reason: those that open within `[start_us, end_us)`."""

    start_us: int
    end_us: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a symbol beyond its candles.

    listed_from_us: its first trade or candle ever. offered_from_us: the exchange serves nothing
    earlier. closed_until_us: candles that end later are not closed yet. halts: no trade was printed
    and none is missing. silent: the same, on an exchange that serves no candle then. ended: the
    symbol is traded no more. refused: the exchange's candles break the contract.
    """

    listed_from_us: int | None = None
    offered_from_us: int | None = None
    closed_until_us: int | None = None
    halts: Sequence[Window] = ()
    silent: Sequence[Window] = ()
    ended: Sequence[Window] = ()
    refused: Sequence[Window] = ()


def missing_windows(
    open_times_us: Iterable[int], timeframe: Timeframe, start_us: int, end_us: int
) -> list[Window]:
    """Return the runs of candles that are missing among those that open in `[start_us, end_us)`.

    Args:
        open_times_us: what is there, in any order, Unix µs.
        timeframe: of the candles.
        start_us: the window's beginning.
        end_us: its end, excluded.

    Returns:
        Runs in time order, from the first missing open time to the close of the last; empty when
        complete.

    Raises:
        ValidationError: an open time is not aligned.
    """
    have = [time for time in open_times_us if start_us <= time < end_us]
    if not all(map(lt, have, have[1:])):
        have = sorted(set(have))
    step = timeframe.duration_us
    first, last = first_open(timeframe, start_us), first_open(timeframe, end_us)
    found: list[Window] = []
    # Years of minutes: only where a step is not the timeframe's there is something to look at.
    steps = pairwise((first - step, *have, max(first, last)))
    for before_us, open_us in [pair for pair in steps if pair[1] - pair[0] != step]:
        if not timeframe.is_open_time(open_us):
            raise ValidationError(
                f"expected open times aligned to {timeframe}, found {open_us}; look at who wrote it"
            )
        found.append(Window(before_us + step, open_us))
    return found


def explain(missing: Iterable[Window], timeframe: Timeframe, known: Known) -> list[Missing]:
    """Return why candles are missing: runs of one reason each, in order, nothing left out.

    Args:
        missing: runs of missing candles, in any order.
        timeframe: of the candles.
        known: what may explain them; what nothing explains is `unanswered`.
    """
    reasons = _stretches(timeframe, known)
    found: list[Missing] = []
    for window in sorted(missing):
        at = window.start_us
        while at < window.end_us:
            reason, until = _reason_at(at, window.end_us, reasons)
            last = found[-1] if found else None
            if last is not None and last.end_us == at and last.reason == reason:
                found[-1] = Missing(last.start_us, until, reason)
            else:
                found.append(Missing(at, until, reason))
            at = until
    return found


def first_open(timeframe: Timeframe, time_us: int) -> int:
    """Return the first open time that is not before a time.

    Args:
        timeframe: of the candles.
        time_us: the time, Unix µs.
    """
    return timeframe.open_time_us(time_us + timeframe.duration_us - 1)


# Where each reason holds: the open times of whole candles, as windows in order that do not meet.
# The first reason that holds is the one that is given.
_Stretches = Sequence[tuple[Reason, Sequence[Window]]]


def _stretches(timeframe: Timeframe, known: Known) -> _Stretches:
    def until(time_us: int | None) -> list[Window]:
        return [] if time_us is None else [Window(-_FOREVER_US, timeframe.open_time_us(time_us))]

    def inside(windows: Iterable[Window]) -> list[Window]:
        found: list[Window] = []
        for window in sorted(windows):
            whole = Window(
                first_open(timeframe, window.start_us), timeframe.open_time_us(window.end_us)
            )
            if found and whole.start_us <= found[-1].end_us:
                found[-1] = Window(found[-1].start_us, max(found[-1].end_us, whole.end_us))
            elif whole.start_us < whole.end_us:
                found.append(whole)
        return found

    closed_us = known.closed_until_us
    still_open = (
        [] if closed_us is None else [Window(timeframe.open_time_us(closed_us), _FOREVER_US)]
    )
    return (
        ("not_listed_yet", until(known.listed_from_us)),
        ("not_offered", until(known.offered_from_us)),
        ("open", still_open),
        ("halted", inside(known.halts)),
        ("no_trades", inside(known.silent)),
        ("ended", inside(known.ended)),
        ("refused", inside(known.refused)),
    )


def _reason_at(open_us: int, end_us: int, reasons: _Stretches) -> tuple[Reason, int]:
    # The reason of the candle that opens then, and until where it holds.
    for reason, windows in reasons:
        place = bisect_right(windows, open_us, key=attrgetter("start_us"))
        if place and open_us < windows[place - 1].end_us:
            return reason, min(end_us, windows[place - 1].end_us)
        if place < len(windows):
            end_us = min(end_us, windows[place].start_us)
    return "unanswered", end_us


def missing_ids(ids: Iterable[int], first_id: int, last_id: int) -> list[tuple[int, int]]:
    """Return the runs of trade ids (first, last) that are missing, in order.

    Args:
        ids: what is there, in any order.
        first_id: the first id that should be.
        last_id: the last one, included.
    """
    found: list[tuple[int, int]] = []
    expected = first_id
    for number in sorted({number for number in ids if first_id <= number <= last_id}):
        if number > expected:
            found.append((expected, number - 1))
        expected = number + 1
    if expected <= last_id:
        found.append((expected, last_id))
    return found
