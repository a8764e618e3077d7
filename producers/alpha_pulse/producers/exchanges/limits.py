"""What an exchange's documents allow the websockets of one address; producers keep a part of it."""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self


class Rate(NamedTuple):
    """At most `most` within any `window_s` seconds."""

    most: int
    window_s: float

    def half(self) -> "Rate":
        """Return half of it: another producer may share our address."""
        return Rate(max(1, self.most // 2), self.window_s)


DIALS_DEFAULT = Rate(100, 300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketLimits:
    """The documented limits, whole. None: the exchange documents none.

    dials: new connections of one address of ours.
    messages: all that one connection sends: subscribes, unsubscribes, pings and pongs.
    requests: subscribes and unsubscribes of one connection.
    streams: subscriptions of one connection.
    topic_chars: characters of all subscriptions of one connection.
    """

    dials: Rate = DIALS_DEFAULT
    messages: Rate | None = None
    requests: Rate | None = None
    streams: int | None = None
    topic_chars: int | None = None

    def scaled(self, factor: float) -> Self:
        """Return the same limits in windows of another length, as a test needs them.

        Args:
            factor: of the windows' lengths; 0.1: all happens ten times as fast.
        """

        def scaled(rate: Rate) -> Rate:
            return Rate(rate.most, rate.window_s * factor)

        return replace(
            self,
            dials=scaled(self.dials),
            messages=scaled(self.messages) if self.messages else None,
            requests=scaled(self.requests) if self.requests else None,
        )


LIMITS_DEFAULT = SocketLimits()
