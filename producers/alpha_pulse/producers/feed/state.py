"""A symbol's states, what happens to it, and what must be done then: one table; pure.

`TRANSITIONS` names what changes something, `STAYS` what changes nothing in a state; together they
define every pair. A feed steps through the table, and `streams` sends the events and carries the
actions out. Nothing is claimed to be complete in a state that is not `caught_up`.
"""

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """Where a symbol stands.

    caught_up: whether every trade up to what the stream brings is in the feed, or known by its id
    to be missing. meaning: a line for the docs.
    """

    STARTING = ("starting", True, "nothing was said yet; its first trade begins it")
    RESUMING = ("resuming", False, "nothing was said yet; REST must show what came since the log")
    LIVE = ("live", True, "its trades arrive, and nothing before them is unknown")
    DISCONNECTED = ("disconnected", False, "its subscription was lost")
    CATCHING_UP = ("catching up", False, "subscribed again; REST is asked what came meanwhile")
    JOINED = ("joined", True, "what came meanwhile is known; live with the stream's next sign")
    HALTED = ("halted", True, "the exchange's list says that it does not trade")
    HALTED_BEHIND = ("halted, behind", False, "halted while it was disconnected")
    QUARANTINED = ("quarantined", False, "the exchange refuses it; subscribed again after a while")
    FINISHED = ("finished", True, "its recording is over")
    ENDED = ("ended", False, "not followed any more")

    def __init__(self, label: str, caught_up: bool, meaning: str) -> None:
        self.label = label
        self.caught_up = caught_up
        self.meaning = meaning


class Event(Enum):
    """What happens to a symbol."""

    TRADE = "the stream brings a trade"
    HEARD = "the stream brings another frame of the symbol"
    SUBSCRIBED = "a subscription is open for a while without a frame"
    JOINED = "REST reached what the stream brings"
    CAUGHT_UP = "REST shows nothing that is missing"
    LOST = "the subscription is lost"
    REFUSED = "the exchange refuses the subscription"
    HALTED = "the exchange's list says that it does not trade"
    REMOVED = "the settings name it no more"
    STOPPED = "the producer stops"
    FINISHED = "the recording is over"


class Action(Enum):
    """What must be done, in the order of the table."""

    CATCH_UP = "ask REST"
    STOP_CATCHING_UP = "stop asking REST"
    QUARANTINE = "leave the subscription alone for `quarantine_s`"
    SAY_LIVE = "say live"
    SAY_DISCONNECTED = "say disconnected"
    SAY_HALTED = "say halted"
    SAY_FINISHED = "say complete until the end"


Step = tuple[State, tuple[Action, ...]]

_LIVE = (State.LIVE, (Action.SAY_LIVE,))
_LOST = (State.DISCONNECTED, (Action.SAY_DISCONNECTED,))
_ASK = (State.CATCHING_UP, (Action.CATCH_UP,))
_HALTED = (State.HALTED, (Action.SAY_HALTED,))
_HALTED_BEHIND = (State.HALTED_BEHIND, (Action.SAY_HALTED,))
_REFUSED = (
    State.QUARANTINED,
    (Action.STOP_CATCHING_UP, Action.QUARANTINE, Action.SAY_HALTED),
)
# However it stood: what ends a symbol ends it. A stop says so of live ones alone.
_ENDS: Mapping[Event, Step] = {
    Event.REFUSED: _REFUSED,
    Event.REMOVED: (State.ENDED, (Action.STOP_CATCHING_UP, Action.SAY_DISCONNECTED)),
    Event.STOPPED: (State.ENDED, ()),
    Event.FINISHED: (State.FINISHED, (Action.SAY_FINISHED,)),
}

TRANSITIONS: Mapping[State, Mapping[Event, Step]] = {
    # Nothing is said of a symbol before it was live once, not even that it was lost.
    State.STARTING: {
        Event.TRADE: _LIVE,
        Event.SUBSCRIBED: _LIVE,
        Event.CAUGHT_UP: _LIVE,
        Event.LOST: (State.RESUMING, ()),
        Event.HALTED: _HALTED,
        **_ENDS,
    },
    State.RESUMING: {
        Event.TRADE: (State.RESUMING, (Action.CATCH_UP,)),
        Event.HEARD: (State.RESUMING, (Action.CATCH_UP,)),
        Event.SUBSCRIBED: (State.RESUMING, (Action.CATCH_UP,)),
        Event.JOINED: (State.STARTING, ()),
        Event.CAUGHT_UP: _LIVE,
        Event.HALTED: _HALTED_BEHIND,
        **_ENDS,
    },
    State.LIVE: {
        Event.CAUGHT_UP: _LIVE,  # a hole was filled
        Event.LOST: _LOST,
        Event.HALTED: _HALTED,
        **_ENDS,
        Event.STOPPED: (State.ENDED, (Action.SAY_DISCONNECTED,)),
    },
    State.DISCONNECTED: {
        Event.TRADE: _ASK,
        Event.HEARD: _ASK,
        Event.SUBSCRIBED: _ASK,
        # REST may have been asked before the subscription was lost.
        Event.JOINED: (State.JOINED, ()),
        Event.CAUGHT_UP: _LIVE,
        Event.HALTED: _HALTED_BEHIND,
        **_ENDS,
    },
    # A conversation with REST that is under way is not begun again.
    State.CATCHING_UP: {
        Event.TRADE: _ASK,
        Event.HEARD: _ASK,
        Event.SUBSCRIBED: _ASK,
        Event.JOINED: (State.JOINED, ()),
        Event.CAUGHT_UP: _LIVE,
        Event.LOST: _LOST,
        Event.HALTED: _HALTED_BEHIND,
        **_ENDS,
    },
    State.JOINED: {
        Event.TRADE: _LIVE,
        Event.SUBSCRIBED: _LIVE,
        Event.CAUGHT_UP: _LIVE,
        Event.LOST: _LOST,
        Event.HALTED: _HALTED,
        **_ENDS,
    },
    # Only a trade shows that the market goes on: an open subscription says nothing of it.
    State.HALTED: {
        Event.TRADE: _LIVE,
        Event.CAUGHT_UP: _LIVE,
        Event.LOST: _LOST,
        **_ENDS,
    },
    State.HALTED_BEHIND: {
        Event.TRADE: _ASK,
        Event.HEARD: _ASK,
        Event.JOINED: (State.HALTED, ()),
        Event.CAUGHT_UP: _LIVE,
        Event.LOST: _LOST,
        **_ENDS,
    },
    State.QUARANTINED: {
        Event.TRADE: _ASK,
        Event.HEARD: _ASK,
        Event.LOST: _LOST,
        **_ENDS,
    },
    State.FINISHED: {Event.REMOVED: (State.ENDED, ())},
    State.ENDED: {},
}

STAYS: Mapping[State, frozenset[Event]] = {
    State.STARTING: frozenset({Event.HEARD, Event.JOINED}),
    State.RESUMING: frozenset({Event.LOST}),
    State.LIVE: frozenset({Event.TRADE, Event.HEARD, Event.SUBSCRIBED, Event.JOINED}),
    State.DISCONNECTED: frozenset({Event.LOST}),
    State.CATCHING_UP: frozenset(),
    State.JOINED: frozenset({Event.HEARD, Event.JOINED}),
    State.HALTED: frozenset({Event.HEARD, Event.SUBSCRIBED, Event.JOINED, Event.HALTED}),
    State.HALTED_BEHIND: frozenset({Event.SUBSCRIBED, Event.HALTED}),
    # An answer of REST to what was asked before the refusal proves nothing of what comes after.
    State.QUARANTINED: frozenset(
        {Event.SUBSCRIBED, Event.JOINED, Event.CAUGHT_UP, Event.HALTED},
    ),
    State.FINISHED: frozenset(Event) - {Event.REMOVED},
    State.ENDED: frozenset(Event),
}


def step(state: State, event: Event) -> Step:
    """Return what becomes of a symbol, and what must be done.

    Args:
        state: where the symbol stands.
        event: what happened to it.

    Returns:
        The state after it, and the actions, in the order in which they are carried out; the same
        state and no action where the event changes nothing.
    """
    found = TRANSITIONS[state].get(event)
    return found if found is not None else (state, ())
