"""One REST request, asked until it is answered: retries, backoff, and answers that are rubbish."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ccxt.pro
import msgspec
import structlog

from alpha_pulse.contracts.config import HistoryConfig
from alpha_pulse.contracts.errors import DataFetchError, ValidationError
from alpha_pulse.producers.connection.limiter import Limiter, backoff_s
from alpha_pulse.producers.exchanges.tick import is_throttling

log = structlog.get_logger()

AnswerT = TypeVar("AnswerT")

# Asking again would bring the same answer.
_FINAL = (
    ccxt.pro.AuthenticationError,
    ccxt.pro.BadRequest,
    ccxt.pro.NotSupported,
    ccxt.pro.ArgumentsRequired,
)
# How exchanges refuse a place: HTTP 451 (RFC 7725), or one of these texts with another status.
_PLACE = re.compile(
    r"\s451\s|restricted location|block access from your country|regulatory restrictions"
    r"|not available (?:in|to) your (?:country|region|jurisdiction)",
    re.IGNORECASE,
)
# What a body that is cut, empty or of another shape makes of ccxt's parsers and of ours.
_UNREADABLE = (
    msgspec.ValidationError,
    ValidationError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
)


class NotOfferedError(DataFetchError):
    """The exchange does not serve this at all: asking again, or later, brings nothing."""


def advice_on(error: BaseException | None) -> str | None:
    """Return what to do about a refusal that stays the same; None for a fault that passes.

    Args:
        error: what ccxt raised.
    """
    if is_throttling(str(error)):
        return None  # whatever ccxt makes of it
    if isinstance(error, ccxt.pro.BaseError) and _PLACE.search(str(error)):
        return "it does not serve this place: use an exchange that does, or run from where it may"
    if isinstance(error, ccxt.pro.BadSymbol):
        return "use a symbol that it lists, in ccxt's form, such as BTC/USDT"
    if isinstance(error, ccxt.pro.AuthenticationError):
        return "check [producer] api_key and what it is allowed to do"
    return "check symbol, timeframe and key" if isinstance(error, _FINAL) else None


@dataclass(slots=True)
class Asked:
    """What was asked of an exchange so far."""

    requests: int = 0
    failures: int = 0
    by_error: dict[str, int] = field(default_factory=dict)


class Asker:
    """Asks one exchange under the limiter that all of its users share."""

    def __init__(self, name: str, client: Any, limiter: Limiter, settings: HistoryConfig) -> None:
        self.name = name
        self.client = client
        self.asked = Asked()
        self._limiter = limiter
        self._settings = settings

    async def __call__(self, what: str, ask: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """Return the answer; after a failure wait and ask again, `max_retries` times at most.

        Args:
            what: the request in words, for the error.
            ask: sends one request and decodes its answer.

        Raises:
            NotOfferedError: the exchange refuses for good.
            DataFetchError: every attempt failed; the last error is its cause.
        """
        attempt = 0
        while True:
            self.asked.requests += 1
            try:
                async with self._limiter:
                    return await ask()
            except DataFetchError as error:
                if not isinstance(error.__cause__, (ccxt.pro.BaseError, *_UNREADABLE)):
                    raise
                failure: Exception = error.__cause__
            except (ccxt.pro.BaseError, *_UNREADABLE) as error:
                failure = error
            advice = advice_on(failure)
            if advice is not None:
                raise NotOfferedError(
                    f"expected {what} from {self.name}, found that it refuses for good: "
                    f"{type(failure).__name__}: {str(failure)[:200]}; {advice}"
                ) from failure
            attempt += 1
            await self._after(failure, attempt, what)

    async def _after(self, failure: Exception, attempt: int, what: str) -> None:
        kind = type(failure).__name__
        self.asked.failures += 1
        self.asked.by_error[kind] = self.asked.by_error.get(kind, 0) + 1
        if attempt > self._settings.max_retries:
            raise DataFetchError(
                f"expected {what} from {self.name}, found no usable answer in {attempt} attempts, "
                f"the last: {kind}: {str(failure)[:200]}; try again later: what came is kept"
            ) from failure
        # A ban holds everybody back in the limiter, so there is nothing to add to it.
        if not self._limiter.obey(failure, self.client):
            wait_s = backoff_s(attempt, first_s=self._settings.retry_delay_s)
            log.debug("history.retried", exchange=self.name, error=kind, wait_s=round(wait_s, 2))
            await asyncio.sleep(wait_s)
