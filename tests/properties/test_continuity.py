"""Whatever order trades come in, each is published once and in id order."""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import decode_ingest
from alpha_pulse.contracts.events import Gap, Heartbeat, Ids, Trade
from alpha_pulse.producers.exchanges.tick import Numbered
from alpha_pulse.producers.feed.continuity import ConsecutiveIds, SeenIds
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed

FIRST_TIME_US = 1_700_000_000_000_000


def trade(trade_id: int | str) -> Trade:
    number = trade_id if isinstance(trade_id, int) else 0
    return Trade(
        exchange="binance",
        symbol="BTC/USDT",
        trade_id=str(trade_id),
        price="1.5",
        amount="2",
        side="buy",
        trade_time_us=FIRST_TIME_US + number * 1000,
        receive_time_us=FIRST_TIME_US,
    )


def no_trade(first: int, last: int) -> Ids:
    return Ids(
        exchange="binance",
        symbol="BTC/USDT",
        first_trade_id=str(first),
        last_trade_id=str(last),
        time_us=FIRST_TIME_US + last * 1000,
        reason="no_trade",
    )


def ids(events: Sequence[Numbered | Gap]) -> list[int]:
    return [int(event.trade_id) for event in events if isinstance(event, Trade)]


def all_ids(events: Sequence[Numbered | Gap]) -> list[int]:
    found: list[int] = []
    for event in events:
        match event:
            case Trade():
                found.append(int(event.trade_id))
            case Ids():
                found += range(int(event.first_trade_id), int(event.last_trade_id) + 1)
    return found


arrivals = st.lists(st.integers(1, 60), max_size=150)


@given(arrivals)
def test_published_ids_are_a_run_without_hole_or_duplicate(order: list[int]) -> None:
    tracker = ConsecutiveIds(last_id=0)
    published = [event for one in order for event in tracker.add(trade(one), 0)]
    found = ids(published)
    assert found == list(range(1, len(found) + 1))
    assert len(found) + tracker.held == len(set(order))


@given(arrivals)
def test_everything_is_published_once_the_holes_are_filled(order: list[int]) -> None:
    tracker = ConsecutiveIds(last_id=0)
    published = [event for one in order for event in tracker.add(trade(one), 0)]
    for hole in tracker.holes():
        for missing in range(hole.first, hole.last + 1):
            published += tracker.add(trade(missing), 0)
    assert ids(published) == list(range(1, max(order, default=0) + 1))
    assert tracker.held == 0
    assert tracker.holes() == []


@given(arrivals)
def test_holes_and_held_trades_are_exactly_the_ids_up_to_the_highest(order: list[int]) -> None:
    tracker = ConsecutiveIds(last_id=0)
    published = ids([event for one in order for event in tracker.add(trade(one), 0)])
    missing = [number for hole in tracker.holes() for number in range(hole.first, hole.last + 1)]
    assert sorted({*published, *missing, *(set(order) - set(published))}) == list(
        range(1, max(order, default=0) + 1)
    )
    assert not set(missing) & set(order)


@given(arrivals, st.data())
def test_what_is_given_up_is_in_a_gap_until_it_is_found(
    order: list[int], data: st.DataObject
) -> None:
    tracker = ConsecutiveIds(last_id=0)
    events: list[Numbered | Gap] = []
    for one in order:
        events += tracker.add(trade(one), 0)
    while tracker.holes():
        events += tracker.give_up(0, "test")
    opened = {
        number
        for event in events
        if isinstance(event, Gap)
        for number in range(int(event.first_trade_id or 0), int(event.last_trade_id or 0) + 1)
    }
    assert opened == set(range(1, max(order, default=0) + 1)) - set(order)
    late = data.draw(st.permutations(sorted(opened)))
    found = [event for one in late for event in tracker.add(trade(one), 0)]
    assert sorted(ids(found)) == sorted(opened)
    gaps = [event for event in events if isinstance(event, Gap)]
    assert len([gap for gap in found if isinstance(gap, Gap)]) == len(gaps)
    assert all(gap.status == "filled" for gap in found if isinstance(gap, Gap))
    assert tracker.given_up == []


def forgetful_ids() -> SeenIds:
    # Of 60 ids that come 150 times, some are forgotten by number and some by time.
    return SeenIds(ids_min=3, ids_max=30, window_us=20_000)


TRACKERS: list[Callable[[], ConsecutiveIds | SeenIds]] = [
    partial(ConsecutiveIds, last_id=0),
    ConsecutiveIds,
    SeenIds,
    partial(SeenIds, last_id="3", last_time_us=FIRST_TIME_US),
    forgetful_ids,
]


@given(arrivals, st.integers(1, 20), st.sampled_from(TRACKERS))
# The sixth is forgotten by the fifth, within one run.
@example([10, 1, 2, 3, 60, 1, 10], 20, forgetful_ids)
@settings(max_examples=150)
def test_adding_runs_is_the_same_as_adding_one_by_one(
    order: list[int], size: int, tracker: Callable[[], ConsecutiveIds | SeenIds]
) -> None:
    def feed() -> SymbolFeed:
        return SymbolFeed("binance", "BTC/USDT", tracker(), grace_us=2_000_000)

    one_by_one, in_runs = feed(), feed()
    trades = [trade(number) for number in order]
    for single in trades:
        one_by_one.add_trade(single, 0)
    # Each batch ends with another symbol's trade, which is no part of a run.
    other = msgspec.structs.replace(trade(61), symbol="ETH/USDT")
    for start in range(0, len(trades), size):
        batch = [*trades[start : start + size], other]
        place = 0
        while place < len(batch) - 1:
            place = in_runs.add_run(batch, place, 0)
        assert place == len(batch) - 1
    assert in_runs.outbox == one_by_one.outbox
    assert in_runs.published_until_us == one_by_one.published_until_us
    assert in_runs.trades == one_by_one.trades
    assert in_runs.missing_candles(FIRST_TIME_US * 2) == one_by_one.missing_candles(
        FIRST_TIME_US * 2
    )
    assert vars(in_runs.tracker) == vars(one_by_one.tracker)
    events = [decode_ingest(value) for value in in_runs.outbox]
    assert all(isinstance(event, Heartbeat) for event in events[:1])
    assert all(isinstance(event, Trade) for event in events[1:])


@given(st.lists(st.text("abc", min_size=1, max_size=3), max_size=60))
def test_ids_that_prove_nothing_are_published_once_in_the_order_they_come(
    order: list[str],
) -> None:
    tracker = SeenIds()
    published = [event.trade_id for one in order for event in tracker.add(trade(one), 0)]
    assert published == list(dict.fromkeys(order))
