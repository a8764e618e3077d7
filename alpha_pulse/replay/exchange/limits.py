"""How much a client may ask: request weights per minute, and what its websockets may do.

Weights are off unless asked for. A client that goes on after 429 is banned (418) for a while;
Retry-After says for how long in both cases. Source: Binance, "Limits": weights per minute and
address.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from alpha_pulse.replay.dialects.rules import NO_RULES, Breach, Rate, SocketRules

WINDOW_S = 60.0
BAN_AFTER_REFUSALS = 3
BAN_S = 120.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request: 200, 429 or 418, and how much weight has been used."""

    status: int
    used: int
    retry_after_s: int = 0


class WeightLimit:
    """Request weights in fixed windows of a minute. Time is an argument: monotonic seconds."""

    def __init__(self, weight_max: int, weights: Sequence[tuple[str, int]]) -> None:
        self._weight_max = weight_max
        self._weights = [(re.compile(pattern), weight) for pattern, weight in weights]
        self._window_s = 0.0
        self._used = 0
        self._refusals = 0
        self._banned_until_s = 0.0

    def ask(self, path: str, now_s: float) -> Verdict:
        """Count a request and say whether it is served."""
        window_s = now_s - now_s % WINDOW_S
        if window_s != self._window_s:
            self._window_s, self._used, self._refusals = window_s, 0, 0
        if now_s < self._banned_until_s:
            return Verdict(418, self._used, _whole(self._banned_until_s - now_s))
        self._used += next((w for pattern, w in self._weights if pattern.search(path)), 1)
        if self._used <= self._weight_max:
            return Verdict(200, self._used)
        self._refusals += 1
        if self._refusals > BAN_AFTER_REFUSALS:
            self._banned_until_s = now_s + BAN_S
            return Verdict(418, self._used, _whole(BAN_S))
        return Verdict(429, self._used, _whole(self._window_s + WINDOW_S - now_s))


class RateLimit:
    """What happened within a window. Time is an argument: monotonic seconds.

    scale: of the window's length.
    """

    def __init__(self, rate: Rate, scale: float = 1.0) -> None:
        self._window_s = rate.window_s * scale
        self._times_s: deque[float] = deque(maxlen=rate.most)

    def allows(self, now_s: float) -> bool:
        """Count one more and return whether it is allowed; what is not does not count."""
        if self.wait_s(now_s) > 0:
            return False
        self._times_s.append(now_s)
        return True

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until one more is allowed."""
        full = len(self._times_s) == self._times_s.maxlen
        return max(0.0, self._times_s[0] + self._window_s - now_s) if full else 0.0


class AddressLimits:
    """The rules of the websockets of one address: everybody who comes over loopback.

    rules: of the dialect. scale: of the windows' lengths, for tests; None: nothing is refused.
    """

    def __init__(self, rules: SocketRules, scale: float | None) -> None:
        self.rules = rules if scale is not None else NO_RULES
        self._scale = 1.0 if scale is None else scale
        self._dials = self._limit(self.rules.dials)
        self._messages = self._limit(self.rules.messages)
        self._banned_until_s = 0.0

    def refuses_dial_s(self, now_s: float) -> float:
        """Count a handshake; return how long it is refused for, 0 when it is let in."""
        if now_s < self._banned_until_s:
            return self._banned_until_s - now_s
        if self._dials is None or self._dials.allows(now_s):
            return 0.0
        if self.rules.dial_ban_s:
            self._banned_until_s = now_s + self.rules.dial_ban_s * self._scale
            return self._banned_until_s - now_s
        return self._dials.wait_s(now_s)

    def of_socket(self) -> "SocketLimits":
        """Return the limits of a new connection."""
        shared = self._messages if self.rules.of_address else self._limit(self.rules.messages)
        return SocketLimits(shared, self._limit(self.rules.requests))

    def _limit(self, rate: Rate | None) -> RateLimit | None:
        return RateLimit(rate, self._scale) if rate is not None else None


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """What one connection may send."""

    messages: RateLimit | None
    requests: RateLimit | None

    def breach(self, now_s: float, *, is_request: bool) -> Breach | None:
        """Count a message and return the rule that it breaks."""
        if self.messages is not None and not self.messages.allows(now_s):
            return "messages"
        if is_request and self.requests is not None and not self.requests.allows(now_s):
            return "requests"
        return None


def _whole(seconds: float) -> int:
    return max(1, -int(-seconds // 1))
