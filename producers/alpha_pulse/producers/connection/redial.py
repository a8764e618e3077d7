"""When a lost websocket may be dialed again: soon, however often it is lost, and never too often.

Three things hold a dial back. A connection that worked is dialed again at once; one that was lost
young, or never opened, after a wait that doubles to 3 s: whoever is healthy again has us back
within 5 s. Only an exchange that answers and says no is left alone for longer. And no exchange
sees more than half of the connections that it allows one address.
"""

import asyncio
import time
from dataclasses import dataclass

from alpha_pulse.producers.connection.limiter import backoff_s
from alpha_pulse.producers.exchanges.limits import Rate

# A connection that lived so long worked.
LIVED_S = 5.0
FIRST_WAIT_S = 0.25
LOST_WAIT_S_MAX = 3.0


@dataclass(slots=True)
class _Address:
    connected_at_s: float | None = None
    lost: int = 0  # in a row: young, or before they opened
    refused: int = 0  # in a row
    until_s: float = 0.0


class Redial:
    """Says for each websocket address of one exchange how long to wait before the next dial.

    Times are of any monotonic clock, in seconds. limit: how many dials the exchange may see.
    refused_wait_s_max: the longest wait for an exchange that refuses.
    """

    def __init__(self, limit: Rate, *, refused_wait_s_max: float = 30.0) -> None:
        count, window_s = limit
        self._refused_wait_s_max = refused_wait_s_max
        self._addresses: dict[str, _Address] = {}
        # A bucket of `count` dials that fills one by one.
        self._interval_s = window_s / count
        self._burst_s = window_s - self._interval_s
        self._empty_until_s = 0.0

    def connected(self, url: str, now_s: float) -> None:
        """Note that a connection opened.

        Args:
            url: its address.
            now_s: the time.
        """
        address = self._addresses.setdefault(url, _Address())
        address.connected_at_s = now_s
        address.refused = 0

    def lost(
        self, url: str, now_s: float, *, refused: bool = False, retry_after_s: float = 0.0
    ) -> None:
        """Note, once, that a connection ended or did not open.

        Args:
            url: its address.
            now_s: the time.
            refused: whether the exchange answered the dial and said no.
            retry_after_s: how long it said to wait; 0 when it did not say.
        """
        address = self._addresses.setdefault(url, _Address())
        since_s, address.connected_at_s = address.connected_at_s, None
        worked = since_s is not None and now_s - since_s >= LIVED_S
        address.lost = 1 if worked else address.lost + 1
        address.refused = address.refused + 1 if refused else 0
        wait_s = backoff_s(address.lost, first_s=FIRST_WAIT_S, max_s=LOST_WAIT_S_MAX)
        if refused:
            wait_s = max(wait_s, backoff_s(address.refused, max_s=self._refused_wait_s_max))
        address.until_s = now_s + max(wait_s, retry_after_s)

    def wait_s(self, url: str, now_s: float) -> float:
        """Return how long an address is left alone because it was lost or refused; 0: not at all.

        Args:
            url: the address.
            now_s: the time.
        """
        address = self._addresses.get(url)
        return max(0.0, address.until_s - now_s) if address is not None else 0.0

    def reserve(self, now_s: float) -> float:
        """Return the seconds to wait before a dial, of any address, that is counted now.

        Args:
            now_s: the time.
        """
        self._empty_until_s = max(self._empty_until_s, now_s) + self._interval_s
        return max(0.0, self._empty_until_s - self._burst_s - self._interval_s - now_s)

    async def turn(self, url: str) -> None:
        """Wait until an address may be dialed, and count the dial.

        Args:
            url: the address.
        """
        while (wait_s := self.wait_s(url, time.monotonic())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(wait_s)
        await asyncio.sleep(self.reserve(time.monotonic()))
