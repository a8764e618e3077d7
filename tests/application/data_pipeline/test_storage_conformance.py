"""One suite for every Storage: what programs may rely on, whichever one they use.

A further storage is one more entry of `STORAGES`: a function that opens it, empty, as an
asynchronous context manager. A storage may number revisions itself and add a job, so that values
alone are compared.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from itertools import count
from typing import Any, Self

import pytest
from msgspec.structs import replace

from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.interfaces import Storage
from alpha_pulse.contracts.market import HOUR_US, MINUTE_US
from alpha_pulse.data_pipeline.storage.pipeline import PipelineStorage
from alpha_pulse.sinks.library.sql_storage import SQLAlchemyStorage
from tests.application.data_pipeline.conftest import (
    START_US,
    MemoryStorage,
    make_candle,
    make_trade,
    values,
)

Open = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Storage]]


def open_sqlite(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Storage]:
    folder = request.getfixturevalue("tmp_path")
    return SQLAlchemyStorage(f"sqlite+aiosqlite:///{folder}/market.db")


def open_memory(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Storage]:
    return MemoryStorage()


def open_pipeline(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Storage]:
    config, _ = request.getfixturevalue("pipeline")
    return ApartStorage(PipelineStorage(config), f"-{next(_numbers)}")


STORAGES: dict[str, Open] = {
    "sqlite": open_sqlite,
    "memory": open_memory,
    "pipeline": open_pipeline,
}
_numbers = count(1)


class ApartStorage:
    """The one running pipeline, empty for each test: exchanges are given names of their own."""

    def __init__(self, storage: PipelineStorage, apart: str) -> None:
        self._storage = storage
        self._apart = apart

    async def __aenter__(self) -> Self:
        await self._storage.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._storage.close()

    async def flush(self) -> None:
        await self._storage.flush()

    async def save_candles(self, candles: Iterable[Candle]) -> int:
        return await self._storage.save_candles(map(self._moved, candles))

    async def save_trades(self, trades: Iterable[Trade]) -> int:
        return await self._storage.save_trades(map(self._moved, trades))

    async def load_candles(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[Candle]:
        found = await self._storage.load_candles(
            exchange + self._apart, symbol, timeframe, start_us, end_us
        )
        return [replace(candle, exchange=exchange) for candle in found]

    async def load_trades(
        self, exchange: str, symbol: str, start_us: int, end_us: int
    ) -> list[Trade]:
        found = await self._storage.load_trades(exchange + self._apart, symbol, start_us, end_us)
        return [replace(trade, exchange=exchange) for trade in found]

    async def open_times_us(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[int]:
        exchange += self._apart
        return await self._storage.open_times_us(exchange, symbol, timeframe, start_us, end_us)

    def _moved(self, event: Any) -> Any:
        return replace(event, exchange=event.exchange + self._apart)


def kept(storage: Storage, events: list[Any]) -> list[Any]:
    """Return events as the storage tells them: the pipeline leaves zeros at the end out."""
    if not isinstance(storage, ApartStorage):
        return events
    sums = ("volume", "quote_volume", "buy_volume")
    names = ("open", "high", "low", "close", *sums, "price", "amount")
    shorter = []
    for event in events:
        texts = {n: getattr(event, n) for n in names if getattr(event, n, None) is not None}
        shorter.append(replace(event, **{n: t.rstrip("0").rstrip(".") for n, t in texts.items()}))
    return shorter


@pytest.fixture(params=list(STORAGES))
def closed_storage(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Storage]:
    # Apart from opening it: servers are started while no event loop runs.
    return STORAGES[request.param](request)


@pytest.fixture
async def storage(
    closed_storage: AbstractAsyncContextManager[Storage],
) -> AsyncIterator[Storage]:
    async with closed_storage as opened:
        yield opened


async def stored_candles(
    storage: Storage, symbol: str = "BTC/USDT", timeframe: str = "1m", hours: int = 24
) -> list[Candle]:
    end_us = START_US + hours * HOUR_US
    return values(await storage.load_candles("binance", symbol, timeframe, START_US, end_us))


async def test_it_is_a_storage(storage: Storage) -> None:
    assert isinstance(storage, Storage)


async def test_candles_come_back_to_the_last_digit(storage: Storage) -> None:
    saved = [
        make_candle(0),
        make_candle(1, open="61850.00000001", quote_volume=None, buy_volume=None),
    ]
    assert await storage.save_candles(saved) == 2
    await storage.flush()
    assert await stored_candles(storage) == kept(storage, saved)


async def test_trades_come_back_to_the_last_digit_by_time_then_id(storage: Storage) -> None:
    at_once = START_US + 9_000_000
    saved = [make_trade(number) for number in range(5)]
    saved += [
        make_trade(9, trade_time_us=at_once),
        make_trade(10, trade_time_us=at_once, side="sell"),
    ]
    assert await storage.save_trades(saved) == 7
    await storage.flush()
    found = await storage.load_trades("binance", "BTC/USDT", START_US, START_US + HOUR_US)
    assert values(found) == kept(storage, saved)


async def test_saving_again_changes_nothing(storage: Storage) -> None:
    candles = [make_candle(number) for number in range(10)]
    for _ in range(2):
        await storage.save_candles(candles)
        await storage.flush()
    assert await stored_candles(storage) == kept(storage, candles)


async def test_what_is_saved_last_stands(storage: Storage) -> None:
    await storage.save_candles([make_candle(0, close="61850.00000000")])
    await storage.flush()
    last = make_candle(0, close="61851.00000000")
    await storage.save_candles([last])
    await storage.flush()
    assert await stored_candles(storage) == kept(storage, [last])


async def test_open_times_say_what_is_there_in_a_half_open_window(storage: Storage) -> None:
    await storage.save_candles([make_candle(number) for number in (0, 1, 3, 4)])
    await storage.flush()
    found = await storage.open_times_us(
        "binance", "BTC/USDT", "1m", START_US + MINUTE_US, START_US + 4 * MINUTE_US
    )
    assert found == [START_US + MINUTE_US, START_US + 3 * MINUTE_US]


async def test_symbols_timeframes_and_testnets_are_kept_apart(storage: Storage) -> None:
    await storage.save_candles(
        [
            make_candle(0),
            make_candle(0, symbol="ETH/USDT", close="61840.00000000"),
            make_candle(0, timeframe="1h", close="61860.00000001"),
            make_candle(0, exchange="binance-testnet", close="61870.00000000"),
        ]
    )
    await storage.flush()
    assert [found.close for found in await stored_candles(storage)] == ["61850.00000001"]
    hourly = await stored_candles(storage, timeframe="1h")
    assert [found.close for found in hourly] == ["61860.00000001"]


async def test_nothing_saved_is_nothing_stored(storage: Storage) -> None:
    assert await storage.save_candles([]) == 0
    assert await storage.save_trades([]) == 0
    await storage.flush()
    assert await stored_candles(storage) == []
    assert await storage.load_trades("binance", "BTC/USDT", START_US, START_US + HOUR_US) == []
