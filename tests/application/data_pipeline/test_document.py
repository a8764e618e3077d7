"""A document about the library, whose python blocks run verbatim: ALPHA_PULSE_DOCUMENT names it.

Nothing is defined beforehand but the names that a block leaves undefined, and the environment
points at the replay exchange. test_library_page.py holds the same calls without the document.
"""

import asyncio
import importlib
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from alpha_pulse.contracts.market import DAY_US, HOUR_US
from alpha_pulse.data_pipeline import (
    DataFetchConfig,
    ExchangeFetcher,
    ExchangeType,
    HistoricalDataManager,
    MarketDataConfig,
    SQLAlchemyStorage,
    StorageConfig,
)
from alpha_pulse.data_pipeline.core import errors
from alpha_pulse.data_pipeline.core.models import Candle, MarketUpdate
from alpha_pulse.replay.exchange.faults import RestFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from tests.application.data_pipeline import blocks
from tests.application.data_pipeline.blocks import run_part, undefined_names

HOURS = 24


@pytest.fixture
def document() -> str:
    """The document's text."""
    path = os.environ.get("ALPHA_PULSE_DOCUMENT")
    if not path:
        pytest.skip("needs the document: set ALPHA_PULSE_DOCUMENT to its path")
    return Path(path).read_text()


@pytest.fixture
def code(document: str) -> dict[str, str]:
    """The document's blocks, in its order, by what each is about."""
    found = blocks.python_blocks(document)
    abouts = ("RealTimeDataManager", "StorageConfig", "except", "validate_ohlcv")
    assert len(found) == len(abouts), "a block that no test runs"
    named = dict(zip(abouts, found, strict=True))
    for about, block in named.items():
        assert about in block, f"expected a block about {about}, found:\n{block}"
    return named


@pytest.fixture
async def exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ReplayExchange]:
    """A live exchange of two symbols, four days old; the environment points at it."""
    begin_us = time.time_ns() // 1000 // HOUR_US * HOUR_US - 4 * DAY_US
    markets = [
        SyntheticMarket(symbol, 3, begin_us=begin_us, trades_per_minute=60, quiet_minutes=0.0)
        for symbol in ("BTC/USDT", "ETH/USDT")
    ]
    monkeypatch.chdir(tmp_path)
    async with ReplayExchange(markets, live=True) as running:
        monkeypatch.setenv("ALPHA_PULSE_EXCHANGE_URL", running.url)
        yield running


def window(exchange: ReplayExchange) -> tuple[int, int]:
    start_us = exchange.feeds[0].market.begin_us + HOUR_US
    return start_us, start_us + HOURS * HOUR_US


def aware(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC)


def summed(exchange: ReplayExchange, open_us: int) -> tuple[Any, ...]:
    """Return an hour's candle from the market's trades, by nothing but sums."""
    market = exchange.feeds[0].market
    rows = market.rows(market.position_at(open_us), market.position_at(open_us + HOUR_US))
    prices = [Decimal(row.price) for row in rows]
    volume = sum(Decimal(row.amount) for row in rows)
    return open_us, prices[0], max(prices), min(prices), prices[-1], volume, len(rows)


def shown(candle: Candle) -> tuple[Any, ...]:
    texts = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    return candle.open_time_us, *map(Decimal, texts), candle.trade_count


async def test_history_is_stored_and_both_symbols_are_followed(
    code: dict[str, str], exchange: ReplayExchange, tmp_path: Path
) -> None:
    start_us, end_us = window(exchange)
    block = code["RealTimeDataManager"]
    names: dict[str, Any] = {
        "ExchangeType": ExchangeType,
        "start_time": aware(start_us),
        "end_time": aware(end_us),
    }
    assert undefined_names(block) == set(names)
    await run_part(block, names, 1)
    live, storage = names["realtime_mgr"], names["storage"]
    updates: list[MarketUpdate] = []
    both = asyncio.Event()

    def told(update: MarketUpdate) -> None:
        updates.append(update)
        if {u.symbol for u in updates if u.trades} == {"BTC/USDT", "ETH/USDT"}:
            both.set()

    live.subscribe(told)
    try:
        await asyncio.wait_for(both.wait(), 120)
        assert live.latest("BTC/USDT").trade is not None
        assert live.latest("ETH/USDT").state == "live"
    finally:
        await live.stop()
    candles = await storage.load_candles("binance", "BTC/USDT", "1h", 0, end_us + DAY_US)
    assert [shown(candle) for candle in candles] == [
        summed(exchange, open_us) for open_us in range(start_us, end_us, HOUR_US)
    ]
    again = await names["historical_mgr"].ensure_data_available(
        ExchangeType.BINANCE, "BTC/USDT", "1h", names["start_time"], names["end_time"]
    )
    assert (again.had, again.fetched, again.is_complete) == (HOURS, 0, True)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        stored = await storage.load_trades("binance-testnet", symbol, 0, 2**62)
        ids = [int(trade.trade_id) for trade in stored]
        published = [row.trade_id for row in exchange.ledger.published(symbol)]
        assert ids == list(range(ids[0], ids[-1] + 1)), "not one is missing in between"
        assert set(ids) <= set(published)
        seen = [t.trade_id for u in updates if u.symbol == symbol for t in u.trades]
        assert set(map(int, seen)) <= set(ids)
    await storage.close()
    assert "alpha_pulse.db" in os.listdir(tmp_path)
    assert not [t for t in asyncio.all_tasks() if "live data" in t.get_name()]


async def test_the_configurations_hold_their_values(code: dict[str, str]) -> None:
    block = code["StorageConfig"]
    assert undefined_names(block) == set()
    names: dict[str, Any] = {}
    await run_part(block, names, 2)
    assert names["storage_config"] == StorageConfig(500, 10, 30.0)
    assert names["fetch_config"] == DataFetchConfig(1000, 3, 1.0)
    assert names["market_config"] == MarketDataConfig(1.0, 100, 60)
    # They are what the parts take.
    assert SQLAlchemyStorage(config=names["storage_config"]).config.max_connections == 10
    assert ExchangeFetcher(names["fetch_config"]).config.max_retries == 3


class Elided:
    """Stands where a block writes `(...)`: the real manager, with the arguments that it elides."""

    def __init__(self, manager: HistoricalDataManager, *arguments: Any) -> None:
        self._manager = manager
        self._arguments = arguments

    async def ensure_data_available(self, elided: Any) -> None:
        assert elided is ...
        await self._manager.ensure_data_available(*self._arguments)


async def logged(
    code: dict[str, str], historical_mgr: Any, caplog: pytest.LogCaptureFixture
) -> str:
    """Run the block about errors; return the one line that it logs."""
    block = code["except"]
    names = {
        "historical_mgr": historical_mgr,
        "logger": logging.getLogger("document"),
        **{name: getattr(errors, name) for name in blocks.ERRORS},
    }
    assert undefined_names(block) == set(names)
    caplog.clear()
    await run_part(block, names, 3)
    (record,) = [record for record in caplog.records if record.name == "document"]
    assert record.levelno == logging.ERROR
    return record.getMessage()


def about(exchange: ReplayExchange, symbol: str = "BTC/USDT") -> str:
    start, end = (f"{aware(us):%Y-%m-%dT%H:%M:%SZ}" for us in window(exchange))
    return f"(binance {symbol} 1h from {start} to {end})"


async def test_a_storage_that_fails_is_logged_as_such(
    code: dict[str, str],
    exchange: ReplayExchange,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    (tmp_path / "alpha_pulse.db").write_bytes(b"no database, but a file of that name" * 300)
    start, end = map(aware, window(exchange))
    manager = HistoricalDataManager(SQLAlchemyStorage(), ExchangeFetcher())
    line = await logged(
        code, Elided(manager, ExchangeType.BINANCE, "BTC/USDT", "1h", start, end), caplog
    )
    assert line.startswith("Storage error: expected to open the database")
    assert "file is not a database" in line
    assert "check the address" in line, "what to do next"
    assert line.endswith(about(exchange))


async def test_an_exchange_that_fails_is_logged_as_such(
    code: dict[str, str], exchange: ReplayExchange, caplog: pytest.LogCaptureFixture
) -> None:
    start, end = map(aware, window(exchange))
    for number in range(3):
        exchange.faults.add(RestFault("http500", number, path="klines"))
    async with SQLAlchemyStorage() as storage:
        fetcher = ExchangeFetcher(DataFetchConfig(max_retries=2, retry_delay=0.001))
        manager = HistoricalDataManager(storage, fetcher)
        line = await logged(
            code, Elided(manager, ExchangeType.BINANCE, "BTC/USDT", "1h", start, end), caplog
        )
        stored = await storage.load_candles("binance", "BTC/USDT", "1h", 0, 2**62)
    assert line.startswith("Data fetch error: expected")
    assert "3 attempts" in line
    assert "try again later" in line, "what to do next"
    assert line.endswith(about(exchange))
    assert stored == []


async def test_a_wrong_symbol_is_logged_as_such(
    code: dict[str, str], exchange: ReplayExchange, caplog: pytest.LogCaptureFixture
) -> None:
    start, end = map(aware, window(exchange))
    async with SQLAlchemyStorage() as storage:
        manager = HistoricalDataManager(storage, ExchangeFetcher())
        line = await logged(
            code, Elided(manager, ExchangeType.BINANCE, "BTCUSDT", "1h", start, end), caplog
        )
        assert line.startswith("Validation error: expected a symbol such as 'BTC/USDT'")
        assert "use ccxt's unified symbol" in line, "what to do next"
        assert line.endswith(about(exchange, "BTCUSDT"))
        # And the block as it stands, its `...` as the only argument of the real manager.
        line = await logged(code, manager, caplog)
    assert line.startswith("Validation error: expected the arguments exchange, symbol, timeframe")
    assert exchange.ledger.rest_requests.total() == 0


GOOD: dict[str, Any] = {
    "timeframe": "1h",
    "valid_timeframes": ["1m", "1h", "1d"],
    "symbol": "BTC/USDT",
    "data": [[1767225600000, "1.0", "1.2", "0.9", "1.1", "7.5"]],
}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({}, None),
        ({"timeframe": "7m"}, "found '7m'; use one of 1m 1h 1d"),
        ({"valid_timeframes": ["1m"]}, "found '1h'; use one of 1m"),
        ({"symbol": "BTCUSDT"}, "'BTC/USDT'"),
        ({"data": [[1767225600000, "1.0", "0.8", "0.9", "1.1", "7.5"]]}, "low <= open"),
        ({"data": GOOD["data"] * 2}, "ascending"),
    ],
    ids=["good", "timeframe", "valid_timeframes", "symbol", "high below open", "twice"],
)
async def test_the_checks_refuse_what_is_wrong_and_nothing_else(
    code: dict[str, str], bad: dict[str, Any], says: str | None
) -> None:
    block = code["validate_ohlcv"]
    assert undefined_names(block) == set(GOOD)
    if says is None:
        await run_part(block, dict(GOOD), 4)
        return
    with pytest.raises(errors.ValidationError, match=says):
        await run_part(block, {**GOOD, **bad}, 4)


def modules_of(lines: Sequence[str]) -> set[str]:
    """Return the modules of a drawn tree, `folder.module`."""
    found, folder = set(), ""
    for line in lines:
        if match := re.search(r"── (\w+)/", line):
            folder = match[1]
        elif match := re.search(r"── (\w+)\.py", line):
            found.add(f"{folder}.{match[1]}")
    return found


def test_every_module_of_the_tree_is_there(document: str) -> None:
    found = modules_of(document.splitlines())
    assert found == blocks.MODULES
    for name in found:
        importlib.import_module(f"alpha_pulse.data_pipeline.{name}")


def test_the_document_calls_what_the_page_of_the_library_calls(document: str) -> None:
    """So that the tests of the page hold the same ground where the document is not at hand."""
    code = blocks.python_blocks(document)
    assert blocks.calls_of(code) - {("error", 1, ())} == blocks.CALLS
    assert blocks.imports_of(code) == blocks.IMPORTS
    assert blocks.excepts_of(code) == [blocks.ERRORS]
