"""Healing: missing trades over REST, within the exchange's limits."""

from collections.abc import Awaitable, Callable
from typing import Any

import ccxt.pro
import msgspec
import structlog

from alpha_pulse.contracts.errors import DataFetchError, ValidationError
from alpha_pulse.contracts.events import Trade
from alpha_pulse.producers.connection.limiter import Limiter
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.tick import Numbered
from alpha_pulse.producers.exchanges.trades import KeyNeededError, RestClient, Wanted
from alpha_pulse.producers.healing.absent_ids import with_absent_ids

log = structlog.get_logger()


class Healer:
    """Fetches missing trades of one exchange.

    recent_only: whether the exchange has refused to go back by id without a key.
    refused: the last rows that were no trades.
    """

    def __init__(self, name: str, client: Any, limiter: Limiter) -> None:
        self.name = name
        self.client = client
        self.limiter = limiter
        self.recent_only = False
        self._trades = exchange_of(client.id).trades
        self._rest = RestClient(name, client)
        self.refused = self._rest.refused

    async def fetch(self, wanted: Wanted) -> list[Numbered]:
        """Ask for missing trades once; call again with a higher `first_id` for more.

        Args:
            wanted: the ids, and what is known of their time.

        Returns:
            Some of the wanted trades, ascending by id, from the lowest on; [] when none is there.
            Ids that the answer proves to belong to no trade are among them.

        Raises:
            DataFetchError: the exchange can't be reached, refuses, or answers with rows that are no
                trades.
        """
        if self._trades.by_id is None:
            return []
        refused = self.refused[-1] if self.refused else None
        trades = await self._asked(wanted.symbol, lambda: self._by_id(wanted))
        reason = self._trades.absent_ids
        # A row that was refused is absent too, and yet a trade.
        if reason is not None and (not self.refused or self.refused[-1] is refused):
            return with_absent_ids(trades, wanted, reason, from_first=not self.recent_only)
        last_id = wanted.last_id
        found = {
            int(trade.trade_id): trade
            for trade in trades
            if int(trade.trade_id) >= wanted.first_id
            and (last_id is None or int(trade.trade_id) <= last_id)
        }
        return [found[trade_id] for trade_id in sorted(found)]

    async def recent(self, symbol: str) -> list[Trade]:
        """Return the last trades that REST shows, oldest first; raises as `fetch` does."""
        return await self._asked(symbol, lambda: self._trades.recent(self._rest, symbol))

    async def clock_us(self) -> int:
        """Return the exchange's clock over REST, at best to the millisecond; raises as `fetch`."""
        try:
            async with self.limiter:
                return int(await self.client.fetch_time()) * 1000
        except (ccxt.pro.BaseError, TypeError, ValueError) as error:
            self.limiter.obey(error, self.client)
            raise DataFetchError(
                f"expected the time from {self.name}, found {type(error).__name__}: {error}"
            ) from error

    async def _by_id(self, wanted: Wanted) -> list[Trade]:
        assert self._trades.by_id is not None
        if not self.recent_only:
            try:
                return await self._trades.by_id(self._rest, wanted)
            except KeyNeededError as error:
                self.recent_only = True
                log.warning("healing.limited", exchange=self.name, reason=str(error))
        return await self._trades.recent(self._rest, wanted.symbol)

    async def _asked(self, symbol: str, ask: Callable[[], Awaitable[list[Trade]]]) -> list[Trade]:
        try:
            async with self.limiter:
                return await ask()
        except (ccxt.pro.BaseError, msgspec.ValidationError, ValidationError) as error:
            self.limiter.obey(error, self.client)
            raise DataFetchError(
                f"expected trades of {symbol} from {self.name}, found {type(error).__name__}: "
                f"{str(error)[:200]}"
            ) from error
