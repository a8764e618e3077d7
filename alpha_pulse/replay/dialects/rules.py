"""What an exchange allows the websockets of one address; `exchange.limits` enforces it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

# messages, requests: too many. streams: too many subscriptions. topics: too long altogether.
# arguments: too many in one request.
Breach = Literal["messages", "requests", "streams", "topics", "arguments"]


class Rate(NamedTuple):
    """At most `most` within any `window_s` seconds."""

    most: int
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketRules:
    """The documented rules; None: none is documented. Each dialect names its document.

    dials: new connections of one address. dial_status: of the handshake that is one too many.
    dial_ban_s: how long it is refused from then on; 0: until the window has room.
    messages: all that a client sends, pings and pongs included.
    closes: whether a connection that breaks a rule is closed (1008); else it is answered.
    of_address: whether `messages` are those of all connections together.
    requests: subscribes, unsubscribes and logins of one connection.
    streams: subscriptions of one connection.
    topic_chars: characters of all subscriptions of one connection.
    """

    dials: Rate | None = None
    dial_status: int = 429
    dial_ban_s: float = 0.0
    messages: Rate | None = None
    of_address: bool = False
    closes: bool = False
    requests: Rate | None = None
    streams: int | None = None
    topic_chars: int | None = None


NO_RULES = SocketRules()
