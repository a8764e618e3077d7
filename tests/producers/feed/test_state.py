"""The table of a symbol's states, as a table; and against the rules that it was written from."""

from collections.abc import Iterable
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
    Action.SAY_LIVE: "live",
    Action.SAY_DISCONNECTED: "disconnected",
    Action.SAY_HALTED: "halted",
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
        if Action.SAY_LIVE in actions:
            assert after is State.LIVE, (before, event)
        if after is State.LIVE is not before:
            assert actions == (Action.SAY_LIVE,), (before, event)


def test_nothing_is_claimed_that_is_not_caught_up() -> None:
    assert State.LIVE.caught_up
    for before, event, after, actions in steps():
        if after.caught_up and not before.caught_up:
            # REST alone can show what was missed; a recording's end is proven before it is said.
            assert event in (Event.JOINED, Event.CAUGHT_UP, Event.FINISHED), (before, event)
        if Action.CATCH_UP in actions:
            assert not after.caught_up, "REST is asked where something may be missing"


def test_a_lost_or_refused_subscription_proves_nothing_more() -> None:
    for before, event, after, actions in steps():
        if before in OVER:
            continue
        if event in (Event.LOST, Event.REFUSED):
            assert not after.caught_up, before
        if event in (Event.REFUSED, Event.REMOVED):
            # What REST was asked before would else call it live.
            assert actions[0] is Action.STOP_CATCHING_UP, before


def test_the_exchanges_list_halts_until_something_comes() -> None:
    halted = {State.HALTED, State.HALTED_BEHIND, State.QUARANTINED}
    for before in halted:
        assert step(before, Event.SUBSCRIBED) == (before, ())
    for before in FOLLOWED:
        assert step(before, Event.HALTED)[0] in halted


def test_what_rest_has_joined_needs_nothing_done() -> None:
    # A feed takes this step by itself, with nobody there to carry anything out.
    assert all(actions == () for _, event, _, actions in steps() if event is Event.JOINED)


class OldRules:
    """What commit 4d9f32e did, over the flags of LiveProducer, SymbolFeed, Watchdog and CatchUp."""

    def __init__(self, *, resumed: bool) -> None:
        self.state: str | None = None
        self.caught_up = not resumed
        self.said: list[str] = []
        self.asks = False  # whether the last event asked REST
        self.shown = True  # whether anything came since the symbol was halted

    def happen(self, event: Event) -> None:
        self.asks = False
        getattr(self, f"_{event.name.lower()}")()

    def _trade(self) -> None:
        self.shown = True
        if self.state != "live":
            self._connected()

    def _heard(self) -> None:
        if self.state != "live" and not self.caught_up:
            self.shown = True
            self._connected()

    def _subscribed(self) -> None:
        # 4d9f32e waited here for another trade after one that had shown already that it goes on.
        if self.state != "live" and (self.state != "halted" or self.shown):
            self._connected()

    def _joined(self) -> None:
        self.caught_up = True

    def _caught_up(self) -> None:
        self.caught_up = True
        self._say("live")

    def _lost(self) -> None:
        self.caught_up = False
        if self.state is not None:
            self._say("disconnected")

    def _refused(self) -> None:
        self.caught_up = self.shown = False
        self._say("halted")

    def _halted(self) -> None:
        self.shown = False
        self._say("halted")

    def _removed(self) -> None:
        self._say("disconnected")

    def _stopped(self) -> None:
        if self.state == "live":
            self._say("disconnected")

    def _connected(self) -> None:
        if self.caught_up:
            self._say("live")
        else:
            self.asks = True

    def _say(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self.said.append(state)


LASTING = [e for e in Event if e not in (Event.REMOVED, Event.STOPPED, Event.FINISHED)]


@given(
    st.booleans(),
    st.lists(st.sampled_from(LASTING), max_size=40),
    st.sampled_from([Event.REMOVED, Event.STOPPED]),
)
def test_any_course_of_events_says_what_the_old_rules_said(
    resumed: bool, course: list[Event], end: Event
) -> None:
    old = OldRules(resumed=resumed)
    state = State.RESUMING if resumed else State.STARTING
    said: list[str] = []
    for event in [*course, end]:
        if state is State.QUARANTINED and event in (Event.JOINED, Event.CAUGHT_UP):
            continue  # its conversation with REST has been ended
        state, actions = step(state, event)
        old.happen(event)
        for action in actions:
            if action in SAYS and said[-1:] != [SAYS[action]]:
                said.append(SAYS[action])
        assert said == old.said
        if event is not end:
            assert state.caught_up == old.caught_up
            assert old.asks <= (Action.CATCH_UP in actions)
            assert (state is State.LIVE) == (old.state == "live")


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
