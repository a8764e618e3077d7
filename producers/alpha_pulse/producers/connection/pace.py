"""One budget per connection for all that we send, so that no exchange ever closes it for that."""

import asyncio
from collections import deque

from alpha_pulse.producers.exchanges.limits import Rate, SocketLimits

# What we send in a second may arrive in a little less.
WINDOW_MARGIN = 1.1


def requests_within(limits: SocketLimits) -> list[Rate]:
    """Return the rates at which subscribes are sent on one connection.

    Of all messages half are left for pings and pongs; of subscribes a tenth for what is unforeseen.

    Args:
        limits: the exchange's.
    """
    rates = []
    if limits.messages:
        count, window_s = limits.messages
        rates.append(Rate(max(1, count // 2), window_s * WINDOW_MARGIN))
    if limits.requests:
        count, window_s = limits.requests
        rates.append(Rate(max(1, count * 9 // 10), window_s * WINDOW_MARGIN))
    return rates


class _Window:
    """What was sent lately. Times are monotonic seconds."""

    def __init__(self, rate: Rate) -> None:
        self._window_s = rate.window_s * WINDOW_MARGIN
        self._times_s: deque[float] = deque(maxlen=rate.most)

    def wait_s(self, now_s: float, most: int) -> float:
        """Return how long `most` have been sent within the window from now on, else 0."""
        if len(self._times_s) < most:
            return 0.0
        return max(0.0, self._times_s[-most] + self._window_s - now_s)

    def note(self, now_s: float) -> None:
        self._times_s.append(now_s)


class Pace:
    """Says when the next message may be sent on one connection.

    Args:
        limits: the exchange's.
    """

    def __init__(self, limits: SocketLimits) -> None:
        self._limits = limits
        self._messages = _Window(limits.messages) if limits.messages else None
        self._requests = _Window(limits.requests) if limits.requests else None
        self._queue = asyncio.Lock()

    async def request(self) -> None:
        """Wait for the turn of a subscribe or unsubscribe, first come first served."""
        async with self._queue:
            await self._turn(is_request=True)

    async def control(self) -> None:
        """Wait for the turn of a ping or pong; they do not queue behind subscribes."""
        await self._turn(is_request=False)

    async def _turn(self, *, is_request: bool) -> None:
        loop = asyncio.get_running_loop()
        # Another message may have been sent meanwhile.
        while (wait_s := self.wait_s(loop.time(), is_request=is_request)) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait_s)
        self.note(loop.time(), is_request=is_request)

    def wait_s(self, now_s: float, *, is_request: bool) -> float:
        """Return the seconds until a message may be sent.

        Args:
            now_s: monotonic.
            is_request: a subscribe or unsubscribe; else a ping or pong.
        """
        wait_s = 0.0
        if self._messages and self._limits.messages:
            count = self._limits.messages.most
            wait_s = self._messages.wait_s(now_s, max(1, count // 2 if is_request else count - 1))
        if is_request and self._requests and self._limits.requests:
            most = max(1, self._limits.requests.most * 9 // 10)
            wait_s = max(wait_s, self._requests.wait_s(now_s, most))
        return wait_s

    def note(self, now_s: float, *, is_request: bool) -> None:
        """Count a message that is sent now; arguments as of `wait_s`."""
        if self._messages:
            self._messages.note(now_s)
        if is_request and self._requests:
            self._requests.note(now_s)
