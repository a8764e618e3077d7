"""A symbol's states, what can happen to it, and what to do then: one table; pure.

`TRANSITIONS` lists the events that change something in a state, `STAYS` those that don't; together
they define every pair. `SymbolFeed` keeps the state; `streams` sends the events and carries out the
actions. In a state that is not `caught_up` no heartbeat passes the last trade in the log.
"""

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """Where a symbol stands.

    Args:
        label: its name in the docs.
        caught_up: whether every trade before what the stream brings is in the feed, or known by its
            id to be missing.
        meaning: a line for the docs.
    """

    STARTING = ("starting", True, "no trade yet; the first one makes it live")
    RESUMING = ("resuming", False, "after a restart; REST must show what the log lacks")
    LIVE = ("live", True, "trades arrive, and every one before them is accounted for")
    DISCONNECTED = ("disconnected", False, "the subscription is lost")
    CATCHING_UP = ("catching up", False, "subscribed again; REST is asked what came meanwhile")
    JOINED = ("joined", True, "REST has reached the stream; live with its next trade")
    HALTED = ("halted", True, "the exchange lists it as not trading")
    HALTED_BEHIND = ("halted, behind", False, "halted while it was disconnected")
    QUARANTINED = ("quarantined", False, "refused; tried again after `quarantine_s`")
    FINISHED = ("finished", True, "the recording is over")
    ENDED = ("ended", False, "no longer followed")

    def __init__(self, label: str, caught_up: bool, meaning: str) -> None:
        self.label = label
        self.caught_up = caught_up
        self.meaning = meaning


class Event(Enum):
    """What happens to a symbol."""

    TRADE = "the stream brings a trade"
    HEARD = "the stream brings another frame of the symbol"
    SUBSCRIBED = "the subscription has been open for a while without a frame"
    JOINED = "REST has reached what the stream brings"
    CAUGHT_UP = "nothing is missing any more"
    LOST = "the subscription is lost"
    REFUSED = "the exchange refuses the subscription"
    HALTED = "the exchange lists it as not trading"
    REMOVED = "the settings no longer name it"
    STOPPED = "the producer stops"
    FINISHED = "the recording is over"


class Action(Enum):
    """What to do, in the order of the table."""

    CATCH_UP = "ask REST"
    STOP_CATCHING_UP = "stop asking REST"
    QUARANTINE = "leave the subscription alone for `quarantine_s`"
    EMIT_LIVE = "publish that it is live"
    EMIT_DISCONNECTED = "publish that it is disconnected"
    EMIT_HALTED = "publish that it is halted"
    EMIT_FINISHED = "publish that it is complete until the recording's end"


Step = tuple[State, tuple[Action, ...]]

_LIVE = (State.LIVE, (Action.EMIT_LIVE,))
_LOST = (State.DISCONNECTED, (Action.EMIT_DISCONNECTED,))
_ASK = (State.CATCHING_UP, (Action.CATCH_UP,))
_HALTED = (State.HALTED, (Action.EMIT_HALTED,))
_HALTED_BEHIND = (State.HALTED_BEHIND, (Action.EMIT_HALTED,))
_REFUSED = (
    State.QUARANTINED,
    (Action.STOP_CATCHING_UP, Action.QUARANTINE, Action.EMIT_HALTED),
)
# The same in every state. A stop is published of live symbols alone.
_ENDS: Mapping[Event, Step] = {
    Event.REFUSED: _REFUSED,
    Event.REMOVED: (State.ENDED, (Action.STOP_CATCHING_UP, Action.EMIT_DISCONNECTED)),
    Event.STOPPED: (State.ENDED, ()),
    Event.FINISHED: (State.FINISHED, (Action.EMIT_FINISHED,)),
}

TRANSITIONS: Mapping[State, Mapping[Event, Step]] = {
    # Before its first heartbeat nothing is published of a symbol, not even that it was lost.
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
        Event.STOPPED: (State.ENDED, (Action.EMIT_DISCONNECTED,)),
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
    # Asking REST again changes nothing while it is being asked.
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
    # What REST answers to an earlier question proves nothing about the time after the refusal.
    State.QUARANTINED: frozenset(
        {Event.SUBSCRIBED, Event.JOINED, Event.CAUGHT_UP, Event.HALTED},
    ),
    State.FINISHED: frozenset(Event) - {Event.REMOVED},
    State.ENDED: frozenset(Event),
}


def step(state: State, event: Event) -> Step:
    """Return the state after an event, and what to do.

    Args:
        state: where the symbol stands.
        event: what happened to it.

    Returns:
        The state after it, and the actions, in the order in which they are carried out; the same
        state and no action where the event changes nothing.
    """
    found = TRANSITIONS[state].get(event)
    return found if found is not None else (state, ())
