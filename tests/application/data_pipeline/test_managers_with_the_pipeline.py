"""The same managers over the pipeline: coverage from ClickHouse, writing through Kafka."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.kafka.reader import read
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.contracts.topics import CANDLES
from alpha_pulse.data_pipeline import (
    DataFetchConfig,
    ExchangeDataProvider,
    ExchangeFetcher,
    HistoricalDataManager,
    MarketDataConfig,
    PipelineStorage,
    RealTimeDataManager,
)
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S

MINUTES = 40
BEGIN = datetime.fromtimestamp(BEGIN_US // 1_000_000, UTC)


def market(symbol: str, minutes: int = MINUTES) -> SyntheticMarket:
    return SyntheticMarket(
        symbol, 3, end_us=BEGIN_US + minutes * MINUTE_US, trades_per_minute=20, quiet_minutes=0.0
    )


async def test_history_goes_through_kafka_and_is_complete_in_clickhouse(pipeline: Any) -> None:
    config, _ = pipeline
    symbol = "LIBA/USDT"
    async with (
        ReplayExchange([market(symbol)], at_end=True) as exchange,
        PipelineStorage(config) as storage,
    ):
        producer = ProducerConfig(exchange_url=exchange.url, clock="event")
        fetcher = ExchangeFetcher(DataFetchConfig(batch_size=10), producer=producer)
        manager = HistoricalDataManager(storage, fetcher)
        window = (BEGIN, BEGIN + timedelta(minutes=30))
        report = await manager.ensure_data_available("binance", symbol, "1m", *window)
        assert (report.had, report.fetched, report.is_complete) == (0, 30, True)
        again = await manager.ensure_data_available("binance", symbol, "1m", *window)
        assert (again.had, again.fetched, again.is_complete) == (30, 0, True)
        candles = await manager.get_historical_data("binance", symbol, "1m", *window)
        own = exchange.feeds[0].candles
        for candle in candles:
            expected = own.closed_minute(candle.open_time_us)
            assert expected is not None
            assert float(candle.close) == float(expected.close)
            assert candle.trade_count == expected.trade_count
    seen = set()
    async with asyncio.timeout(PATIENCE_S):
        async for candle in read(CANDLES["1m"], replace(config), until_end=True):
            if candle.symbol == symbol:
                seen.add(candle.open_time_us)
                assert candle.job is not None
    assert len(seen) == 30


async def test_live_data_goes_through_kafka_too(pipeline: Any) -> None:
    config, _ = pipeline
    symbol = "LIBB/USDT"
    async with (
        ReplayExchange([market(symbol, 3)]) as exchange,
        PipelineStorage(config) as storage,
    ):
        producer = ProducerConfig(
            exchange_url=exchange.url, clock="event", until_us=exchange.end_us or 0
        )
        provider = ExchangeDataProvider("binance", config=producer)
        manager = RealTimeDataManager(provider, storage, MarketDataConfig(update_interval=0.2))
        await manager.start([symbol])
        await asyncio.wait_for(manager.wait(), PATIENCE_S)
        await manager.stop()
        sent = [str(row.trade_id) for row in exchange.ledger.published(symbol)]
        stored = await storage.load_trades("binance", symbol, BEGIN_US, exchange.end_us or 0)
    assert sorted((trade.trade_id for trade in stored), key=int) == sent
    assert manager.stored == len(sent) + 3
