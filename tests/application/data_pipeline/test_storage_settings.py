"""`StorageConfig` by its effect, on SQLite, which is everywhere."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from alpha_pulse.contracts.errors import StorageError
from alpha_pulse.contracts.market import HOUR_US
from alpha_pulse.data_pipeline import SQLAlchemyStorage, StorageConfig
from tests.application.data_pipeline.conftest import START_US, make_candle


def opened(tmp_path: Path, **settings: Any) -> SQLAlchemyStorage:
    url = f"sqlite+aiosqlite:///{tmp_path}/market.db"
    return SQLAlchemyStorage(url, config=StorageConfig(**settings))


async def load(storage: SQLAlchemyStorage) -> int:
    return len(
        await storage.load_candles("binance", "BTC/USDT", "1m", START_US, START_US + HOUR_US)
    )


@pytest.mark.parametrize("most", [1, 3])
async def test_no_more_connections_than_allowed_are_in_use(tmp_path: Path, most: int) -> None:
    async with opened(tmp_path, max_connections=most) as storage:
        await storage.save_candles([make_candle(0)])
        assert storage._engine is not None
        used, highest = 0, 0

        @sa.event.listens_for(storage._engine.sync_engine, "checkout")
        def take(*arguments: Any) -> None:
            nonlocal used, highest
            used += 1
            highest = max(highest, used)

        @sa.event.listens_for(storage._engine.sync_engine, "checkin")
        def give_back(*arguments: Any) -> None:
            nonlocal used
            used -= 1

        assert await asyncio.gather(*(load(storage) for _ in range(12))) == [1] * 12
    assert highest == most


async def test_after_the_timeout_a_call_is_an_error_that_names_market_and_window(
    tmp_path: Path,
) -> None:
    # Long enough for a busy machine to open a file.
    async with opened(tmp_path, timeout=2.0) as storage:
        await storage.flush()
        other = sqlite3.connect(tmp_path / "market.db")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="store 2 candles") as raised:
            await storage.save_candles([make_candle(0), make_candle(1)])
        other.rollback()
        other.close()
        assert "binance BTC/USDT 1m from 2026-01-01T00:00:00Z" in str(raised.value)
        assert await storage.save_candles([make_candle(0)]) == 1


@pytest.mark.parametrize("batch_size", [1, 4, 100])
async def test_a_batch_is_a_transaction(tmp_path: Path, batch_size: int) -> None:
    async with opened(tmp_path, batch_size=batch_size) as storage:
        await storage.flush()
        assert storage._engine is not None
        commits = 0

        @sa.event.listens_for(storage._engine.sync_engine, "commit")
        def count(*arguments: Any) -> None:
            nonlocal commits
            commits += 1

        await storage.save_candles([make_candle(number) for number in range(10)])
        assert commits == -(-10 // batch_size)
