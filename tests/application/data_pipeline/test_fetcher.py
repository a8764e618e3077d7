"""`ExchangeFetcher`, the real ccxt against the replay exchange: pages, faults and reasons."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import ConfigError, DataFetchError, ValidationError
from alpha_pulse.contracts.market import HOUR_US, MINUTE_US
from alpha_pulse.data_pipeline import (
    DataFetchConfig,
    ExchangeFetcher,
    ExchangeType,
    HistoricalDataManager,
)
from alpha_pulse.data_pipeline.core.models import CoverageReport
from alpha_pulse.producers.history import asking
from alpha_pulse.replay.exchange.faults import FaultPlan, RestFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.long_market import LongMarket
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.application.data_pipeline.conftest import MemoryStorage

MINUTES = 90
BEGIN = datetime.fromtimestamp(BEGIN_US // 1_000_000, UTC)
QUICK = DataFetchConfig(retry_delay=0.001)


def market(minutes: int = MINUTES) -> SyntheticMarket:
    return SyntheticMarket(
        "BTC/USDT", 3, end_us=BEGIN_US + minutes * MINUTE_US, trades_per_minute=3
    )


@asynccontextmanager
async def past(dialect: str = "binance", **options: Any) -> AsyncIterator[ReplayExchange]:
    """Run an exchange whose market is over: all of it is history."""
    markets = options.pop("markets", None) or [market()]
    async with ReplayExchange(markets, dialect=dialect, at_end=True, **options) as exchange:
        yield exchange


def fetcher_of(exchange: ReplayExchange, config: DataFetchConfig = QUICK) -> ExchangeFetcher:
    # The event clock: a replay has no rate limit.
    producer = ProducerConfig(exchange_url=exchange.url, clock="event")
    return ExchangeFetcher(config, producer=producer)


async def ensure(
    exchange: ReplayExchange,
    storage: MemoryStorage,
    config: DataFetchConfig = QUICK,
    first: int = 0,
    end: int = MINUTES - 1,
    timeframe: str = "1m",
) -> CoverageReport:
    manager = HistoricalDataManager(storage, fetcher_of(exchange, config))
    return await manager.ensure_data_available(
        exchange.dialect.name,
        exchange.feeds[0].symbol,
        timeframe,
        BEGIN + timedelta(minutes=first),
        BEGIN + timedelta(minutes=end),
    )


def asked(exchange: ReplayExchange, of: Iterable[str] = ("klines", "OHLC", "candles")) -> int:
    requests = exchange.ledger.rest_requests
    return sum(count for name, count in requests.items() if any(part in name for part in of))


async def test_candles_equal_the_exchanges_own_and_a_second_call_asks_nothing() -> None:
    storage = MemoryStorage()
    async with past() as exchange:
        report = await ensure(exchange, storage)
        assert (report.had, report.fetched, report.is_complete) == (0, MINUTES - 1, True)
        own = exchange.feeds[0].candles
        for candle in storage.candles.values():
            expected = own.closed_minute(candle.open_time_us)
            assert expected is not None
            prices = (expected.open, expected.high, expected.low, expected.close)
            assert (candle.open, candle.high, candle.low, candle.close) == prices
            assert (candle.volume, candle.trade_count) == (expected.volume, expected.trade_count)
            assert (candle.source, candle.coverage) == ("exchange", "exchange")
        requests = exchange.ledger.rest_requests.total()
        again = await ensure(exchange, storage)
        assert (again.had, again.fetched) == (MINUTES - 1, 0)
        assert exchange.ledger.rest_requests.total() == requests


@pytest.mark.parametrize("name", ["okx", "bybit"])
async def test_every_exchange_gives_whole_windows(name: str) -> None:
    storage = MemoryStorage()
    async with past(name) as exchange:
        report = await ensure(exchange, storage)
        assert (report.fetched, report.is_complete) == (MINUTES - 1, True)
        assert {candle.exchange for candle in storage.candles.values()} == {name}


async def test_bad_pages_are_asked_for_again_until_nothing_is_missing() -> None:
    kinds = ("http429", "http500", "empty", "truncated", "null")
    faults = [
        RestFault(kind, at_request=number * 2, seconds=1.0, path="klines")
        for number, kind in enumerate(kinds)
    ]
    async with past(faults=FaultPlan(rest=faults)) as exchange:
        report = await ensure(exchange, MemoryStorage(), DataFetchConfig(9, 5, 0.001))
        assert (report.fetched, report.is_complete) == (MINUTES - 1, True)
        assert len(exchange.faults.applied) == len(kinds)


@pytest.mark.parametrize(("batch_size", "requests"), [(10, 9), (1000, 1)])
async def test_a_batch_size_is_the_candles_of_a_request(batch_size: int, requests: int) -> None:
    async with past() as exchange:
        report = await ensure(exchange, MemoryStorage(), DataFetchConfig(batch_size), end=89)
        assert report.is_complete
        assert asked(exchange) == requests


async def test_so_many_retries_and_then_an_error_that_says_what_to_do() -> None:
    max_retries = 2
    config = DataFetchConfig(max_retries=max_retries, retry_delay=0.001)
    for failures, works in ((max_retries, True), (max_retries + 1, False)):
        faults = [RestFault("http500", number, path="klines") for number in range(failures)]
        async with past(faults=FaultPlan(rest=faults)) as exchange:
            if works:
                assert (await ensure(exchange, MemoryStorage(), config)).is_complete
                continue
            with pytest.raises(DataFetchError, match="try again later") as raised:
                await ensure(exchange, MemoryStorage(), config)
            about = raised.value.about
            assert about is not None
            assert (about.exchange, about.symbol, about.timeframe) == ("binance", "BTC/USDT", "1m")
            assert about.start_us == BEGIN_US
            assert "from 2024-01-01T00:00:00Z" in str(raised.value)


async def test_the_retry_delay_is_the_wait_before_the_first_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[tuple[int, float]] = []

    def noted(attempt: int, *, first_s: float) -> float:
        waits.append((attempt, first_s))
        return 0.0

    monkeypatch.setattr(asking, "backoff_s", noted)
    faults = [RestFault("http500", number, path="klines") for number in range(2)]
    async with past(faults=FaultPlan(rest=faults)) as exchange:
        await ensure(exchange, MemoryStorage(), DataFetchConfig(retry_delay=7.5))
    assert waits == [(1, 7.5), (2, 7.5)]


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"max_retries": -1}, {"retry_delay": -0.1}], ids=str
)
def test_a_setting_that_can_not_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DataFetchConfig(**wrong)


async def test_what_was_before_the_listing_and_what_is_still_open_is_said() -> None:
    async with past() as exchange:
        report = await ensure(exchange, MemoryStorage(), first=-30, end=MINUTES + 10)
    assert report.fetched == MINUTES - 1
    # The exchange's clock stands at the end: its last candle may still change.
    assert [(run.count, run.reason) for run in report.missing] == [
        (30, "not_listed_yet"),
        (11, "open"),
    ]


async def test_years_before_the_listing_cost_no_page_each() -> None:
    years = 15 * 365 * 24 * 60
    async with past() as exchange:
        report = await ensure(exchange, MemoryStorage(), first=-years, end=years)
        assert exchange.ledger.rest_requests.total() < 20
    assert report.fetched == MINUTES - 1
    assert [(run.count, run.reason) for run in report.missing] == [
        (years, "not_listed_yet"),
        (years - MINUTES + 1, "open"),
    ]


async def test_a_halt_is_said_and_asking_again_fetches_nothing() -> None:
    halt = (BEGIN_US + 20 * MINUTE_US, BEGIN_US + 50 * MINUTE_US)
    halted = LongMarket(
        "BTC/USDT", 3, begin_us=BEGIN_US, end_us=BEGIN_US + MINUTES * MINUTE_US, halts=[halt]
    )
    storage = MemoryStorage()
    async with past(markets=[halted]) as exchange:
        for fetched in (MINUTES - 31, 0):
            report = await ensure(exchange, storage)
            assert report.fetched == fetched
            assert [(run.start_us, run.count, run.reason) for run in report.missing] == [
                (halt[0], 30, "halted")
            ]


async def test_what_kraken_does_not_serve_any_more_is_said() -> None:
    async with past("kraken", markets=[market(1_000)]) as exchange:
        report = await ensure(exchange, MemoryStorage(), end=990)
    assert report.missing[0].reason == "not_offered"
    assert report.missing[0].start_us == BEGIN_US
    assert report.fetched >= 500
    assert report.had + report.fetched + report.missing_count == 990


async def test_a_testnet_is_another_exchange() -> None:
    storage = MemoryStorage()
    async with past() as exchange:
        producer = ProducerConfig(exchange_url=exchange.url, clock="event")
        for fetcher, name in (
            (ExchangeFetcher(QUICK, testnet=True, producer=producer), ExchangeType.BINANCE),
            (ExchangeFetcher(QUICK, producer=producer), "binance-testnet"),
        ):
            report = await HistoricalDataManager(storage, fetcher).ensure_data_available(
                name, "BTC/USDT", "1h", BEGIN, BEGIN + timedelta(hours=1)
            )
            assert (report.exchange, report.is_complete) == ("binance-testnet", True)
    assert {candle.exchange for candle in storage.candles.values()} == {"binance-testnet"}


async def test_a_symbol_or_an_exchange_that_is_none_is_named() -> None:
    async with past() as exchange:
        manager = HistoricalDataManager(MemoryStorage(), fetcher_of(exchange))
        hour = (BEGIN, BEGIN + timedelta(hours=1))
        with pytest.raises(DataFetchError, match=r"lists, found 'NO/SUCH'"):
            await manager.ensure_data_available("binance", "NO/SUCH", "1h", *hour)
        with pytest.raises(ValidationError, match=r"ccxt.pro, found 'nosuch'"):
            await manager.ensure_data_available("nosuch", "BTC/USDT", "1h", *hour)


async def test_an_exchange_that_does_not_answer_is_an_error() -> None:
    producer = ProducerConfig(exchange_url="http://127.0.0.1:9", clock="event")
    fetcher = ExchangeFetcher(DataFetchConfig(max_retries=1, retry_delay=0.001), producer=producer)
    manager = HistoricalDataManager(MemoryStorage(), fetcher)
    with pytest.raises(DataFetchError, match="2 attempts") as raised:
        await manager.ensure_data_available(
            ExchangeType.BINANCE, "BTC/USDT", "1h", BEGIN, BEGIN + timedelta(hours=1)
        )
    assert raised.value.about is not None


async def test_the_connection_is_shared_by_calls_at_once_and_closed_after_the_last() -> None:
    async with past() as exchange:
        fetcher = fetcher_of(exchange)
        manager = HistoricalDataManager(MemoryStorage(), fetcher)
        windows = [(BEGIN + timedelta(minutes=10 * n), 10) for n in range(4)]
        await asyncio.gather(
            *(
                manager.ensure_data_available(
                    "binance", "BTC/USDT", "1m", begin, begin + timedelta(minutes=length)
                )
                for begin, length in windows
            )
        )
        assert exchange.ledger.rest_requests["exchangeInfo"] == 1
        assert fetcher._connections == {}
        async with fetcher:
            for number in range(4, 8):
                begin = BEGIN + timedelta(minutes=10 * number)
                await manager.ensure_data_available(
                    "binance", "BTC/USDT", "1m", begin, begin + timedelta(minutes=10)
                )
        assert exchange.ledger.rest_requests["exchangeInfo"] == 2
        assert fetcher._connections == {}


async def test_the_environment_points_it_at_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async with past() as exchange:
        monkeypatch.setenv("ALPHA_PULSE_EXCHANGE_URL", exchange.url)
        fetcher = ExchangeFetcher()
        assert abs(await fetcher.now_us("binance") - (exchange.end_us or 0)) < HOUR_US
