"""Recordings made on the spot, and real ccxt.pro exchanges that talk to a replay exchange."""

import asyncio
import csv
import gzip
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt.pro
import pytest

from alpha_pulse.producers.connection.client import point_at
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.market import RecordedCandle, TradeRow
from alpha_pulse.replay.markets.recorded import RecordedMarket
from alpha_pulse.replay.markets.recording import Recording
from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from tests.patience import PATIENCE_S

MINUTE_US = 60_000_000
BEGIN_US = 1_723_161_240_000_000  # a minute
# ccxt logs in before it subscribes to OKX's trades-all; any key will do here.
LOGIN = {"apiKey": "key", "secret": "c2VjcmV0", "password": "word"}
Connect = Callable[..., AbstractAsyncContextManager[Any]]


def expected_candles(rows: list[TradeRow], end_us: int) -> list[RecordedCandle]:
    """Return the one-minute candles, computed apart from the code under test."""
    candles = []
    first_us = rows[0].trade_time_us - rows[0].trade_time_us % MINUTE_US
    close = rows[0].price
    for open_us in range(first_us, end_us - MINUTE_US + 1, MINUTE_US):
        inside = [row for row in rows if open_us <= row.trade_time_us < open_us + MINUTE_US]
        prices = [row.price for row in inside] or [close]
        close = prices[-1]
        volume = sum((Decimal(row.amount) for row in inside), Decimal("0.00000000"))
        high, low = max(prices, key=Decimal), min(prices, key=Decimal)
        count = len(inside)
        candles.append(RecordedCandle(open_us, prices[0], high, low, close, f"{volume:f}", count))
    return candles


def make_recording(minutes: int = 6, seed: int = 7, trades_per_minute: int = 120) -> Recording:
    """Return a recording of so many whole minutes, some of them without a trade."""
    market = SyntheticMarket(
        "BTC/USDT",
        seed,
        begin_us=BEGIN_US,
        trades_per_minute=trades_per_minute,
        quiet_minutes=0.3,
    )
    end_us = BEGIN_US + minutes * MINUTE_US
    rows = list(market.rows(0, market.position_at(end_us)))
    candles = expected_candles(rows, end_us)
    return Recording("binance", "spot", "BTC/USDT", "made by a test", tuple(rows), tuple(candles))


def write_recording(folder: Path, recording: Recording) -> Path:
    """Write a recording in the format that is loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "exchange": recording.exchange,
        "market": recording.market,
        "symbol": recording.symbol,
        "timeframe": "1m",
        "source": recording.source,
    }
    (folder / "recording.json").write_text(json.dumps(about))
    trades = io.StringIO()
    writer = csv.writer(trades, lineterminator="\n")
    writer.writerow(["trade_id", "trade_time_us", "price", "amount", "side"])
    writer.writerows(recording.trades)
    (folder / "trades.csv.gz").write_bytes(gzip.compress(trades.getvalue().encode()))
    lines = ["open_time_us,open,high,low,close,volume,trade_count"]
    for candle in recording.candles:
        count = "" if candle.trade_count is None else str(candle.trade_count)
        prices = [candle.open, candle.high, candle.low, candle.close, candle.volume, count]
        lines.append(",".join([str(candle.open_time_us), *prices]))
    (folder / "candles-1m.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def recording() -> Recording:
    """Six minutes of a made-up market with quiet minutes in it."""
    return make_recording()


@pytest.fixture
def market(recording: Recording) -> RecordedMarket:
    """The recording as a market."""
    return RecordedMarket(recording)


@pytest.fixture
def connect() -> Connect:
    """Open a real ccxt.pro exchange whose traffic goes to a replay exchange."""

    @asynccontextmanager
    async def opened(exchange: ReplayExchange, **options: Any) -> AsyncIterator[Any]:
        name = exchange.dialect.name
        client = getattr(ccxt.pro, name)(
            {
                "enableRateLimit": False,
                "timeout": 5_000,
                "options": {"tradesLimit": 1_000_000, "OHLCVLimit": 10_000},
                **(LOGIN if name == "okx" else {}),
                **options,
            }
        )
        client.has["fetchCurrencies"] = False
        client.number = str
        point_at(client, exchange.url)
        try:
            yield client
        finally:
            await client.close()

    return opened


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait until something holds; fail after a while."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (other people's state has no event)
            await asyncio.sleep(0.01)


async def watching(call: Callable[[], Awaitable[Any]]) -> None:
    """Call a watch method again and again until cancelled."""
    while True:
        await call()
