"""The newest revision of each identity: what a reader keeps of a topic in which all may come again.

A record may come twice (byte-identical) and a candle, gap, status or audit may come corrected, with
a higher `revision`. Whoever keeps one event of each identity, the highest revision, is right.
"""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.kinds import KINDS

EventT = TypeVar("EventT")

_IDENTITIES: dict[type[msgspec.Struct], tuple[str, ...]] = {
    kind.event: kind.identity for kind in KINDS if kind.identity
}


def identity(event: object) -> tuple[Any, ...]:
    """Return what an event speaks of: the values of its kind's identity (`kinds.KINDS`).

    Returns:
        The same for all revisions of one candle, gap, status or audit; unique within one topic.

    Raises:
        ValidationError: it is a heartbeat or a history marker, which speak of the log itself.
    """
    names = _IDENTITIES.get(type(event))  # type: ignore[arg-type]
    if names is None:
        raise ValidationError(
            f"expected an event with an identity "
            f"({', '.join(kind.__name__ for kind in _IDENTITIES)}), found {type(event).__name__}"
        )
    return tuple(getattr(event, name) for name in names)


class Newest(Generic[EventT]):
    """One event of each identity: the one with the highest revision seen so far.

    Args:
        identities_max: beyond it the identity that came first is forgotten.
    """

    def __init__(self, identities_max: int = 1_000_000) -> None:
        self._identities_max = identities_max
        self._events: dict[tuple[Any, ...], EventT] = {}

    def accept(self, event: EventT) -> bool:
        """Keep an event if it is news.

        Returns:
            Whether it is: an identity not seen yet, or a higher revision of one that was.

        Raises:
            ValidationError: the event has no identity.
        """
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
