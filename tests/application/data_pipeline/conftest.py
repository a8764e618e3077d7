"""Storages, fetchers and providers in memory, for the rules; the replay exchange for the rest."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from alpha_pulse.cli.pipeline.role_processes import RoleProcesses
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import DataFetchError, StorageError
from alpha_pulse.contracts.events import Candle, Heartbeat, Trade
from alpha_pulse.contracts.interfaces import MissingCandles, OnEvents
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kinds import IngestEvent
from alpha_pulse.contracts.market import MINUTE_US, get_timeframe
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.library.sql_storage import SQLAlchemyStorage

START_US = 1_767_225_600_000_000  # 2026-01-01, a midnight


def make_candle(number: int = 0, **changes: Any) -> Candle:
    """Return the exchange's own candle of minute `number`."""
    fields: dict[str, Any] = {
        "exchange": "binance",
        "symbol": "BTC/USDT",
        "timeframe": "1m",
        "open_time_us": START_US + number * MINUTE_US,
        "open": "61837.63000000",
        "high": "61900.00000000",
        "low": "61800.10000000",
        "close": "61850.00000001",
        "volume": "12.34500000",
        "quote_volume": "763456.12345678",
        "buy_volume": "6.00000000",
        "trade_count": 1234,
        "first_trade_id": None,
        "last_trade_id": None,
        "revision": 0,
        "source": "exchange",
        "coverage": "exchange",
        **changes,
    }
    return Candle(**fields)


def make_trade(number: int, **changes: Any) -> Trade:
    """Return trade `number`, one a second."""
    fields: dict[str, Any] = {
        "exchange": "binance",
        "symbol": "BTC/USDT",
        "trade_id": str(1_000 + number),
        "price": "61837.63000000",
        "amount": "0.00012000",
        "side": "buy",
        "trade_time_us": START_US + number * 1_000_000,
        "receive_time_us": START_US + number * 1_000_000 + 5_000,
        **changes,
    }
    return Trade(**fields)


class MemoryStorage:
    """A storage in two dictionaries. `away`: while set, saving raises StorageError."""

    def __init__(self) -> None:
        self.candles: dict[tuple[str, str, str, int], Candle] = {}
        self.trades: dict[tuple[str, str, str], Trade] = {}
        self.saves: list[int] = []
        self.away = False
        self.refused = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        return None

    async def flush(self) -> None:
        return None

    async def save_candles(self, candles: Iterable[Candle]) -> int:
        self._check()
        count = 0
        for candle in candles:
            count += 1
            key = (candle.exchange, candle.symbol, candle.timeframe, candle.open_time_us)
            stored = self.candles.get(key)
            if stored is None or candle.revision >= stored.revision:
                self.candles[key] = candle
        self.saves += [count] if count else []
        return count

    async def save_trades(self, trades: Iterable[Trade]) -> int:
        self._check()
        count = 0
        for trade in trades:
            count += 1
            self.trades.setdefault((trade.exchange, trade.symbol, trade.trade_id), trade)
        self.saves += [count] if count else []
        return count

    async def load_candles(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[Candle]:
        market = (exchange, symbol, timeframe)
        found = [c for key, c in self.candles.items() if key[:3] == market]
        found.sort(key=lambda candle: candle.open_time_us)
        return [candle for candle in found if start_us <= candle.open_time_us < end_us]

    async def load_trades(
        self, exchange: str, symbol: str, start_us: int, end_us: int
    ) -> list[Trade]:
        found = [t for key, t in self.trades.items() if key[:2] == (exchange, symbol)]
        found.sort(key=lambda trade: (trade.trade_time_us, len(trade.trade_id), trade.trade_id))
        return [trade for trade in found if start_us <= trade.trade_time_us < end_us]

    async def open_times_us(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[int]:
        candles = await self.load_candles(exchange, symbol, timeframe, start_us, end_us)
        return [candle.open_time_us for candle in candles]

    def _check(self) -> None:
        if self.away:
            self.refused.set()
            raise StorageError("expected the storage to answer, found it away; start it")


class MemoryFetcher:
    """An exchange's candles by number of the minute: `offered`, of which it can fail at some.

    asked: the windows that were fetched, in numbers of minutes. fail_at: the page with this minute
    is answered by an error.
    """

    def __init__(self, offered: Iterable[int], now: int = 10**6, page_size: int = 5) -> None:
        self.offered = sorted(offered)
        self.now = now
        self.page_size = page_size
        self.fail_at: int | None = None
        self.asked: list[tuple[int, int]] = []

    def exchange_name(self, exchange: str) -> str:
        return str(exchange)

    @asynccontextmanager
    async def connected(self, exchange: str) -> AsyncIterator[None]:
        yield

    async def now_us(self, exchange: str) -> int:
        return START_US + self.now * MINUTE_US

    async def fetch_candles(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> AsyncGenerator[list[Candle], None]:
        first, end = (start_us - START_US) // MINUTE_US, (end_us - START_US) // MINUTE_US
        self.asked.append((first, end))
        inside = [number for number in self.offered if first <= number < end]
        for place in range(0, len(inside), self.page_size):
            page = inside[place : place + self.page_size]
            if self.fail_at in page:
                raise DataFetchError("expected an answer, found none; try again later")
            yield [make_candle(number, exchange=exchange, symbol=symbol) for number in page]

    async def why_missing(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[MissingCandles]:
        count = (end_us - start_us) // get_timeframe(timeframe).duration_us
        return [MissingCandles(start_us, end_us, count, "halted")]


class MemoryProvider:
    """A live exchange that says what a test tells it to."""

    exchange = "binance"

    def __init__(self) -> None:
        self.symbols: tuple[str, ...] = ()
        self._on_events: OnEvents | None = None
        self._end = asyncio.Event()
        self.failure: Exception | None = None

    async def start(self, symbols: Sequence[str], on_events: OnEvents) -> None:
        self.symbols, self._on_events = tuple(symbols), on_events
        self._end.clear()

    async def send(self, *events: IngestEvent) -> None:
        assert self._on_events is not None
        await self._on_events(events)

    async def wait(self) -> None:
        await self._end.wait()
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        self._end.set()
        if self.failure is not None:
            raise self.failure

    def end(self, failure: Exception) -> None:
        self.failure = failure
        self._end.set()


def make_heartbeat(state: Any, symbol: str = "BTC/USDT") -> Heartbeat:
    """Return the news that a symbol's stream is live, disconnected or halted."""
    return Heartbeat(exchange="binance", symbol=symbol, complete_until_us=START_US, state=state)


def values(events: Iterable[Any]) -> list[Any]:
    """Return events without what a storage numbers itself."""
    plain: dict[type, dict[str, Any]] = {Candle: {"job": None, "revision": 0}, Trade: {"job": None}}
    return [msgspec.structs.replace(event, **plain[type(event)]) for event in events]


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SQLAlchemyStorage]:
    """A new SQLite file."""
    async with SQLAlchemyStorage(f"sqlite+aiosqlite:///{tmp_path}/market.db") as storage:
        yield storage


@pytest.fixture(scope="session")
def pipeline(
    runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Config, RoleProcesses]]:
    """A processor and a sink at work, for the session; keep to symbols of your own."""
    namespace = f"t{uuid.uuid4().hex[:12]}"
    base = Config(namespace=namespace, data_dir=str(tmp_path_factory.mktemp("pipeline")))
    config = replace(
        base,
        kafka=replace(base.kafka, bootstrap=runtime.kafka),
        clickhouse=replace(base.clickhouse, url=runtime.clickhouse),
        topics=replace(base.topics, partitions=2),
        processor=replace(base.processor, commit_interval_s=0.1),
        sink=replace(base.sink, batch_age_s_max=0.1),
        metrics=replace(base.metrics, enabled=False),
        history=replace(base.history, limit_share=0.0, retry_delay_s=0.01),
    )
    roles = RoleProcesses(Path(config.data_dir) / "logs")
    with asyncio.Runner() as runner:
        runner.run(ensure_topics(config))
        try:
            for role in ("sink", "processor"):
                roles.start(role, role, config)
            yield config, roles
        finally:
            runner.run(roles.stop_all())
