"""What the live manager promises: everything told and stored once, bounded, never silent."""

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import pytest
import structlog

from alpha_pulse.contracts.errors import ConfigError, StorageError, ValidationError
from alpha_pulse.contracts.events import Gap, Trade
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.data_pipeline import MarketDataConfig, RealTimeDataManager, SQLAlchemyStorage
from alpha_pulse.data_pipeline.core.models import MarketUpdate
from alpha_pulse.data_pipeline.managers import real_time
from tests.application.data_pipeline.conftest import (
    START_US,
    MemoryProvider,
    MemoryStorage,
    make_candle,
    make_heartbeat,
    make_trade,
)
from tests.patience import PATIENCE_S

OFTEN = MarketDataConfig(update_interval=0.01)
NEVER = MarketDataConfig(update_interval=3_600)


class Updates:
    """A subscriber that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[MarketUpdate] = []
        self._more = asyncio.Event()

    def __call__(self, update: MarketUpdate) -> None:
        self.all.append(update)
        self._more.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.all) < count:
                self._more.clear()
                await self._more.wait()

    @property
    def trades(self) -> list[Trade]:
        return [trade for update in self.all for trade in update.trades]


def manager_of(
    config: MarketDataConfig = OFTEN, storage: Any = None, **options: Any
) -> tuple[RealTimeDataManager, MemoryProvider, Any]:
    provider, storage = MemoryProvider(), storage or MemoryStorage()
    return RealTimeDataManager(provider, storage, config, **options), provider, storage


def stored_ids(storage: MemoryStorage) -> list[int]:
    return sorted(int(trade.trade_id) for trade in storage.trades.values())


async def test_everything_is_told_in_order_and_stored_once(sqlite: SQLAlchemyStorage) -> None:
    manager, provider, _ = manager_of(storage=sqlite)
    updates = Updates()
    manager.subscribe(updates)
    await manager.start(["BTC/USDT", "ETH/USDT"])
    assert provider.symbols == ("BTC/USDT", "ETH/USDT")
    trades = [make_trade(number) for number in range(30)]
    await provider.send(make_heartbeat("live"), *trades[:10])
    await updates.until(1)
    await provider.send(*trades[10:], make_candle(0), make_trade(3, symbol="ETH/USDT"))
    await manager.stop()
    assert [trade for trade in updates.trades if trade.symbol == "BTC/USDT"] == trades
    assert updates.all[0].state == "live"
    assert [candle for update in updates.all for candle in update.candles] == [make_candle(0)]
    end_us = START_US + MINUTE_US
    assert await sqlite.load_trades("binance", "BTC/USDT", START_US, end_us) == trades
    assert len(await sqlite.load_trades("binance", "ETH/USDT", START_US, end_us)) == 1
    assert len(await sqlite.load_candles("binance", "BTC/USDT", "1m", START_US, end_us)) == 1
    assert manager.stored == 32


async def test_the_interval_decides_when_subscribers_and_storage_hear_of_it() -> None:
    manager, provider, storage = manager_of(NEVER)
    updates = Updates()
    manager.subscribe(updates)
    await manager.start(["BTC/USDT"])
    for number in range(5):
        await provider.send(make_trade(number))
        await asyncio.sleep(0)
    assert updates.all == []
    assert storage.saves == []
    await manager.stop()
    assert [len(update.trades) for update in updates.all] == [5]
    assert storage.saves == [5]


async def test_more_symbols_than_allowed_are_refused_and_as_many_are_not() -> None:
    manager, provider, _ = manager_of(MarketDataConfig(max_symbols=2))
    with pytest.raises(ValidationError, match="at most 2 symbols, found 3"):
        await manager.start(["A/B", "C/D", "E/F"])
    assert not provider.symbols
    await manager.start(["A/B", "C/D", "A/B"])
    assert provider.symbols == ("A/B", "C/D")
    await manager.stop()


async def test_the_cache_forgets_after_its_time() -> None:
    now_s = 1_000.0
    config = MarketDataConfig(update_interval=3_600, cache_duration=60)
    manager, provider, _ = manager_of(config, clock=lambda: now_s)
    await manager.start(["BTC/USDT", "ETH/USDT"])
    await provider.send(make_heartbeat("live"), make_trade(1), make_candle(0))
    now_s += 30
    await provider.send(make_trade(2))
    now_s += 31
    snapshot = manager.latest("BTC/USDT")
    assert (snapshot.state, snapshot.trade, snapshot.candle) == ("live", make_trade(2), None)
    now_s += 30
    assert manager.latest("BTC/USDT").trade is None
    assert manager.latest("ETH/USDT").trade is None
    with pytest.raises(ValidationError, match="one of BTC/USDT, ETH/USDT, found 'SOL/USDT'"):
        manager.latest("SOL/USDT")
    await manager.stop()


async def test_an_older_candle_that_was_healed_is_not_the_newest() -> None:
    manager, provider, storage = manager_of(NEVER)
    await manager.start(["BTC/USDT"])
    await provider.send(make_candle(5), make_candle(4))
    assert manager.latest("BTC/USDT").candle == make_candle(5)
    await manager.stop()
    assert len(storage.candles) == 2


async def test_a_subscriber_hears_of_its_symbol_until_it_unsubscribes() -> None:
    manager, provider, _ = manager_of(OFTEN)
    everything, only_eth = Updates(), Updates()
    manager.subscribe(everything)
    end = manager.subscribe(only_eth, "ETH/USDT")
    await manager.start(["BTC/USDT", "ETH/USDT"])
    await provider.send(make_trade(1), make_trade(2, symbol="ETH/USDT"))
    await only_eth.until(1)
    await everything.until(2)
    end()
    end()
    await provider.send(make_trade(3, symbol="ETH/USDT"))
    await manager.stop()
    assert [trade.trade_id for trade in only_eth.trades] == ["1002"]
    assert len(everything.trades) == 3


async def test_a_subscriber_that_fails_harms_nobody() -> None:
    manager, provider, storage = manager_of(OFTEN)
    updates = Updates()

    def broken(update: MarketUpdate) -> None:
        raise RuntimeError("a mistake in the program")

    async def slow(update: MarketUpdate) -> None:
        await asyncio.sleep(0)
        updates(update)

    manager.subscribe(broken)
    manager.subscribe(slow)
    with structlog.testing.capture_logs() as logs:
        await manager.start(["BTC/USDT"])
        await provider.send(make_trade(1))
        await updates.until(1)
        await provider.send(make_trade(2))
        await manager.stop()
    assert [trade.trade_id for trade in updates.trades] == ["1001", "1002"]
    assert stored_ids(storage) == [1001, 1002]
    assert [line["event"] for line in logs] == ["subscriber.failed"] * 2


async def test_each_batch_is_flushed_before_it_counts_as_stored() -> None:
    class Buffering(MemoryStorage):
        """Keeps what is saved to itself until it is flushed, as the pipeline's does."""

        def __init__(self) -> None:
            super().__init__()
            self.waiting: list[Trade] = []
            self.flushed = asyncio.Event()

        async def save_trades(self, trades: Iterable[Trade]) -> int:
            self.waiting += trades
            return len(self.waiting)

        async def flush(self) -> None:
            if self.waiting:
                await super().save_trades(self.waiting)
                self.waiting = []
                self.flushed.set()

    storage = Buffering()
    manager, provider, _ = manager_of(OFTEN, storage)
    await manager.start(["BTC/USDT"])
    await provider.send(make_trade(1))
    await asyncio.wait_for(storage.flushed.wait(), PATIENCE_S)
    assert stored_ids(storage) == [1001]
    await manager.stop()
    assert manager.stored == 1


async def test_the_first_trade_shows_that_a_stream_is_live() -> None:
    manager, provider, _ = manager_of(NEVER)
    await manager.start(["BTC/USDT", "ETH/USDT"])
    await provider.send(make_trade(1))
    assert manager.latest("BTC/USDT").state == "live"
    assert manager.latest("ETH/USDT").state is None
    await provider.send(make_heartbeat("disconnected"), make_trade(2))
    assert manager.latest("BTC/USDT").state == "disconnected"
    await manager.stop()


async def test_a_subscriber_that_never_returns_does_not_keep_stop_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(real_time, "STOP_S_MAX", 0.05)
    manager, provider, storage = manager_of(OFTEN)

    async def stuck(update: MarketUpdate) -> None:
        await asyncio.Event().wait()

    manager.subscribe(stuck)
    with structlog.testing.capture_logs() as logs:
        await manager.start(["BTC/USDT"])
        await provider.send(make_trade(1), make_trade(2))
        await manager.stop()
    assert stored_ids(storage) == [1001, 1002]
    assert [(line["event"], line["untold"]) for line in logs] == [("subscribers.stuck", 2)]


async def test_a_state_is_told_once_and_a_gap_each_time() -> None:
    manager, provider, _ = manager_of(OFTEN)
    updates = Updates()
    manager.subscribe(updates)
    await manager.start(["BTC/USDT"])
    await provider.send(make_heartbeat("live"), make_heartbeat("live"))
    await updates.until(1)
    gap = Gap(
        exchange="binance",
        symbol="BTC/USDT",
        first_trade_id="7",
        last_trade_id="9",
        start_time_us=START_US,
        end_time_us=START_US + 5,
        status="open",
        reason="a test",
    )
    await provider.send(make_heartbeat("live"), gap)
    await updates.until(2)
    await provider.send(make_heartbeat("disconnected"))
    await manager.stop()
    assert [(update.state, len(update.gaps)) for update in updates.all] == [
        ("live", 0),
        ("live", 1),
        ("disconnected", 0),
    ]


async def test_nothing_is_lost_while_the_storage_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_time, "backoff_s", lambda attempt, **limits: 0.01)
    manager, provider, storage = manager_of(OFTEN)
    updates = Updates()
    manager.subscribe(updates)
    await manager.start(["BTC/USDT"])
    storage.away = True
    await provider.send(*[make_trade(number) for number in range(50)])
    await asyncio.wait_for(storage.refused.wait(), PATIENCE_S)
    await updates.until(1)  # subscribers need no storage
    await provider.send(*[make_trade(number) for number in range(50, 60)])
    storage.away = False
    await manager.stop()
    assert stored_ids(storage) == list(range(1_000, 1_060))
    assert manager.stored == 60


async def test_what_waits_for_the_storage_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_time, "WAITING_MAX", 20)
    monkeypatch.setattr(real_time, "backoff_s", lambda attempt, **limits: 0.01)
    manager, provider, storage = manager_of(OFTEN)
    await manager.start(["BTC/USDT"])
    storage.away = True
    await provider.send(*[make_trade(number) for number in range(25)])
    blocked = asyncio.create_task(provider.send(make_trade(25)))
    await asyncio.wait_for(storage.refused.wait(), PATIENCE_S)
    assert not blocked.done()
    storage.away = False
    await asyncio.wait_for(blocked, PATIENCE_S)
    await manager.stop()
    assert stored_ids(storage) == list(range(1_000, 1_026))


async def test_a_storage_that_stays_away_makes_stop_say_what_is_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(real_time, "STOP_S_MAX", 0.05)
    monkeypatch.setattr(real_time, "WAITING_MAX", 5)
    manager, provider, storage = manager_of(OFTEN)
    await manager.start(["BTC/USDT"])
    storage.away = True
    await provider.send(*[make_trade(number) for number in range(7)])
    last = asyncio.create_task(provider.send(make_trade(7)))
    with pytest.raises(StorageError, match="found 8 trades and candles refused") as raised:
        await manager.stop()
    await last
    assert isinstance(raised.value.__cause__, StorageError)
    assert "from 2026-01-01T00:00:00Z" in str(raised.value)
    await manager.stop()  # there is nothing left to stop


async def test_a_storage_that_can_not_be_reached_is_said_at_the_start(tmp_path: Any) -> None:
    storage = SQLAlchemyStorage(f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/market.db")
    manager, provider, _ = manager_of(storage=storage)
    with pytest.raises(StorageError, match="open the database"):
        await manager.start(["BTC/USDT"])
    assert provider.symbols == ()
    # The driver's thread of a connection that failed still speaks to this loop: let it end first.
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 10)


async def test_an_end_by_an_error_is_said_by_wait_and_by_stop() -> None:
    manager, provider, storage = manager_of(OFTEN)
    with structlog.testing.capture_logs() as logs:
        await manager.start(["BTC/USDT"])
        await provider.send(make_trade(1))
        provider.end(RuntimeError("gone"))
        with pytest.raises(RuntimeError, match="gone"):
            await manager.wait()
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="gone"):
            await manager.stop()
    assert "stream.ended" in [line["event"] for line in logs]
    assert stored_ids(storage) == [1001]


async def test_it_starts_once_and_again_after_it_was_stopped() -> None:
    manager, provider, storage = manager_of(NEVER)
    await manager.start(["BTC/USDT"])
    with pytest.raises(ValidationError, match=r"BTC/USDT; call stop\(\) first"):
        await manager.start(["ETH/USDT"])
    await provider.send(make_trade(1))
    await manager.stop()
    async with manager:
        await manager.start(["ETH/USDT"])
        await provider.send(make_trade(2, symbol="ETH/USDT"))
    assert stored_ids(storage) == [1001, 1002]


@pytest.mark.parametrize(
    ("symbols", "says"), [("BTC/USDT", "a list of symbols"), (["BTCUSDT"], "'BTC/USDT'")]
)
async def test_what_are_no_symbols_is_refused(symbols: Any, says: str) -> None:
    manager, provider, _ = manager_of()
    with pytest.raises(ValidationError, match=says):
        await manager.start(symbols)
    assert provider.symbols == ()


@pytest.mark.parametrize("name", ["update_interval", "max_symbols", "cache_duration"])
def test_a_setting_of_0_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        MarketDataConfig(**{name: 0})
