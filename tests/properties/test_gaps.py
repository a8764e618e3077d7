"""What is missing, and why: nothing is left out, nothing told twice, whatever is known."""

import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import DAY_US, MINUTE_US, TIMEFRAMES, Timeframe
from alpha_pulse.producers.history.missing import (
    Known,
    Window,
    explain,
    first_open,
    missing_ids,
    missing_windows,
)

MONDAY_US = 1_763_942_400_000_000
FRAMES = st.sampled_from([TIMEFRAMES[name] for name in ("1m", "5m", "1h", "1w")])
edges = st.integers(-50, 250)


def opens(windows: list[Any], step: int) -> list[int]:
    return [t for w in windows for t in range(w.start_us, w.end_us, step)]


@settings(max_examples=60)
@given(FRAMES, st.sets(st.integers(0, 199)), edges, edges)
def test_what_is_there_and_what_is_missing_are_the_whole_window(
    frame: Any, have: set[int], first: int, last: int
) -> None:
    step = frame.duration_us
    base = frame.open_time_us(MONDAY_US)
    start_us, end_us = base + first * MINUTE_US, base + last * MINUTE_US
    had = [base + number * step for number in have]
    missing = missing_windows(had, frame, start_us, end_us)
    expected = set(range(first_open(frame, start_us), first_open(frame, end_us), step))
    found = opens(missing, step)
    assert len(found) == len(set(found))
    assert set(found) == expected - set(had)
    assert missing == sorted(missing)
    assert all(a.end_us < b.start_us for a, b in pairwise(missing))


windows = st.tuples(edges, edges).map(
    lambda e: Window(*(MONDAY_US + t * MINUTE_US for t in sorted(e)))
)
times = st.none() | edges.map(lambda minute: MONDAY_US + minute * MINUTE_US)


@settings(max_examples=60)
@given(
    st.sets(st.integers(0, 199)),
    st.builds(
        Known, times, times, times, st.lists(windows, max_size=3), st.lists(windows, max_size=3)
    ),
)
def test_every_missing_candle_has_one_reason_and_it_is_true(have: set[int], known: Known) -> None:
    frame = TIMEFRAMES["1m"]
    had = [MONDAY_US + number * MINUTE_US for number in have]
    missing = missing_windows(had, frame, MONDAY_US, MONDAY_US + 200 * MINUTE_US)
    told = explain(missing, frame, known)
    assert opens(told, MINUTE_US) == opens(missing, MINUTE_US)
    for run in told:
        for open_us in range(run.start_us, run.end_us, MINUTE_US):
            close_us = open_us + MINUTE_US
            covered = {
                "halted": any(h.start_us <= open_us and close_us <= h.end_us for h in known.halts),
                "no_trades": any(
                    h.start_us <= open_us and close_us <= h.end_us for h in known.silent
                ),
                "not_listed_yet": bool(known.listed_from_us and close_us <= known.listed_from_us),
                "not_offered": bool(known.offered_from_us and close_us <= known.offered_from_us),
                "open": known.closed_until_us is not None and close_us > known.closed_until_us,
            }
            if run.reason == "unanswered":
                assert not any(covered.values())
            else:
                assert covered[run.reason]


def slow_reason(open_us: int, frame: Timeframe, known: Known) -> str:
    """Return a candle's reason as it was found before runs were: one candle at a time."""
    close_us = open_us + frame.duration_us
    if known.listed_from_us is not None and close_us <= known.listed_from_us:
        return "not_listed_yet"
    if known.offered_from_us is not None and close_us <= known.offered_from_us:
        return "not_offered"
    if known.closed_until_us is not None and close_us > known.closed_until_us:
        return "open"
    proven = [
        ("halted", known.halts), ("no_trades", known.silent), ("ended", known.ended),
        ("refused", known.refused),
    ]  # fmt: skip
    for reason, windows_of_reason in proven:
        if any(w.start_us <= open_us and close_us <= w.end_us for w in windows_of_reason):
            return reason
    return "unanswered"


several = st.lists(windows, max_size=4)


@settings(max_examples=150)
@given(
    FRAMES,
    st.sets(st.integers(0, 60)),
    st.builds(Known, times, times, times, several, several, several, several),
)
def test_explaining_by_runs_says_what_explaining_each_candle_says(
    frame: Timeframe, have: set[int], known: Known
) -> None:
    step = frame.duration_us
    base = frame.open_time_us(MONDAY_US)
    missing = missing_windows([base + n * step for n in have], frame, base, base + 61 * step)
    told = explain(missing, frame, known)
    found = [(t, run.reason) for run in told for t in range(run.start_us, run.end_us, step)]
    assert found == [(t, slow_reason(t, frame, known)) for t in opens(missing, step)]
    assert all(a.end_us < b.start_us or a.reason != b.reason for a, b in pairwise(told))


def test_ten_years_of_minutes_are_explained_in_a_moment() -> None:
    frame, minutes = TIMEFRAMES["1m"], 10 * 365 * 1_440
    end_us = MONDAY_US + minutes * MINUTE_US
    halts = [Window(MONDAY_US + n * DAY_US, MONDAY_US + n * DAY_US + MINUTE_US) for n in range(900)]
    known = Known(closed_until_us=end_us, halts=halts)
    began_s = time.process_time()
    told = explain([Window(MONDAY_US, end_us)], frame, known)
    assert len(told) == 1_800
    # The loop over each candle took 30 s of CPU.
    assert time.process_time() - began_s < 1.0
    assert missing_windows(range(MONDAY_US, end_us, MINUTE_US), frame, MONDAY_US, end_us) == []
    assert time.process_time() - began_s < 6.0


@given(st.sets(st.integers(0, 60)), st.integers(0, 60), st.integers(0, 60))
def test_missing_ids_are_exactly_those_that_are_not_there(
    have: set[int], first: int, last: int
) -> None:
    found = [n for a, b in missing_ids(have, first, last) for n in range(a, b + 1)]
    assert found == [n for n in range(first, last + 1) if n not in have]


def test_an_open_time_off_the_grid_is_refused() -> None:
    with pytest.raises(ValidationError, match="aligned"):
        missing_windows([MONDAY_US + 1], TIMEFRAMES["1m"], MONDAY_US, MONDAY_US + MINUTE_US)
