"""A lost websocket is dialed again soon, and never so often that an exchange bans us."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.producers.connection.redial import (
    FIRST_WAIT_S,
    LIVED_S,
    LOST_WAIT_S_MAX,
    Redial,
)
from alpha_pulse.producers.exchanges.registry import ExchangeType, exchange_of

URL = "wss://exchange/ws"
# Not LIVED_S itself: added to a time and taken off again, it may be a rounding less.
LONG_S = LIVED_S + 1
BINANCE = exchange_of("binance").limits.dials.half()


def dialed_after(redial: Redial, now_s: float, **how: float | bool) -> float:
    redial.lost(URL, now_s, **how)  # type: ignore[arg-type]
    may_s = now_s + redial.wait_s(URL, now_s)
    return may_s + redial.reserve(may_s)


def test_a_connection_that_worked_is_dialed_at_once() -> None:
    redial, now_s = Redial(BINANCE), 100.0
    for _ in range(20):
        redial.connected(URL, now_s)
        lost_at_s = now_s + LONG_S
        now_s = dialed_after(redial, lost_at_s)
        assert 0 < now_s - lost_at_s <= FIRST_WAIT_S + 1e-9


@pytest.mark.parametrize("opens", [True, False], ids=["closed at once", "nobody there"])
@pytest.mark.parametrize("exchange", [*ExchangeType, "any other"])
def test_an_exchange_that_was_away_for_two_minutes_has_us_back_within_5_s(
    exchange: str, opens: bool
) -> None:
    redial, now_s = Redial(exchange_of(exchange).limits.dials.half()), 100.0
    waits = []
    while now_s < 220:
        if opens:
            redial.connected(URL, now_s)
        next_s = dialed_after(redial, now_s + 0.01)
        waits.append(next_s - now_s)
        now_s = next_s
    # It is healthy again the moment after a dial failed.
    assert max(waits) <= LOST_WAIT_S_MAX + 0.01 < 5
    assert waits[-1] > 1, "a lost connection that never works is waited for"


def test_an_exchange_that_refuses_is_left_alone_and_forgiven_once_it_takes_us() -> None:
    redial, now_s = Redial(BINANCE, refused_wait_s_max=30.0), 100.0
    waits = []
    for _ in range(20):
        next_s = dialed_after(redial, now_s, refused=True)
        waits.append(next_s - now_s)
        now_s = next_s
    assert waits[0] <= FIRST_WAIT_S
    assert min(waits[-5:]) >= 15
    assert max(waits) <= 30
    redial.connected(URL, now_s)
    assert dialed_after(redial, now_s + LONG_S) - now_s - LONG_S <= FIRST_WAIT_S + 1e-9


def test_retry_after_is_honoured_to_the_second() -> None:
    redial = Redial(BINANCE)
    assert dialed_after(redial, 100.0, refused=True, retry_after_s=77.0) == 177.0


def test_one_address_does_not_wait_for_another() -> None:
    redial = Redial(exchange_of("okx").limits.dials.half())
    redial.lost("wss://okx/business", 100.0, refused=True, retry_after_s=60.0)
    assert redial.wait_s("wss://okx/public", 100.0) == 0
    assert redial.wait_s("wss://okx/business", 130.0) == 30.0


@given(
    exchange=st.sampled_from([*ExchangeType, "any other"]),
    lives_s=st.lists(st.floats(0, 8), min_size=50, max_size=400),
)
def test_an_exchange_never_sees_more_dials_than_it_allows(
    exchange: str, lives_s: list[float]
) -> None:
    redial, now_s = Redial(exchange_of(exchange).limits.dials.half()), 0.0
    allowed, window_s = exchange_of(exchange).limits.dials
    dials: list[float] = []
    for life_s in lives_s:
        redial.connected(URL, now_s)
        now_s = dialed_after(redial, now_s + life_s)
        dials.append(now_s)
    for place, first_s in enumerate(dials):
        within = [at_s for at_s in dials[place:] if at_s < first_s + window_s]
        # A full bucket gives its content, and what flows in meanwhile.
        assert len(within) <= allowed
