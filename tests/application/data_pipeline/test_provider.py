"""`ExchangeDataProvider`, the real ccxt.pro against the replay exchange: live without Kafka."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import ConfigError, DataFetchError, ValidationError
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.interfaces import Provider
from alpha_pulse.contracts.kinds import IngestEvent
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.data_pipeline import (
    ExchangeDataProvider,
    ExchangeType,
    MarketDataConfig,
    RealTimeDataManager,
)
from alpha_pulse.data_pipeline.core.models import MarketUpdate
from alpha_pulse.replay.exchange.faults import FaultPlan, seeded_plan
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.application.data_pipeline.conftest import MemoryStorage
from tests.patience import PATIENCE_S

SYMBOLS = ("BTC/USDT", "ETH/USDT")
MINUTES = 3
END_US = BEGIN_US + MINUTES * MINUTE_US


def markets() -> list[SyntheticMarket]:
    return [SyntheticMarket(symbol, 3, end_us=END_US) for symbol in SYMBOLS]


def provider_of(exchange: ReplayExchange, testnet: bool = False, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "exchange_url": exchange.url,
        "clock": "event",
        "until_us": END_US,
        **changes,
    }
    config = ProducerConfig(**settings)
    provider: Provider = ExchangeDataProvider(ExchangeType.BINANCE, testnet, config)
    return provider


class Program:
    """Takes trades as a program does; it can be slow, or fail."""

    def __init__(self, wait_s: float = 0.0, fails: bool = False) -> None:
        self.trades: list[Trade] = []
        self._wait_s = wait_s
        self._fails = fails

    async def __call__(self, events: Sequence[IngestEvent]) -> None:
        await asyncio.sleep(self._wait_s)
        if self._fails:
            raise RuntimeError("a mistake in the program")
        self.trades += [event for event in events if isinstance(event, Trade)]


def published(exchange: ReplayExchange, symbol: str) -> list[str]:
    return [str(row.trade_id) for row in exchange.ledger.published(symbol)]


async def test_every_trade_and_candle_is_told_and_stored_whatever_the_stream_does() -> None:
    sources = markets()
    total = sum(source.position_at(END_US) for source in sources)
    kinds = ["close", "abort", "duplicate", "swap", "drop", "garbage", "http500"]
    plan: FaultPlan = seeded_plan(kinds, 4, total)
    storage, updates = MemoryStorage(), list[MarketUpdate]()
    async with ReplayExchange(sources, faults=plan) as exchange:
        provider = provider_of(exchange, testnet=True)
        manager = RealTimeDataManager(provider, storage, MarketDataConfig(update_interval=0.05))
        manager.subscribe(updates.append)
        await manager.start(SYMBOLS)
        await asyncio.wait_for(manager.wait(), PATIENCE_S)
        await manager.stop()
        assert len(exchange.faults.applied) >= 2 * (len(kinds) - 1)
        for symbol in SYMBOLS:
            sent = published(exchange, symbol)
            assert len(sent) > 200
            stored = await storage.load_trades("binance-testnet", symbol, BEGIN_US, END_US)
            assert sorted((trade.trade_id for trade in stored), key=int) == sent
            told = [t.trade_id for u in updates if u.symbol == symbol for t in u.trades]
            assert told == sent
            candles = await storage.load_candles("binance-testnet", symbol, "1m", 0, END_US)
            assert [candle.open_time_us for candle in candles] == [
                BEGIN_US + minute * MINUTE_US for minute in range(MINUTES)
            ]
    assert {update.exchange for update in updates} == {"binance-testnet"}


async def test_a_slow_program_slows_the_reading_and_loses_nothing() -> None:
    async with ReplayExchange(markets()) as exchange:
        provider = provider_of(exchange, publish_pending_bytes_max=20_000)
        program = Program(wait_s=0.03)
        await provider.start(SYMBOLS, program)
        await asyncio.wait_for(provider.wait(), PATIENCE_S)
        await provider.stop()
        for symbol in SYMBOLS:
            told = [trade.trade_id for trade in program.trades if trade.symbol == symbol]
            assert told == published(exchange, symbol)


async def test_a_program_that_fails_ends_the_stream_with_its_error() -> None:
    async with ReplayExchange(markets()) as exchange:
        provider = provider_of(exchange)
        await provider.start(SYMBOLS, Program(fails=True))
        with pytest.raises(RuntimeError, match="a mistake in the program"):
            await asyncio.wait_for(provider.wait(), PATIENCE_S)
        with pytest.raises(RuntimeError, match="a mistake in the program"):
            await provider.stop()


async def test_a_symbol_that_is_not_traded_is_named_and_nothing_is_left_running() -> None:
    async with ReplayExchange(markets()) as exchange:
        before = asyncio.all_tasks()
        provider = provider_of(exchange)
        with pytest.raises(DataFetchError, match=r"'NO/SUCH': the exchange does not list it"):
            await provider.start(["BTC/USDT", "NO/SUCH"], Program())
        # It may be started again without it.
        program = Program()
        await provider.start(SYMBOLS, program)
        with pytest.raises(ValidationError, match=r"call stop\(\) first"):
            await provider.start(SYMBOLS, program)
        await asyncio.wait_for(provider.wait(), PATIENCE_S)
        await provider.stop()
        assert program.trades
        assert {task for task in asyncio.all_tasks() - before if "live" in task.get_name()} == set()


async def test_an_exchange_that_does_not_answer_is_an_error_at_the_start() -> None:
    config = ProducerConfig(exchange_url="http://127.0.0.1:9")
    provider = ExchangeDataProvider(config=config, connect_timeout=0.3)
    with pytest.raises(DataFetchError, match=r"http://127.0.0.1:9 within 0.3 s") as raised:
        await provider.start(["BTC/USDT"], Program())
    assert raised.value.about is not None
    assert raised.value.about.exchange == "binance"
    await provider.wait()
    await provider.stop()


@pytest.mark.parametrize(("symbols", "says"), [((), "at least one"), (("BTC",), "'BTC/USDT'")])
async def test_what_can_not_be_followed_is_refused(symbols: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        await ExchangeDataProvider().start(symbols, Program())


async def test_a_testnet_that_there_is_not_is_said() -> None:
    provider = ExchangeDataProvider(ExchangeType.KRAKEN, testnet=True)
    assert provider.exchange == "kraken-testnet"
    with pytest.raises(ConfigError, match="a testnet of kraken"):
        await provider.start(["BTC/USDT"], Program())


def test_the_environment_points_it_at_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHA_PULSE_EXCHANGE_URL", "http://127.0.0.1:8900")
    provider = ExchangeDataProvider(ExchangeType.BINANCE, testnet=True)
    assert provider.config.exchange_url == "http://127.0.0.1:8900"
    assert provider.exchange == "binance-testnet"
    assert isinstance(provider, Provider)
