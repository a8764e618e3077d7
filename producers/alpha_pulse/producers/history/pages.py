"""One exchange's past: candles by time, trades by id, under one limiter.

A page says what it covers; what each method promises stands in `candle_pages.py` and
`trade_pages.py`.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from alpha_pulse.contracts.config import HistoryConfig, ProducerConfig
from alpha_pulse.producers.connection.client import open_exchange
from alpha_pulse.producers.connection.limiter import Limiter
from alpha_pulse.producers.exchanges.names import exchange_name
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.history.asking import Asker
from alpha_pulse.producers.history.candle_pages import CandlePages
from alpha_pulse.producers.history.trade_pages import TradePages


class History:
    """One exchange's past over REST, under the limiter that everybody shares.

    candles, trades: their pages. client: a ccxt.pro exchange of ours (`open_exchange`) whose
    markets are loaded.
    """

    def __init__(
        self, name: str, client: Any, limiter: Limiter, settings: HistoryConfig | None = None
    ) -> None:
        self.name = name
        self.client = client
        self.settings = settings or HistoryConfig()
        self.healer = Healer(name, client, limiter)
        self.ask = Asker(name, client, limiter, self.settings)
        # The healer takes the limiter's slot itself.
        self._ask_healer = Asker(name, client, _Free(limiter), self.settings)
        self._ask_healer.asked = self.ask.asked
        self.candles = CandlePages(self.ask, self.settings)
        self.trades = TradePages(self.ask, self._ask_healer, self.healer)

    @property
    def requests(self) -> int:
        """How many requests were sent so far, repeats included."""
        return self.ask.asked.requests

    async def clock_us(self) -> int:
        """Return the exchange's clock, Unix µs.

        Raises:
            DataFetchError: the exchange does not answer.
        """
        # Few exchanges do not tell their time; then ours must do.
        if not self.client.has.get("fetchTime"):
            return time.time_ns() // 1000
        return await self._ask_healer("the time", self.healer.clock_us)


@asynccontextmanager
async def open_history(
    producer: ProducerConfig, settings: HistoryConfig | None = None, share: float | None = None
) -> AsyncIterator[History]:
    """Yield the history of the exchange that a configuration names, connected, its markets loaded.

    Args:
        producer: which exchange, and how it is reached.
        settings: how it is asked.
        share: of the exchange's own rate limit, by default `limit_share`; 0 knows no limit, for a
            replay exchange.

    Raises:
        ConfigError: as `make_exchange`.
        DataFetchError: the markets can't be loaded.
    """
    settings = settings or HistoryConfig()
    share = settings.limit_share if share is None else share
    async with open_exchange(producer, lambda socket, frames: None) as client:
        client.enableRateLimit = share > 0
        if share > 0:
            interval_ms = exchange_of(client.id).request_interval_ms or client.rateLimit
            client.rateLimit = interval_ms / share
            client.tokenBucket = None
            client.init_rest_rate_limiter()
        name = exchange_name(producer)
        concurrent_max = max(4, settings.pages_ahead_max)
        history = History(name, client, Limiter(name, concurrent_max=concurrent_max), settings)
        await history.ask("its markets", client.load_markets)
        yield history


class _Free(Limiter):
    """A limiter without slots, for requests that take one further in; bans count all the same."""

    def __init__(self, shared: Limiter) -> None:
        self._shared = shared

    async def __aenter__(self) -> None:
        await self._shared.allowed()

    async def __aexit__(self, *_: object) -> None:
        return None

    def obey(self, error: BaseException, client: Any) -> float:
        return self._shared.obey(error, client)
