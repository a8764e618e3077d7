"""The table of a symbol's states, as a table; and against the rules that it was written from."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import decode_ingest
from alpha_pulse.contracts.events import Heartbeat, Trade
from alpha_pulse.producers.feed.continuity import ConsecutiveIds, SeenIds
from alpha_pulse.producers.feed.state import STAYS, TRANSITIONS, Action, Event, State, step
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed

ARCHITECTURE = Path(__file__).parents[3] / "docs" / "architecture.md"
BEGINNINGS = (State.STARTING, State.RESUMING)
OVER = (State.FINISHED, State.ENDED)
FOLLOWED = [state for state in State if state not in OVER]
TIME_US = 1_700_000_040_000_000
SAYS = {
    Action.EMIT_LIVE: "live",
    Action.EMIT_DISCONNECTED: "disconnected",
    Action.EMIT_HALTED: "halted",
}


def steps() -> Iterable[tuple[State, Event, State, tuple[Action, ...]]]:
    for state in State:
        for event in Event:
            yield state, event, *step(state, event)


def reachable(begin: Iterable[State], without: Iterable[Event] = ()) -> set[State]:
    found = set(begin)
    while True:
        more = {
            after
            for before, event, after, _ in steps()
            if before in found and event not in set(without)
        }
        if more <= found:
            return found
        found |= more


def test_every_pair_of_state_and_event_is_defined_once() -> None:
    assert set(TRANSITIONS) == set(STAYS) == set(State)
    for state in State:
        changing, staying = set(TRANSITIONS[state]), STAYS[state]
        assert changing | staying == set(Event), state
        assert not changing & staying, state


def test_what_is_called_a_change_changes_something() -> None:
    for state, row in TRANSITIONS.items():
        for event, (after, actions) in row.items():
            assert after is not state or actions, (state, event)


def test_every_state_is_reached_and_every_symbol_can_be_live_and_end() -> None:
    assert reachable(BEGINNINGS) == set(State)
    for state in FOLLOWED:
        assert State.LIVE in reachable([state]), state
        assert State.ENDED in reachable([state]), state


def test_a_symbol_that_is_over_says_nothing_more() -> None:
    for state in OVER:
        assert reachable([state]) <= set(OVER)
        assert all(actions == () for before, _, _, actions in steps() if before is state)


def test_the_log_calls_a_symbol_live_in_the_state_live_alone() -> None:
    for before, event, after, actions in steps():
        if Action.EMIT_LIVE in actions:
            assert after is State.LIVE, (before, event)
        if after is State.LIVE is not before:
            assert actions == (Action.EMIT_LIVE,), (before, event)


def test_nothing_is_claimed_that_is_not_caught_up() -> None:
    assert State.LIVE.caught_up
    for before, event, after, actions in steps():
        if after.caught_up and not before.caught_up:
            # REST alone can show what was missed; a recording's end is proven before it is said.
            assert event in (Event.JOINED, Event.CAUGHT_UP, Event.FINISHED), (before, event)
        if Action.CATCH_UP in actions:
            # REST is asked where something may be missing, until the subscription is lost again.
            assert after in (State.RESUMING, State.CATCHING_UP), (before, event)
        if event is Event.LOST and before not in OVER:
            assert after in (State.RESUMING, State.DISCONNECTED), before


def test_a_lost_or_refused_subscription_proves_nothing_more() -> None:
    for before in FOLLOWED:
        assert not step(before, Event.LOST)[0].caught_up
        assert not step(before, Event.REFUSED)[0].caught_up


def test_a_refusal_and_each_end_are_the_same_however_the_symbol_stood() -> None:
    for before in FOLLOWED:
        # What REST was asked before would else call it live.
        assert step(before, Event.REFUSED) == (
            State.QUARANTINED,
            (Action.STOP_CATCHING_UP, Action.QUARANTINE, Action.EMIT_HALTED),
        )
        assert step(before, Event.REMOVED) == (
            State.ENDED,
            (Action.STOP_CATCHING_UP, Action.EMIT_DISCONNECTED),
        )
        said = (Action.EMIT_DISCONNECTED,) if before is State.LIVE else ()
        assert step(before, Event.STOPPED) == (State.ENDED, said)
        assert step(before, Event.FINISHED) == (State.FINISHED, (Action.EMIT_FINISHED,))


def test_a_refused_symbol_comes_back_by_its_stream_alone() -> None:
    for event in (Event.SUBSCRIBED, Event.JOINED, Event.CAUGHT_UP, Event.HALTED):
        assert step(State.QUARANTINED, event) == (State.QUARANTINED, ())


def test_the_exchanges_list_halts_until_something_comes() -> None:
    halted = {State.HALTED, State.HALTED_BEHIND, State.QUARANTINED}
    for before in halted:
        assert step(before, Event.SUBSCRIBED) == (before, ())
    for before in FOLLOWED:
        assert step(before, Event.HALTED)[0] in halted


def test_nothing_that_a_live_stream_brings_asks_for_anything() -> None:
    # So trades of a live symbol pass the table by.
    for event in (Event.TRADE, Event.HEARD, Event.SUBSCRIBED):
        assert step(State.LIVE, event) == (State.LIVE, ())


def test_what_rest_has_joined_needs_nothing_done() -> None:
    # A feed takes this step by itself, with nobody there to carry anything out.
    assert all(actions == () for _, event, _, actions in steps() if event is Event.JOINED)


@dataclass(frozen=True)
class OldRules:
    """What commit 4d9f32e did, over the flags of LiveProducer, SymbolFeed, Watchdog and CatchUp.

    said: what the log said last; asks: whether the last event asked REST; shown: whether anything
    came since the symbol was halted.
    """

    said: str | None = None
    caught_up: bool = True
    asks: bool = False
    shown: bool = True

    def after(self, event: Event) -> "OldRules":
        before = replace(self, asks=False)
        match event:
            case Event.TRADE:
                return replace(before, shown=True)._connected()
            case Event.HEARD:
                return before if self.caught_up else replace(before, shown=True)._connected()
            case Event.SUBSCRIBED:
                # After a trade that had shown that a halted symbol goes on, 4d9f32e waited for one
                # more.
                return before._connected() if self.said != "halted" or self.shown else before
            case Event.JOINED:
                return replace(before, caught_up=True)
            case Event.CAUGHT_UP:
                return replace(before, caught_up=True, said="live")
            case Event.LOST:
                said = self.said and "disconnected"
                return replace(before, caught_up=False, said=said)
            case Event.REFUSED:
                return replace(before, caught_up=False, said="halted", shown=False)
            case Event.HALTED:
                return replace(before, said="halted", shown=False)
            case _:
                raise AssertionError(event)

    def _connected(self) -> "OldRules":
        if self.said == "live":
            return self
        return replace(self, said="live") if self.caught_up else replace(self, asks=True)


LASTING = [e for e in Event if e not in (Event.REMOVED, Event.STOPPED, Event.FINISHED)]


def test_every_course_of_events_says_what_the_old_rules_said() -> None:
    found = {(State.STARTING, OldRules()), (State.RESUMING, OldRules(caught_up=False))}
    waiting = list(found)
    while waiting:
        state, old = waiting.pop()
        for event in LASTING:
            if state is State.QUARANTINED and event in (Event.JOINED, Event.CAUGHT_UP):
                continue  # its conversation with REST has been ended
            then, actions = step(state, event)
            expected = old.after(event)
            said = old.said
            for action in actions:
                said = SAYS.get(action, said)
            where = (state, event, old)
            assert said == expected.said, where
            assert then.caught_up == expected.caught_up, where
            assert (then is State.LIVE) == (expected.said == "live"), where
            # A conversation that is under way is not begun again: asking once more is nothing.
            assert expected.asks <= (Action.CATCH_UP in actions), where
            if (then, expected) not in found:
                found.add((then, expected))
                waiting.append((then, expected))
    assert {state for state, _ in found} == set(FOLLOWED)


def trade(trade_id: int) -> Trade:
    return Trade(
        exchange="binance",
        symbol="BTC/USDT",
        trade_id=str(trade_id),
        price="1.5",
        amount="2",
        side="buy",
        trade_time_us=TIME_US + trade_id,
        receive_time_us=TIME_US,
    )


@given(
    st.booleans(),
    st.lists(st.one_of(st.sampled_from(list(Event)), st.integers(1, 30)), max_size=60),
)
def test_no_heartbeat_passes_what_may_be_missing(with_ids: bool, course: list[Event | int]) -> None:
    feed = SymbolFeed(
        "binance", "BTC/USDT", ConsecutiveIds() if with_ids else SeenIds(), grace_us=2_000_000
    )
    far_us = TIME_US + 3_600_000_000
    for happened in course:
        begin, known_us = len(feed.outbox), feed.published_until_us
        if isinstance(happened, int):
            feed.add_trade(trade(happened), 0)
            known_us = feed.published_until_us
        else:
            for action in feed.step(happened):
                if action in SAYS:
                    feed.emit_state(SAYS[action], far_us)  # type: ignore[arg-type]
        feed.emit_heartbeat_if_due(far_us + 600_000_000)
        if not feed.is_complete:
            events = [decode_ingest(value) for value in feed.outbox[begin:]]
            claims = [e.complete_until_us for e in events if isinstance(e, Heartbeat)]
            assert max(claims, default=0) <= known_us


COLUMNS = {
    Event.TRADE: "trade",
    Event.HEARD: "other frame",
    Event.SUBSCRIBED: "open, quiet",
    Event.JOINED: "joined",
    Event.CAUGHT_UP: "caught up",
    Event.LOST: "lost",
    Event.REFUSED: "refused",
    Event.HALTED: "halted",
}


def table() -> list[str]:
    lines = [
        f"| state | meaning | {' | '.join(COLUMNS.values())} |",
        f"| --- | --- |{' --- |' * len(COLUMNS)}",
    ]
    for state in FOLLOWED:
        cells = []
        for event in COLUMNS:
            changes = event in TRANSITIONS[state]
            cells.append(step(state, event)[0].label if changes else "")
        lines.append(f"| **{state.label}** | {state.meaning} | {' | '.join(cells)} |")
    return lines


def test_the_docs_show_the_table() -> None:
    expected = "\n".join(table())
    assert expected in ARCHITECTURE.read_text(), f"docs/architecture.md lacks:\n{expected}"
