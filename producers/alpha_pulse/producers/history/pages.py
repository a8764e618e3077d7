"""One exchange's past: candles by time, trades by id, under one limiter.

A page says what it covers; what each method promises stands in `candle_pages.py` and
`trade_pages.py`.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from difflib import get_close_matches
from typing import Any

from alpha_pulse.contracts.config import HistoryConfig, ProducerConfig
from alpha_pulse.contracts.errors import MarketWindow
from alpha_pulse.contracts.market import DAY_US, check_symbol
from alpha_pulse.producers.connection.client import open_exchange
from alpha_pulse.producers.connection.limiter import Limiter
from alpha_pulse.producers.exchanges.names import exchange_name
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.history.asking import Asker, NotOfferedError
from alpha_pulse.producers.history.candle_pages import CandlePages
from alpha_pulse.producers.history.trade_pages import TradePages

# So far before a window a symbol without candles in it is looked for.
LOOK_BEFORE_US = 300 * DAY_US
# A call or a command waits so long for an exchange that limits us, and says so instead of more.
LIMITED_S_MAX = 120.0


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
        self._listed_us: dict[str, int] = {}

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

    def check_listed(self, symbol: str) -> None:
        """Return when the exchange lists a symbol.

        Args:
            symbol: the unified symbol.

        Raises:
            ValidationError: it is no symbol.
            NotOfferedError: the exchange does not list it; the text names those that are near.
        """
        check_symbol(symbol)
        markets = self.client.markets
        if symbol not in markets:
            near = get_close_matches(symbol, markets, n=3)
            raise NotOfferedError(
                f"expected a symbol that {self.name} lists, found {symbol!r}; use ccxt's unified "
                f"symbol, such as {', '.join(near) or 'BTC/USDT'}",
                MarketWindow(self.name, symbol),
            )

    async def listed_from_us(self, symbol: str, from_us: int, closed_us: int) -> int | None:
        """Return when the symbol's history begins, by the first candle or trade that REST shows.

        What the exchange says of a listing (ccxt's `created`) proves nothing: the oldest perpetual
        has candles of the 17 days before its own.

        Args:
            symbol: the unified symbol.
            from_us: since when it is of interest, Unix µs.
            closed_us: until when candles are closed, Unix µs.

        Returns:
            Unix µs; None where nothing shows it, or it began before `from_us`.

        Raises:
            DataFetchError: the exchange does not answer.
        """
        if symbol not in self._listed_us:
            first_us = await self._first_shown_us(symbol, from_us, closed_us)
            if first_us is None:
                return None
            self._listed_us[symbol] = first_us
        return self._listed_us[symbol]

    async def _first_shown_us(self, symbol: str, from_us: int, closed_us: int) -> int | None:
        first_us = await self.candles.first_us(symbol)
        if first_us is not None:
            return first_us
        source = exchange_of(self.client.id)
        if source.candles.newest_rows is not None:
            if source.trades.first_from is None:
                return None
            mark = await self.trades.first_trade_from(symbol, 1)
            return None if mark is None else mark.time_us
        days = await self.candles.days(symbol, from_us, closed_us)
        if not days or days[0].start_us <= from_us:
            return None
        # A halt over `from_us` looks the same, unless something was there before it.
        earlier = await self.candles.days(symbol, from_us - LOOK_BEFORE_US, from_us)
        return None if earlier else days[0].start_us


@asynccontextmanager
async def open_history(
    producer: ProducerConfig,
    settings: HistoryConfig | None = None,
    share: float | None = None,
    *,
    limited_s_max: float | None = LIMITED_S_MAX,
) -> AsyncIterator[History]:
    """Yield the history of the exchange that a configuration names, connected, its markets loaded.

    Args:
        producer: which exchange, and how it is reached.
        settings: how it is asked.
        share: of the exchange's own rate limit, by default `limit_share`; 0 knows no limit, for a
            replay exchange.
        limited_s_max: how long it is waited while the exchange limits or bans us; what would take
            longer is a DataFetchError that says until when. None: to the end, as a role does.

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
        limiter = Limiter(name, concurrent_max=concurrent_max, wait_s_max=limited_s_max)
        history = History(name, client, limiter, settings)
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
