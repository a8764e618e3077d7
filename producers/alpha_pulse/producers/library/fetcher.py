"""`ExchangeFetcher`: candles of the past from any exchange, complete or with the reason why not."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import structlog

from alpha_pulse.contracts.config import HistoryConfig, ProducerConfig, load_config
from alpha_pulse.contracts.errors import (
    ConfigError,
    MarketWindow,
    telling,
)
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.interfaces import MissingCandles
from alpha_pulse.contracts.market import get_timeframe
from alpha_pulse.producers.exchanges.names import exchange_name, with_exchange
from alpha_pulse.producers.history.absence import learn_why
from alpha_pulse.producers.history.missing import Window, explain
from alpha_pulse.producers.history.pages import History, open_history

log = structlog.get_logger()

# Of a longer window it is worth a request to learn when the symbol's history begins.
LONG_CANDLES = 10_000


@dataclass(frozen=True)
class DataFetchConfig:
    """How history is fetched.

    batch_size: candles of one request; an exchange may give fewer at once. max_retries: of one
    request, after its first attempt. retry_delay: seconds before the first repeat; it doubles, up
    to 30 s.
    """

    batch_size: int = 1000
    max_retries: int = 3
    retry_delay: float = 1.0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"expected batch_size of 1 or more, found {self.batch_size!r}")
        for name in ("max_retries", "retry_delay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"expected {name} of 0 or more, found {getattr(self, name)!r}")


@dataclass(eq=False, slots=True)
class _Connection:
    # Opened by whoever comes first, closed when nobody uses it any more.
    resources: AsyncExitStack = field(default_factory=AsyncExitStack)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    history: History | None = None
    users: int = 0


class ExchangeFetcher:
    """Fetches the exchanges' own candles over REST; a `Fetcher`.

    testnet: ask testnets; their data carry `-testnet` behind the exchange's name. producer: further
    settings, by default those of the environment (`ALPHA_PULSE_EXCHANGE_URL`, …). A connection is
    open as long as a call needs it, and inside `async with fetcher`: there it is made only once.
    """

    def __init__(
        self,
        config: DataFetchConfig | None = None,
        *,
        testnet: bool = False,
        producer: ProducerConfig | None = None,
    ) -> None:
        self.config = config or DataFetchConfig()
        self._testnet = testnet
        self._producer = producer
        self._connections: dict[str, _Connection] = {}
        self._kept = 0

    async def __aenter__(self) -> Self:
        self._kept += 1
        return self

    async def __aexit__(self, *error: object) -> None:
        self._kept -= 1
        for name, connection in list(self._connections.items()):
            await self._close_unused(name, connection)

    def exchange_name(self, exchange: str) -> str:
        """Return the name that this exchange's events carry, such as `binance-testnet`.

        Args:
            exchange: ccxt's id; `-testnet` behind it means its testnet.

        Raises:
            ValidationError: ccxt.pro has no such exchange.
        """
        return exchange_name(self._settings(exchange))

    @asynccontextmanager
    async def connected(self, exchange: str) -> AsyncIterator[History]:
        """Keep the connection to an exchange over several calls.

        Args:
            exchange: ccxt's id.

        Raises:
            DataFetchError: its markets can't be loaded.
        """
        name = self.exchange_name(exchange)
        connection = self._connections.setdefault(name, _Connection())
        connection.users += 1
        try:
            async with connection.opening:
                if connection.history is None:
                    connection.history = await self._open(name, connection.resources)
            yield connection.history
        finally:
            connection.users -= 1
            await self._close_unused(name, connection)

    async def now_us(self, exchange: str) -> int:
        """Return the exchange's clock, Unix µs.

        Args:
            exchange: ccxt's id.

        Raises:
            DataFetchError: it does not answer.
        """
        async with self.connected(exchange) as history:
            return await history.clock_us()

    async def fetch_candles(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> AsyncGenerator[list[Candle], None]:
        """Yield the exchange's candles of a window, page by page, ascending.

        Args:
            exchange: ccxt's id.
            symbol: the unified symbol.
            timeframe: such as `1m`.
            start_us: the window's beginning, Unix µs.
            end_us: its end, excluded; not beyond what is closed by the exchange's clock (`now_us`).

        Raises:
            DataFetchError: the exchange does not list the symbol, refuses, or does not answer.
        """
        about = MarketWindow(self.exchange_name(exchange), symbol, timeframe, start_us, end_us)
        async with self.connected(exchange) as history:
            history.check_listed(symbol)
            with telling(about):
                start_us = await _since_listing(history, symbol, timeframe, start_us, end_us)
                pages = history.candles.pages(symbol, timeframe, start_us, end_us)
                async with aclosing(pages):
                    async for page in pages:
                        if page.refused:
                            log.warning(
                                "candles.refused",
                                exchange=history.name,
                                symbol=symbol,
                                count=len(page.refused),
                                error=str(page.refused[0].error)[:300],
                            )
                        if page.candles:
                            yield page.candles

    async def why_missing(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[MissingCandles]:
        """Return why the candles of a window, which all are missing, could not be had.

        Args:
            exchange: ccxt's id.
            symbol: the unified symbol.
            timeframe: such as `1m`.
            start_us: the window's beginning, Unix µs.
            end_us: its end, excluded.

        Returns:
            The whole window in runs of one reason each, ascending.

        Raises:
            DataFetchError: the exchange does not answer.
        """
        frame = get_timeframe(timeframe)
        async with self.connected(exchange) as history:
            known = await learn_why(history, symbol, frame, start_us, end_us)
        step_us = frame.duration_us
        return [
            MissingCandles(
                run.start_us, run.end_us, (run.end_us - run.start_us) // step_us, run.reason
            )
            for run in explain([Window(start_us, end_us)], frame, known)
        ]

    def _settings(self, exchange: str) -> ProducerConfig:
        settings = self._producer or load_config().producer
        return with_exchange(settings, exchange, testnet=self._testnet)

    async def _open(self, name: str, resources: AsyncExitStack) -> History:
        producer = self._settings(name)
        settings = HistoryConfig(
            max_retries=self.config.max_retries,
            retry_delay_s=self.config.retry_delay,
            page_rows_max=self.config.batch_size,
        )
        share = 0.0 if producer.clock == "event" else None  # a replay has no limits
        with telling(MarketWindow(name)):
            return await resources.enter_async_context(open_history(producer, settings, share))

    async def _close_unused(self, name: str, connection: _Connection) -> None:
        if connection.users or self._kept:
            return
        if self._connections.get(name) is connection:
            del self._connections[name]
        await connection.resources.aclose()


async def _since_listing(
    history: History, symbol: str, timeframe: str, start_us: int, end_us: int
) -> int:
    # Years before a symbol's first trade would be asked for page by page, each twice.
    frame = get_timeframe(timeframe)
    if end_us - start_us <= LONG_CANDLES * frame.duration_us:
        return start_us
    listed_us = await history.listed_from_us(symbol, start_us, end_us)
    return start_us if listed_us is None else max(start_us, frame.open_time_us(listed_us))
