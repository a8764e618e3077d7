"""Facts of continuity that the properties do not say: limits, wrong ids, windows."""

from alpha_pulse.contracts.events import Gap, Trade
from alpha_pulse.producers.feed.continuity import ID_JUMP_MAX, ConsecutiveIds, SeenIds

TIME_US = 1_700_000_000_000_000


def trade(trade_id: int | str, time_us: int = TIME_US) -> Trade:
    return Trade(
        exchange="binance",
        symbol="BTC/USDT",
        trade_id=str(trade_id),
        price="1.5",
        amount="2",
        side="buy",
        trade_time_us=time_us,
        receive_time_us=TIME_US,
    )


def test_the_first_trade_begins_where_nothing_is_known() -> None:
    tracker = ConsecutiveIds()
    assert tracker.add(trade(7), 0) == [trade(7)]
    assert tracker.add(trade(8), 0) == [trade(8)]


def test_a_hole_is_given_up_after_its_time() -> None:
    tracker = ConsecutiveIds(last_id=1, hold_back_us_max=30)
    tracker.add(trade(3), 100)
    assert not tracker.must_give_up(129)
    assert tracker.must_give_up(130)


def test_a_hole_is_given_up_when_too_much_is_held_back() -> None:
    tracker = ConsecutiveIds(last_id=0, hold_back_trades_max=10)
    for number in range(2, 12):
        tracker.add(trade(number), 0)
    assert not tracker.must_give_up(0)
    tracker.add(trade(12), 0)
    assert tracker.must_give_up(0)


def test_giving_up_publishes_the_gap_before_the_trades_behind_it() -> None:
    tracker = ConsecutiveIds(last_id=1, last_time_us=TIME_US)
    tracker.add(trade(4, TIME_US + 5), 0)
    tracker.add(trade(5, TIME_US + 6), 0)
    gap, *trades = tracker.give_up(0, "REST is away")
    assert isinstance(gap, Gap)
    assert (gap.first_trade_id, gap.last_trade_id, gap.status) == ("2", "3", "open")
    assert (gap.start_time_us, gap.end_time_us) == (TIME_US, TIME_US + 5)
    assert trades == [trade(4, TIME_US + 5), trade(5, TIME_US + 6)]
    assert tracker.held == 0


def test_giving_up_one_hole_leaves_the_next_one_waiting() -> None:
    tracker = ConsecutiveIds(last_id=1)
    for number in (3, 5):
        tracker.add(trade(number), 0)
    assert len(tracker.give_up(0, "x")) == 2
    assert [(hole.first, hole.last) for hole in tracker.holes()] == [(4, 4)]


def test_a_gap_that_is_sought_in_vain_becomes_unfillable() -> None:
    tracker = ConsecutiveIds(last_id=1)
    tracker.add(trade(3), 0)
    tracker.give_up(0, "x")
    gap = tracker.abandon(tracker.given_up[0], "not found")
    assert (gap.first_trade_id, gap.status, gap.reason) == ("2", "unfillable", "not found")
    assert tracker.add(trade(2), 0) == []


def test_one_absurdly_high_id_does_not_swallow_the_trades_that_follow() -> None:
    tracker = ConsecutiveIds(last_id=10)
    assert tracker.add(trade(10 + 10 * ID_JUMP_MAX), 0) == []
    assert tracker.held == 0
    assert tracker.add(trade(11), 0) == [trade(11)]
    assert tracker.add(trade(12), 0) == [trade(12)]


def test_a_far_jump_counts_once_a_second_trade_confirms_it() -> None:
    tracker = ConsecutiveIds(last_id=10)
    far = 10 + 10 * ID_JUMP_MAX
    tracker.add(trade(far), 0)
    tracker.add(trade(far + 1), 0)
    assert tracker.held == 2
    assert [(hole.first, hole.last) for hole in tracker.holes()] == [(11, far - 1)]


def test_seen_ids_are_forgotten_by_event_time_but_never_below_the_minimum() -> None:
    tracker = SeenIds(window_us=10, ids_min=2)
    for place in range(5):
        tracker.add(trade(f"id-{place}", TIME_US + 100 * place), 0)
    # Two of them for their number, and one more of their generation.
    assert [f"id-{place}" in tracker for place in range(5)] == [False, False, True, True, True]
    assert tracker.add(trade("id-4"), 0) == []
    assert tracker.duplicates == 1
