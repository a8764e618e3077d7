"""The rules of one symbol's log: what a heartbeat may claim, and when it is sent."""

from copy import deepcopy

import pytest

from alpha_pulse.contracts.codec import decode_ingest
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, Trade
from alpha_pulse.producers.feed.continuity import ConsecutiveIds, SeenIds
from alpha_pulse.producers.feed.state import Event, State
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.liveness.heartbeat import JUMP_US_MAX, ExchangeClock, due_heartbeat_us

MINUTE_US = 60_000_000
TIME_US = 1_700_000_040_000_000  # on a minute
GRACE_US = 2_000_000


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


CANDLE = Candle(
    exchange="binance",
    symbol="BTC/USDT",
    timeframe="1m",
    open_time_us=TIME_US - MINUTE_US,
    open="1",
    high="1",
    low="1",
    close="1",
    volume="1",
    quote_volume=None,
    buy_volume=None,
    trade_count=None,
    first_trade_id=None,
    last_trade_id=None,
    revision=0,
    source="exchange",
    coverage="exchange",
)


def a_feed(
    tracker: ConsecutiveIds | SeenIds | None = None, state: State = State.STARTING
) -> SymbolFeed:
    return SymbolFeed(
        "binance", "BTC/USDT", tracker or ConsecutiveIds(), state=state, grace_us=GRACE_US
    )


def go_live(feed: SymbolFeed, complete_until_us: int) -> None:
    feed.step(Event.TRADE)
    feed.emit_state("live", complete_until_us)


def heartbeats(feed: SymbolFeed) -> list[tuple[str, int]]:
    events = [decode_ingest(value) for value in feed.outbox]
    return [(e.state, e.complete_until_us) for e in events if isinstance(e, Heartbeat)]


def test_a_state_is_said_once() -> None:
    feed = a_feed()
    assert feed.emit_state("live", TIME_US)
    assert not feed.emit_state("live", TIME_US + 5)
    assert heartbeats(feed) == [("live", TIME_US)]


def test_a_quiet_minute_ends_with_a_heartbeat_after_the_grace() -> None:
    feed = a_feed()
    go_live(feed, TIME_US + GRACE_US)
    end = TIME_US + MINUTE_US
    assert not feed.emit_heartbeat_if_due(end + GRACE_US - 1, settle_us=0)
    assert feed.emit_heartbeat_if_due(end + GRACE_US, settle_us=0)
    assert not feed.emit_heartbeat_if_due(end + GRACE_US + 1, settle_us=0)
    assert heartbeats(feed)[-1] == ("live", end + GRACE_US)


def test_a_minute_whose_end_a_trade_has_passed_needs_no_heartbeat() -> None:
    feed = a_feed()
    go_live(feed, TIME_US + 1)
    feed.add_trade(trade(1, TIME_US + MINUTE_US + GRACE_US), 0)
    assert not feed.emit_heartbeat_if_due(TIME_US + MINUTE_US + GRACE_US + 1, settle_us=0)


def test_no_heartbeat_passes_a_trade_that_is_held_back() -> None:
    feed = a_feed(ConsecutiveIds(last_id=1, last_time_us=TIME_US))
    go_live(feed, TIME_US)
    feed.add_trade(trade(3, TIME_US + 1_000), 0)
    assert not feed.emit_heartbeat_if_due(TIME_US + 10 * MINUTE_US)
    feed.emit_state("disconnected", TIME_US + 10 * MINUTE_US)
    assert heartbeats(feed)[-1] == ("disconnected", TIME_US)
    feed.add_trade(trade(2, TIME_US + 500), 0)
    assert feed.is_complete


def test_no_heartbeat_is_sent_until_rest_has_shown_what_a_lost_connection_missed() -> None:
    feed = a_feed()
    feed.add_trade(trade(1, TIME_US), 0)
    go_live(feed, TIME_US)
    feed.step(Event.LOST)
    assert not feed.emit_heartbeat_if_due(TIME_US + 10 * MINUTE_US)


def test_nothing_is_said_while_nothing_is_known() -> None:
    feed = a_feed()
    feed.emit_state("disconnected", 0)
    assert feed.outbox == []


def test_overlap_with_rest_closes_a_lost_connection_without_a_gap() -> None:
    feed = a_feed(SeenIds())
    feed.add_trade(trade("a"), 0)
    feed.step(Event.LOST)
    feed.add_trade(trade("d"), 0)  # waits: what was before it?
    assert feed.add_overlap([trade("before"), trade("a"), trade("b"), trade("c")], 0)
    events = [decode_ingest(value) for value in feed.outbox]
    assert [e.trade_id for e in events if isinstance(e, Trade)] == ["a", "b", "c", "d"]
    assert feed.is_complete


def test_without_overlap_a_gap_is_published() -> None:
    feed = a_feed(SeenIds())
    feed.add_trade(trade("a", TIME_US), 0)
    feed.step(Event.LOST)
    feed.add_overlap([trade("x", TIME_US + 900)], 0)
    gap, x = [decode_ingest(value) for value in feed.outbox][2:]
    assert isinstance(gap, Gap)
    assert (gap.first_trade_id, gap.start_time_us, gap.end_time_us) == (
        None,
        TIME_US,
        TIME_US + 900,
    )
    assert (gap.status, x) == ("unfillable", trade("x", TIME_US + 900))


def test_the_exchange_clock_goes_on_between_frames_and_never_back() -> None:
    clock = ExchangeClock()
    assert clock.now_us(50) == 0
    clock.observe(TIME_US, 1_000)
    assert clock.now_us(1_500) == TIME_US + 500
    clock.observe(TIME_US + 100, 1_600)
    assert clock.now_us(1_600) == TIME_US + 500


def test_the_event_clock_stands_still_between_frames() -> None:
    clock = ExchangeClock(event=True)
    clock.observe(TIME_US, 1_000)
    assert clock.now_us(9_000_000) == TIME_US


def test_one_absurd_time_does_not_move_the_clock_but_two_that_agree_do() -> None:
    clock = ExchangeClock()
    clock.observe(TIME_US, 0)
    far = TIME_US + 10 * JUMP_US_MAX
    clock.observe(far, 10)
    assert clock.now_us(10) == TIME_US + 10
    clock.observe(far + 5, 20)
    assert clock.now_us(20) == far + 5


def test_a_heartbeat_waits_for_trades_that_are_still_on_their_way() -> None:
    due = TIME_US + GRACE_US
    assert due_heartbeat_us(due + 299_999, TIME_US - 1, GRACE_US, 300_000) != due
    assert due_heartbeat_us(due + 300_000, TIME_US - 1, GRACE_US, 300_000) == due


BEGINNINGS: list[tuple[ConsecutiveIds | SeenIds, bool]] = [
    (ConsecutiveIds(), True),
    (ConsecutiveIds(last_id=1, last_time_us=TIME_US), True),
    (SeenIds(), False),
    (SeenIds(last_id="1", last_time_us=TIME_US), False),
]


@pytest.mark.parametrize("caught_up", [True, False])
@pytest.mark.parametrize(("tracker", "consecutive"), BEGINNINGS)
def test_whatever_comes_first_the_log_begins_with_a_heartbeat_that_says_what_ids_prove(
    tracker: ConsecutiveIds | SeenIds, consecutive: bool, caught_up: bool
) -> None:
    state = State.STARTING if caught_up else State.RESUMING
    feed = a_feed(deepcopy(tracker), state)
    feed.add_candle(CANDLE)
    feed.add_run([trade(2), trade(3)], 0, 0)
    if isinstance(feed.tracker, SeenIds):
        feed.add_overlap([], 0)
    first, *others = [decode_ingest(value) for value in feed.outbox]
    assert isinstance(first, Heartbeat)
    assert (first.state, first.ids_are_consecutive) == ("disconnected", consecutive)
    assert first.complete_until_us == TIME_US
    assert [type(event) for event in others if not isinstance(event, Gap)] == [Candle, Trade]
    # Said once; the stream's state is news of its own.
    go_live(feed, 0)
    assert [state for state, _ in heartbeats(feed)] == ["disconnected", "live"]


def test_a_gap_that_comes_first_follows_the_heartbeat_too() -> None:
    feed = a_feed(ConsecutiveIds(last_id=1, last_time_us=TIME_US))
    feed.step(Event.LOST)
    feed.add_run([trade(5, TIME_US + 7)], 0, 0)
    assert feed.outbox == []
    tracker = feed.tracker
    assert isinstance(tracker, ConsecutiveIds)
    feed.emit(tracker.give_up(9, "lost"))
    first, gap, after = [decode_ingest(value) for value in feed.outbox]
    assert isinstance(first, Heartbeat)
    assert (first.complete_until_us, first.ids_are_consecutive) == (TIME_US, True)
    assert isinstance(gap, Gap)
    assert isinstance(after, Trade)


def test_every_heartbeat_says_whether_ids_are_consecutive() -> None:
    for tracker, consecutive in BEGINNINGS:
        feed = a_feed(deepcopy(tracker))
        go_live(feed, TIME_US)
        feed.emit_heartbeat_if_due(TIME_US + 120_000_000)
        feed.emit_end(TIME_US + 180_000_000)
        beats = [decode_ingest(value) for value in feed.outbox]
        assert len(beats) == 3
        assert {beat.ids_are_consecutive for beat in beats if isinstance(beat, Heartbeat)} == {
            consecutive
        }
