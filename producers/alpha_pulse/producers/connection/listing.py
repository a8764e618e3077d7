"""The exchange's list of markets: without it nothing can be followed."""

import asyncio
from typing import Any

import ccxt.pro
import structlog
from aiohttp import ClientError

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.producers.connection.limiter import Limiter, backoff_s
from alpha_pulse.producers.connection.redial import LOST_WAIT_S_MAX

log = structlog.get_logger()


class Listing:
    """Loads the list into a ccxt exchange, and loads it again."""

    def __init__(self, config: ProducerConfig, name: str, client: Any, limiter: Limiter) -> None:
        self.is_loaded = False
        self._config = config
        self._name = name
        self._client = client
        self._limiter = limiter

    async def load(self, stop: asyncio.Event) -> bool:
        """Ask until there is an answer; return False when `stop` was set before."""
        attempt = 0
        while not stop.is_set():
            try:
                async with self._limiter:
                    await self._client.load_markets()
                self.is_loaded = True
                return True
            except ccxt.pro.BaseError as error:
                attempt += 1
                banned_s = self._limiter.obey(error, self._client)
                # Where nothing answers, nobody is bothered; what answers and fails is left alone.
                answered = not isinstance(error.__cause__, OSError | ClientError)
                wait_s_max = self._config.reconnect_wait_s_max if answered else LOST_WAIT_S_MAX
                wait_s = max(banned_s, backoff_s(attempt, first_s=0.5, max_s=wait_s_max))
                log.warning(
                    "exchange.unreachable",
                    exchange=self._name,
                    url=self._config.exchange_url or str(self._client.urls.get("www")),
                    error=f"{type(error).__name__}: {str(error)[:200]}",
                    retry_in_s=round(wait_s, 1),
                )
                await _sleep_unless(stop, wait_s)
        return False

    async def reload(self) -> bool:
        """Ask once more; return whether there was an answer. Without one the old list stands."""
        try:
            async with self._limiter:
                await self._client.load_markets(True)
        except ccxt.pro.BaseError as error:
            self._limiter.obey(error, self._client)
            log.warning("markets.unreviewed", exchange=self._name, error=str(error)[:200])
            return False
        return True


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
