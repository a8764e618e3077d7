"""What is missing from a wanted window, and why: pure, no clock, no client."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import Timeframe

Reason = Literal["not_listed_yet", "not_offered", "halted", "no_trades", "open", "unanswered"]

# How each reason reads; `halted` and the two before it will not change by asking again.
REASONS: dict[Reason, str] = {
    "not_listed_yet": "the symbol was not listed yet",
    "not_offered": "the exchange does not serve it",
    "halted": "the exchange was halted: it printed no trade and has no candle",
    "no_trades": "nothing was traded, and this exchange serves no candle then",
    "open": "not closed yet by the exchange's clock",
    "unanswered": "the exchange did not answer; ask again",
}
FINAL_REASONS: frozenset[Reason] = frozenset(
    ("not_listed_yet", "not_offered", "halted", "no_trades")
)


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
    and none is missing. silent: the same, on an exchange that serves no candle then.
    """

    listed_from_us: int | None = None
    offered_from_us: int | None = None
    closed_until_us: int | None = None
    halts: Sequence[Window] = ()
    silent: Sequence[Window] = ()


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
    have = sorted({time for time in open_times_us if start_us <= time < end_us})
    step = timeframe.duration_us
    expected = first_open(timeframe, start_us)
    found: list[Window] = []
    for open_us in have:
        if not timeframe.is_open_time(open_us):
            raise ValidationError(
                f"expected open times aligned to {timeframe}, found {open_us}; look at who wrote it"
            )
        if open_us > expected:
            found.append(Window(expected, open_us))
        expected = open_us + step
    last = first_open(timeframe, end_us)
    if expected < last:
        found.append(Window(expected, last))
    return found


def explain(missing: Iterable[Window], timeframe: Timeframe, known: Known) -> list[Missing]:
    """Return why candles are missing: runs of one reason each, in order, nothing left out.

    Args:
        missing: runs of missing candles, in any order.
        timeframe: of the candles.
        known: what may explain them; what nothing explains is `unanswered`.
    """
    found: list[Missing] = []
    for window in sorted(missing):
        at = window.start_us
        while at < window.end_us:
            reason, until = _reason_at(at, window.end_us, timeframe, known)
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


def _reason_at(open_us: int, end_us: int, timeframe: Timeframe, known: Known) -> tuple[Reason, int]:
    # The reason of the candle that opens then, and until where it holds at least.
    step = timeframe.duration_us
    earliest: tuple[tuple[Reason, int | None], ...] = (
        ("not_listed_yet", known.listed_from_us),
        ("not_offered", known.offered_from_us),
    )
    for reason, before_us in earliest:
        if before_us is not None and open_us + step <= before_us:
            return reason, min(end_us, timeframe.open_time_us(before_us))
    closed_us = known.closed_until_us
    if closed_us is not None and open_us + step > closed_us:
        return "open", end_us
    proven: tuple[tuple[Reason, Sequence[Window]], ...] = (
        ("halted", known.halts),
        ("no_trades", known.silent),
    )
    for reason, windows in proven:
        for window in windows:
            if window.start_us <= open_us and open_us + step <= window.end_us:
                return reason, min(end_us, timeframe.open_time_us(window.end_us))
    return "unanswered", open_us + step


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
