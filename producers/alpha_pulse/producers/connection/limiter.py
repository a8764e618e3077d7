"""One limiter per exchange, shared by REST and subscribes: an exchange that says stop is obeyed."""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import ccxt.pro
import structlog
from aiohttp import WSServerHandshakeError

from alpha_pulse.contracts.errors import DataFetchError, format_us
from alpha_pulse.producers.exchanges.tick import is_throttling

log = structlog.get_logger()

# Addresses are banned for up to three days; what is longer by far is taken for a mistake.
RETRY_AFTER_S_MAX = 30 * 86_400.0
# What to wait where a 429 or 418 names no time of its own.
RETRY_AFTER_S = 5.0
# Several subscriptions hear of one refused handshake.
SAME_ANSWER_S = 0.05
_LIMITED = (418, 429)
# A body may date the ban without a header: "…; IP banned until 1659146400000." (error -1003).
_BANNED_UNTIL = re.compile(r"banned until (\d{13})\b")


class LimitedError(DataFetchError):
    """The exchange told us to wait, for longer than the caller is willing to."""


class Limiter:
    """Holds REST calls and subscribes back: a bounded number at once, none while we are banned.

    Args:
        exchange: the name that events carry.
        concurrent_max: how many calls at once.
        wait_s_max: how long a caller waits for the end of a ban; None: to its end, as roles do.
    """

    def __init__(
        self, exchange: str, *, concurrent_max: int = 4, wait_s_max: float | None = None
    ) -> None:
        self._exchange = exchange
        self._wait_s_max = wait_s_max
        self._slots = asyncio.Semaphore(concurrent_max)
        self._until = 0.0  # loop time before which nothing may be sent
        self.calls = 0
        self.limited = 0  # how often the exchange told us to wait

    async def __aenter__(self) -> None:
        await self._slots.acquire()
        try:
            await self.allowed()
        except BaseException:
            self._slots.release()
            raise
        self.calls += 1

    async def __aexit__(self, *_: object) -> None:
        self._slots.release()

    async def allowed(self) -> None:
        """Wait until the exchange lets us send again.

        Raises:
            LimitedError: that is further away than `wait_s_max`.
        """
        loop = asyncio.get_running_loop()
        # Another answer may have moved the end of the wait meanwhile.
        while (wait_s := self._until - loop.time()) > 0:
            if self._wait_s_max is not None and wait_s > self._wait_s_max:
                raise LimitedError(
                    f"expected to be let in by {self._exchange}, found that it limits this address "
                    f"until {_in(wait_s)}, for {wait_s:.0f} s more; call again then: what came is "
                    "kept, and asking earlier makes it longer"
                )
            await asyncio.sleep(wait_s)

    def obey(self, error: BaseException, client: Any) -> float:
        """Hold everybody back when an error is the exchange's stop.

        Args:
            error: what a request or subscription raised.
            client: the ccxt exchange, whose `last_response_headers` alone hold Retry-After.

        Returns:
            The seconds that everybody must wait; 0 when the error is no ban.
        """
        status, wait_s = refusal(error)
        if isinstance(error, ccxt.pro.DDoSProtection | ccxt.pro.RateLimitExceeded):
            named_s = _retry_after_s(getattr(client, "last_response_headers", None))
            wait_s = max(named_s, _banned_s(error)) or RETRY_AFTER_S
        elif status in _LIMITED or is_throttling(str(error)):
            # ccxt does not know every form: "access too frequent" in JSON is its ExchangeError.
            wait_s = max(wait_s, _banned_s(error)) or RETRY_AFTER_S
        else:
            return 0.0
        self.hold(wait_s)
        return wait_s

    def hold(self, wait_s: float) -> None:
        """Send nothing more for a while.

        Args:
            wait_s: how long, in seconds, from now on.
        """
        until = asyncio.get_running_loop().time() + wait_s
        if until > self._until + SAME_ANSWER_S:
            self.limited += 1
            self._until = until
            log.warning(
                "exchange.limited",
                exchange=self._exchange,
                wait_s=round(wait_s, 1),
                until=_in(wait_s),
            )


def backoff_s(attempt: int, *, first_s: float = 0.05, max_s: float = 30.0) -> float:
    """Return the seconds to wait before an attempt: doubling, jittered, capped.

    The jitter keeps producers that lost one exchange together from coming back together.

    Args:
        attempt: 1 for the first repeat.
        first_s: the wait before it.
        max_s: the longest wait.
    """
    whole_s: float = min(max_s, first_s * 2.0 ** min(max(attempt - 1, 0), 20))
    return whole_s * random.uniform(0.5, 1.0)


def refusal(error: object) -> tuple[int, float]:
    """Return how a websocket handshake was refused.

    Args:
        error: what ccxt made of it.

    Returns:
        The HTTP status and Retry-After in seconds; 0 for what the answer does not have, and for any
        other error.
    """
    causes = getattr(error, "args", ())
    if not causes or not isinstance(causes[0], WSServerHandshakeError):
        return 0, 0.0
    return causes[0].status, _retry_after_s(causes[0].headers)


def _retry_after_s(headers: Mapping[str, str] | None) -> float:
    # Seconds, or an HTTP date (RFC 9110, 10.2.3).
    for name, value in (headers or {}).items():
        if name.lower() == "retry-after":
            try:
                return _bounded_s(float(value))
            except ValueError:
                pass
            try:
                return _bounded_s(parsedate_to_datetime(value).timestamp() - time.time())
            except (TypeError, ValueError):
                break
    return 0.0


def _banned_s(error: BaseException) -> float:
    # The body alone may say it, without the header.
    found = _BANNED_UNTIL.search(str(error))
    return _bounded_s(int(found.group(1)) / 1000 - time.time()) if found else 0.0


def _bounded_s(seconds: float) -> float:
    return min(max(seconds, 0.1), RETRY_AFTER_S_MAX)


def _in(wait_s: float) -> str:
    return format_us(round(time.time() + wait_s) * 1_000_000)
