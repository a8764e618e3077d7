"""Quiet markets are left alone, dead streams are found: both by the symbol's own rate."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.producers.liveness.silence import SilenceWatch

SECOND_US = 1_000_000


def traded(per_s: float, seconds: int = 300) -> tuple[SilenceWatch, int]:
    watch = SilenceWatch()
    now_us = SECOND_US
    for tick in range(seconds * 4):
        now_us += SECOND_US // 4
        watch.sample(int(per_s * tick / 4), now_us)
    return watch, now_us


def asked_after_s(watch: SilenceWatch, now_us: int, count: int) -> float:
    for tick in range(1, 400):
        at_us = now_us + tick * SECOND_US // 4
        watch.sample(count, at_us)
        if watch.must_ask(at_us):
            return tick / 4
    return 100.0


def test_a_busy_symbol_is_asked_about_within_seconds() -> None:
    watch, now_us = traded(50)
    assert asked_after_s(watch, now_us, int(50 * 1199 / 4)) <= 2.5


@given(st.floats(0.001, 1000))
def test_every_symbol_is_asked_about_within_ten_seconds(per_s: float) -> None:
    watch = SilenceWatch()
    watch.sample(0, SECOND_US)
    watch.rate_per_s = per_s
    watch.heard(SECOND_US)
    assert asked_after_s(watch, SECOND_US, 0) <= 10


def test_a_quiet_market_is_asked_about_less_and_less_often() -> None:
    watch = SilenceWatch()
    watch.sample(0, SECOND_US)
    asked = [tick for tick in range(600) if watch.must_ask(SECOND_US + tick * SECOND_US)]
    waits = [later - earlier for earlier, later in pairwise(asked)]
    assert waits[:3] == [16, 32, 60]
    assert set(waits[3:]) == {60}


def test_silence_of_a_quiet_market_is_not_improbable_and_of_a_busy_one_is() -> None:
    busy, now_us = traded(50)
    assert not busy.is_improbable(now_us + SECOND_US // 4)
    assert busy.is_improbable(now_us + 5 * SECOND_US)
    quiet, now_us = traded(0.02)
    assert not quiet.is_improbable(now_us + 60 * SECOND_US)
