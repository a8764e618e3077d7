"""One REST request, asked until it is answered: retries, backoff, and answers that are rubbish."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ccxt.pro
import msgspec
import structlog

from alpha_pulse.contracts.config import HistoryConfig
from alpha_pulse.contracts.errors import DataFetchError, ValidationError
from alpha_pulse.producers.connection.limiter import Limiter, backoff_s

log = structlog.get_logger()

AnswerT = TypeVar("AnswerT")

# Asking again would bring the same answer.
_FINAL = (
    ccxt.pro.AuthenticationError,
    ccxt.pro.BadRequest,
    ccxt.pro.NotSupported,
    ccxt.pro.ArgumentsRequired,
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
            except _FINAL as error:
                raise NotOfferedError(
                    f"expected {what} from {self.name}, found that it refuses: "
                    f"{type(error).__name__}: {str(error)[:200]}; check symbol, timeframe and key"
                ) from error
            except DataFetchError as error:
                if not isinstance(error.__cause__, (ccxt.pro.BaseError, *_UNREADABLE)):
                    raise
                if isinstance(error.__cause__, _FINAL):
                    raise NotOfferedError(str(error)) from error
                failure: Exception = error.__cause__
            except (ccxt.pro.BaseError, *_UNREADABLE) as error:
                failure = error
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
