"""SQLAlchemyStorage on SQLite and a real PostgreSQL: exact, idempotent, bounded, clear errors."""

import asyncio
import contextlib
import glob
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.errors import ConfigError, StorageError
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.sinks.library import sql_storage, sql_tables
from alpha_pulse.sinks.library.sql_storage import SQLAlchemyStorage
from alpha_pulse.sinks.library.sql_tables import CANDLES
from alpha_pulse.sinks.library.storage_config import StorageConfig
from tests.patience import PATIENCE_S

MINUTE_US = 60_000_000
START_US = 1_794_700_800_000_000
CANDLE: Any = next(iter(EXAMPLES[Candle].values()))
TRADE: Any = next(iter(EXAMPLES[Trade].values()))
BASE: Any = msgspec.structs.replace(
    CANDLE, exchange="binance", symbol="BTC/USDT", timeframe="1m", open_time_us=START_US, revision=1
)


def candle(number: int = 0, **changes: Any) -> Candle:
    changes = {"open_time_us": START_US + number * MINUTE_US, **changes}
    event: Candle = msgspec.structs.replace(BASE, **changes)
    return event


def trade(number: int, **changes: Any) -> Trade:
    changes = {"exchange": "binance", "symbol": "BTC/USDT", **changes}
    changes = {"trade_id": str(number), "trade_time_us": START_US + number, **changes}
    event: Trade = msgspec.structs.replace(TRADE, **changes)
    return event


def _postgres_binaries() -> str | None:
    found = shutil.which("initdb") or next(
        iter(glob.glob("/usr/lib/postgresql/*/bin/initdb")), None
    )
    return str(Path(found).resolve().parent) if found else None


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """A PostgreSQL of our own in a temporary directory, or ALPHA_PULSE_TEST_POSTGRESQL."""
    given_url = os.environ.get("ALPHA_PULSE_TEST_POSTGRESQL")
    if given_url:
        yield given_url
        return
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    # PostgreSQL refuses to run as root.
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="alpha-pulse-pg-") as folder:
        if user:
            shutil.chown(folder, "postgres", "postgres")
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **user}
        quiet["cwd"] = folder
        subprocess.run(
            [f"{binaries}/initdb", "-D", f"{folder}/data", "-U", "test", "-A", "trust", "-N"],
            check=True,
            **quiet,
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-c port={port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
        control = [f"{binaries}/pg_ctl", "-D", f"{folder}/data", "-w"]
        subprocess.run([*control, "-o", options, "start"], check=True, **quiet)
        try:
            yield f"postgresql+asyncpg://test@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)


@pytest.fixture(params=["sqlite", "sqlite in memory", "postgresql", "plain SQL"])
async def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SQLAlchemyStorage]:
    url = f"sqlite+aiosqlite:///{tmp_path}/market.db"
    if request.param == "sqlite in memory":
        url = "sqlite+aiosqlite://"
    elif request.param == "postgresql":
        url = request.getfixturevalue("postgresql")
    elif request.param == "plain SQL":
        monkeypatch.setattr(sql_storage, "upsert", sql_tables.upsert_row_by_row)
    async with SQLAlchemyStorage(url, StorageConfig(batch_size=7)) as opened:
        yield opened
        assert opened._engine is not None
        async with opened._engine.begin() as connection:
            await connection.run_sync(sql_tables.metadata.drop_all)


async def load(storage: SQLAlchemyStorage, count: int = 1000) -> list[Candle]:
    end_us = START_US + count * MINUTE_US
    return await storage.load_candles("binance", "BTC/USDT", "1m", START_US, end_us)


async def test_what_was_saved_comes_back_to_the_last_digit(storage: SQLAlchemyStorage) -> None:
    saved = [
        candle(0, open="0.00000001", volume="9999999999999999999999999.000000000001"),
        candle(1, close="61837.63000000", quote_volume=None, first_trade_id=None),
    ]
    assert await storage.save_candles(saved) == 2
    assert await load(storage) == saved
    trades = [trade(1, price="1.10"), trade(2, amount="100000000000000000000")]
    await storage.save_trades(trades)
    found = await storage.load_trades("binance", "BTC/USDT", START_US, START_US + MINUTE_US)
    assert found == trades


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_several_open_a_new_database_at_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for number in range(5):
        url = f"sqlite+aiosqlite:///{tmp_path}/new-{number}.db"
        if kind == "postgresql":
            url = request.getfixturevalue("postgresql")
        storages = [SQLAlchemyStorage(url) for _ in range(8)]
        try:
            await asyncio.gather(*(storage.open() for storage in storages))
            await storages[0].save_candles([candle()])
            assert len(await load(storages[-1])) == 1
            engine = storages[0]._engine
            assert engine is not None
            async with engine.begin() as connection:
                await connection.run_sync(sql_tables.metadata.drop_all)
        finally:
            await asyncio.gather(*(storage.close() for storage in storages))


async def test_saving_twice_changes_nothing(storage: SQLAlchemyStorage) -> None:
    candles, trades = [candle(number) for number in range(20)], [trade(n) for n in range(20)]
    for _ in range(2):
        await storage.save_candles(candles)
        await storage.save_trades(trades)
    assert await load(storage) == candles
    found = await storage.load_trades("binance", "BTC/USDT", START_US, START_US + 20)
    assert found == trades


async def test_the_highest_revision_stands_whatever_the_order(storage: SQLAlchemyStorage) -> None:
    await storage.save_candles([candle(close="2", revision=5), candle(close="3", revision=4)])
    await storage.save_candles([candle(close="4", revision=3)])
    assert [found.close for found in await load(storage)] == ["2"]
    await storage.save_candles([candle(close="5", revision=6)])
    assert [found.close for found in await load(storage)] == ["5"]


async def test_a_window_is_half_open_and_ascending(storage: SQLAlchemyStorage) -> None:
    await storage.save_candles([candle(number) for number in (3, 1, 0, 2)])
    window = (START_US + MINUTE_US, START_US + 3 * MINUTE_US)
    found = await storage.open_times_us("binance", "BTC/USDT", "1m", *window)
    assert found == [START_US + MINUTE_US, START_US + 2 * MINUTE_US]
    assert await storage.open_times_us("binance-testnet", "BTC/USDT", "1m", *window) == []


async def test_trades_of_one_time_are_ordered_by_number(storage: SQLAlchemyStorage) -> None:
    await storage.save_trades([trade(number, trade_time_us=START_US) for number in (10, 9, 100)])
    found = await storage.load_trades("binance", "BTC/USDT", START_US, START_US + 1)
    assert [one.trade_id for one in found] == ["9", "10", "100"]


async def test_many_savers_at_once_lose_nothing(storage: SQLAlchemyStorage) -> None:
    parts = [[candle(number) for number in range(k, 200, 8)] for k in range(8)]
    await asyncio.gather(*(storage.save_candles(part) for part in parts))
    assert await load(storage) == [candle(number) for number in range(200)]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30), st.integers(1, 9))
async def test_any_order_of_any_revisions_ends_the_same(
    versions: list[tuple[int, int]], batch_size: int
) -> None:
    # Versions of one revision are identical, as the pipeline promises.
    candles = [candle(n, revision=revision, close=str(revision + 1)) for n, revision in versions]
    async with SQLAlchemyStorage("sqlite+aiosqlite://", StorageConfig(batch_size)) as storage:
        await storage.save_candles(candles)
        found = {one.open_time_us: one.revision for one in await load(storage)}
    expected: dict[int, int] = {}
    for one in candles:
        expected[one.open_time_us] = max(one.revision, expected.get(one.open_time_us, 0))
    assert found == expected


async def test_a_batch_size_is_the_rows_of_one_transaction(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/market.db"
    async with SQLAlchemyStorage(url, StorageConfig(batch_size=10)) as storage:
        assert storage._engine is not None
        sizes: list[int] = []

        @sa.event.listens_for(storage._engine.sync_engine, "before_cursor_execute")
        def count(*arguments: Any) -> None:
            parameters = arguments[3]
            if arguments[2].startswith("INSERT"):
                sizes.append(len(parameters) if isinstance(parameters, list) else 1)

        await storage.save_candles([candle(number) for number in range(25)])
    assert sizes == [10, 10, 5]


async def test_no_more_connections_than_allowed(postgresql: str) -> None:
    config = StorageConfig(max_connections=2, timeout=20)
    async with SQLAlchemyStorage(postgresql, config) as storage:
        assert storage._engine is not None
        await asyncio.gather(*(load(storage) for _ in range(12)))
        assert storage._engine.pool.checkedin() <= 2  # type: ignore[attr-defined]
        async with storage._engine.begin() as one, storage._engine.begin():
            query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            assert (await one.execute(sa.text(query))).scalar() == 2


async def test_a_timeout_is_an_error_that_says_what_was_asked(postgresql: str) -> None:
    async with SQLAlchemyStorage(postgresql, StorageConfig(timeout=0.3)) as storage:
        assert storage._engine is not None
        async with storage._engine.begin() as other:
            await other.execute(sa.text("LOCK TABLE candles IN ACCESS EXCLUSIVE MODE"))
            with pytest.raises(StorageError, match=r"read candles.*0\.3 s.*binance BTC/USDT 1m"):
                await load(storage)
        # It works again; a busy machine may need more than one call of 0.3 s.
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(StorageError):
                    assert await load(storage) == []
                    break


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql+asyncpg://u:secret@127.0.0.1:1/x", StorageError),
        ("sqlite+aiosqlite:////nowhere/at/all/market.db", StorageError),
        ("sqlite:///sync.db", ConfigError),
        ("postgresql+nodriver://x/y", ConfigError),
    ],
)
async def test_an_address_that_can_not_work_is_a_clear_error(
    url: str, error: type[Exception]
) -> None:
    storage = SQLAlchemyStorage(url)
    with pytest.raises(error, match="expected") as raised:
        await storage.save_candles([candle()])
    assert "secret" not in str(raised.value)
    # The driver's thread of a connection that failed still speaks to this loop: let it end first.
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 10)


@pytest.mark.parametrize("field", ["batch_size", "max_connections", "timeout"])
def test_a_setting_of_0_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        StorageConfig(**{field: 0})


async def test_without_arguments_it_is_a_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with SQLAlchemyStorage() as storage:
        await storage.save_candles([candle()])
    assert (tmp_path / "alpha_pulse.db").exists()
    async with SQLAlchemyStorage() as storage:
        assert await load(storage) == [candle()]


def test_every_field_of_the_events_has_a_column() -> None:
    assert {column.name for column in CANDLES.columns} == set(Candle.__struct_fields__)
