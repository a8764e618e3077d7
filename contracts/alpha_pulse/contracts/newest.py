"""The newest revision of each identity: what a reader keeps of a topic in which all may come again.

A record may come twice (byte-identical) and a candle, gap, status or audit may come corrected, with
a higher `revision`. Whoever keeps one event of each identity, the highest revision, is right.
"""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Audit, Candle, DeadLetter, Gap, StreamStatus, Trade

EventT = TypeVar("EventT")

# The fields that say which trade, window, gap … an event speaks of; the revision is not among them.
IDENTITY_FIELDS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    Trade: ("exchange", "symbol", "trade_id"),
    Candle: ("exchange", "symbol", "timeframe", "open_time_us"),
    Gap: ("exchange", "symbol", "first_trade_id", "start_time_us"),
    StreamStatus: ("exchange", "symbol"),
    Audit: ("exchange", "symbol", "timeframe", "open_time_us"),
    DeadLetter: ("identity",),
}


def identity(event: object) -> tuple[Any, ...]:
    """Return what an event speaks of; equal for all its revisions. Unique within one topic.

    Raises: ValidationError for heartbeats and history markers, which speak of the log itself.
    """
    names = IDENTITY_FIELDS.get(type(event))  # type: ignore[arg-type]
    if names is None:
        raise ValidationError(
            f"expected an event with an identity "
            f"({', '.join(kind.__name__ for kind in IDENTITY_FIELDS)}), found "
            f"{type(event).__name__}"
        )
    return tuple(getattr(event, name) for name in names)


class Newest(Generic[EventT]):
    """One event of each identity: the one with the highest revision seen so far.

    identities_max: beyond it the identity that came first is forgotten.
    """

    def __init__(self, identities_max: int = 1_000_000) -> None:
        self._identities_max = identities_max
        self._events: dict[tuple[Any, ...], EventT] = {}

    def accept(self, event: EventT) -> bool:
        """Take an event in; return whether it is news: an identity or a revision not seen yet."""
        key = identity(event)
        known = self._events.get(key)
        if known is not None and getattr(event, "revision", 0) <= getattr(known, "revision", 0):
            return False
        self._events[key] = event
        if len(self._events) > self._identities_max:
            del self._events[next(iter(self._events))]
        return True

    def __iter__(self) -> Iterator[EventT]:
        """Return the newest events, in the order in which their identities first came."""
        return iter(self._events.values())

    def __len__(self) -> int:
        return len(self._events)
