"""How much a client may ask: request weights per minute and messages per second, as exchanges do.

Off unless asked for. A client that goes on after 429 is banned (418) for a while; Retry-After says
for how long in both cases. Source: Binance, "Limits": weights per minute and address.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

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


class MessageLimit:
    """Messages of one socket within the last second. Time is an argument: monotonic seconds."""

    def __init__(self, messages_max: int) -> None:
        self._times_s: deque[float] = deque(maxlen=messages_max)

    def allows(self, now_s: float) -> bool:
        """Count a message and return whether the socket may live on."""
        full = len(self._times_s) == self._times_s.maxlen
        if full and now_s - self._times_s[0] < 1.0:
            return False
        self._times_s.append(now_s)
        return True


def _whole(seconds: float) -> int:
    return max(1, -int(-seconds // 1))
