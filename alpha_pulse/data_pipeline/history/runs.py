"""Runs of candles and of what is missing: pure arithmetic of a backfill."""

from collections.abc import Iterable, Sequence

from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.producers.history.missing import Known, Missing, Reason, Window, explain

# So many candles are one job at most.
JOB_CANDLES_MAX = 500_000


def with_explained(
    known: Known,
    explained: dict[Reason, list[Window]],
    *,
    listed_from_us: int | None = None,
    offered_from_us: int | None = None,
) -> Known:
    """Return what is known, with what earlier jobs proved and what was learned since."""
    listed = [w.end_us for w in explained.get("not_listed_yet", [])]
    return Known(
        listed_from_us=listed_from_us or known.listed_from_us or max(listed, default=None),
        offered_from_us=offered_from_us or known.offered_from_us,
        closed_until_us=known.closed_until_us,
        halts=(*known.halts, *explained.get("halted", ())),
        silent=(*known.silent, *explained.get("no_trades", ())),
        ended=(*known.ended, *explained.get("ended", ())),
        refused=(*known.refused, *explained.get("refused", ())),
    )


def apart(run: Missing, known: Known, frame: Timeframe) -> list[Window]:
    """Return what is to be asked for of a run, once more is known of the symbol; bounded."""
    step_us = JOB_CANDLES_MAX * frame.duration_us
    return [
        Window(first, min(first + step_us, part.end_us))
        for part in explain([Window(run.start_us, run.end_us)], frame, known)
        if part.reason == "unanswered"
        for first in range(part.start_us, part.end_us, step_us)
    ]


def count_of(missing: Iterable[Missing], frame: Timeframe) -> int:
    """Return how many candles the runs have."""
    return sum((run.end_us - run.start_us) // frame.duration_us for run in missing)


def join(windows: list[Window], more: Iterable[Window]) -> None:
    """Append windows; one that begins where the last one ends goes on with it."""
    for window in more:
        if windows and windows[-1].end_us == window.start_us:
            windows[-1] = Window(windows[-1].start_us, window.end_us)
        else:
            windows.append(window)


def runs_of(candles: Sequence[Candle], frame: Timeframe) -> list[list[Candle]]:
    """Return ascending candles as unbroken runs: each is one job."""
    runs: list[list[Candle]] = []
    for candle in candles:
        if runs and runs[-1][-1].open_time_us + frame.duration_us == candle.open_time_us:
            runs[-1].append(candle)
        else:
            runs.append([candle])
    return runs


def windows_of(open_times_us: Sequence[int], frame: Timeframe) -> list[Window]:
    """Return single candles as unbroken windows."""
    windows: list[Window] = []
    join(windows, (Window(t, t + frame.duration_us) for t in open_times_us))
    return windows
