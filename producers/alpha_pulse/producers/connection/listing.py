"""The exchange's list of markets: what can be followed, and why the rest can't."""

import asyncio
from typing import Any

import ccxt.pro
import msgspec
import structlog
from aiohttp import ClientError

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.roles.waiting import set_within
from alpha_pulse.producers.connection.limiter import Limiter, backoff_s
from alpha_pulse.producers.connection.redial import LOST_WAIT_S_MAX
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.standing import Standing

log = structlog.get_logger()


class Listing:
    """Loads the list into a ccxt exchange, loads it again, and looks symbols up in it."""

    def __init__(self, config: ProducerConfig, name: str, client: Any, limiter: Limiter) -> None:
        self.is_loaded = False
        self._config = config
        self._name = name
        self._client = client
        self._room = exchange_of(client.id)
        self._limiter = limiter

    async def load(self, stop: asyncio.Event) -> bool:
        """Ask until there is an answer.

        Args:
            stop: ends the asking.

        Returns:
            Whether the list is loaded; False when `stop` was set before.
        """
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
                await set_within(wait_s, stop)
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

    def refusal(self, symbol: str) -> str | None:
        """Return why a symbol can't be followed, None when it can.

        Args:
            symbol: `BASE/QUOTE`; the list has been loaded.
        """
        market = (self._client.markets or {}).get(symbol)
        if market is None:
            return "the exchange does not list it"
        standing, status = self._room.standing(market)
        if standing is Standing.ENDED:
            return f"the exchange lists it as not trading ({status})"
        reason = self._room.unfollowed(market)
        if reason is not None:
            return reason
        size = market.get("contractSize")
        if market.get("contract") and (not market.get("linear") or size not in (None, 1, "1", 1.0)):
            return "its amounts are in contracts, not in the base currency"
        return None

    def halt(self, symbol: str) -> str | None:
        """Return why a symbol that can be followed does not trade now, None when it does.

        Args:
            symbol: `BASE/QUOTE`, one that is not refused.
        """
        standing, status = self._room.standing(self._client.markets[symbol])
        if standing is Standing.TRADING:
            return None
        return f"the exchange lists it as {status}"

    async def maintenance(self) -> str | None:
        """Return what the exchange says of a maintenance that goes on now.

        Returns:
            "" when there is none; None when it does not say.
        """
        if self._room.maintenance is None:
            return None
        try:
            async with self._limiter:
                return await self._room.maintenance(self._client)
        except (ccxt.pro.BaseError, ValidationError, msgspec.ValidationError) as error:
            # Whoever is away altogether does not answer here either; the streams show it.
            self._limiter.obey(error, self._client)
            return None
