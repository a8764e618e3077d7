"""`RealTimeDataManager`: live data to callbacks, to a cache and in batches to a storage."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import structlog

from alpha_pulse.contracts.errors import (
    MarketWindow,
    StorageError,
    ValidationError,
    telling,
)
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.interfaces import Provider, Storage
from alpha_pulse.contracts.kinds import IngestEvent
from alpha_pulse.contracts.market import check_symbol
from alpha_pulse.data_pipeline.core.config import MarketDataConfig
from alpha_pulse.data_pipeline.core.models import MarketSnapshot, MarketUpdate
from alpha_pulse.data_pipeline.managers.followed_symbol import FollowedSymbol
from alpha_pulse.producers.connection.limiter import backoff_s

log = structlog.get_logger()

Callback = Callable[[MarketUpdate], Awaitable[None] | None]

# Trades and candles that wait for subscribers or for the storage; beyond that the exchange is read
# more slowly.
WAITING_MAX = 100_000
STORAGE_WAIT_S_MAX = 30.0
# How long `stop` tries to store what is left.
STOP_S_MAX = 10.0


class RealTimeDataManager:
    """Follows symbols live: updates to subscribers, the newest in a cache, everything stored.

    Nothing is dropped: while the storage is away, batches wait (bounded), the exchange is then read
    more slowly, and what it sent meanwhile is fetched by id. clock: monotonic seconds.
    """

    def __init__(
        self,
        provider: Provider,
        storage: Storage,
        config: MarketDataConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = provider
        self.storage = storage
        self.config = config or MarketDataConfig()
        self.stored = 0  # trades and candles, since it was made
        self._clock = clock
        self._followed: dict[str, FollowedSymbol] = {}
        self._subscriptions: list[_Subscription] = []
        self._unstored: list[Trade | Candle] = []
        self._untold = 0
        self._storage_error: Exception | None = None
        self._room = asyncio.Event()
        self._draining = False
        self._last_round = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def start(self, symbols: Sequence[str]) -> None:
        """Follow symbols; return once the exchange has answered and they are being subscribed to.

        Raises: ValidationError for bad symbols, more than `max_symbols`, or when it runs already;
        StorageError when the storage can't be opened; DataFetchError when the exchange does not
        answer or does not trade a symbol. Nothing runs after an error.
        """
        about = MarketWindow(self.provider.exchange)
        if isinstance(symbols, str):
            raise ValidationError(f"expected a list of symbols, found the text {symbols!r}", about)
        with telling(about):
            wanted = list(dict.fromkeys(check_symbol(symbol) for symbol in symbols))
        if len(wanted) > self.config.max_symbols:
            raise ValidationError(
                f"expected at most {self.config.max_symbols} symbols, found {len(wanted)}; raise "
                "MarketDataConfig.max_symbols or follow fewer",
                about,
            )
        if self._tasks:
            raise ValidationError(
                "expected a manager that does not run, found one that follows "
                f"{', '.join(self._followed)}; call stop() first",
                about,
            )
        # An error of the storage comes now rather than with the first batch.
        await self.storage.flush()
        self._followed = {symbol: FollowedSymbol() for symbol in wanted}
        self._draining = False
        self._last_round.clear()
        self._tasks = [
            asyncio.create_task(self._every_interval(self._tell), name="live data to subscribers"),
            asyncio.create_task(self._every_interval(self._store), name="live data to storage"),
        ]
        try:
            await self.provider.start(wanted, self._take)
        except BaseException:
            await self._end_tasks()
            raise
        self._tasks.append(asyncio.create_task(self._watch(), name="live data's end"))

    async def stop(self) -> None:
        """End it: what was received is told and stored when this returns.

        Raises: StorageError when something could not be stored, with how much; otherwise what ended
        the stream, if an error did.
        """
        if not self._tasks:
            return
        self._draining = True
        self._room.set()
        try:
            await self.provider.stop()
        finally:
            await self._end_tasks()
            await self._finish_storing()

    async def wait(self) -> None:
        """Return when the stream has ended by itself (a recording's end); raises what ended it."""
        await self.provider.wait()

    def subscribe(self, callback: Callback, symbol: str | None = None) -> Callable[[], None]:
        """Call a function with each update of a symbol, or of all; return what ends that.

        callback: plain or asynchronous; called at most every `update_interval`, with everything
        since the last time. An exception in it is logged and reaches nobody else.
        """
        if symbol is not None:
            check_symbol(symbol)
        subscription = _Subscription(callback, symbol)
        self._subscriptions.append(subscription)

        def unsubscribe() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)

        return unsubscribe

    def latest(self, symbol: str) -> MarketSnapshot:
        """Return the newest of a followed symbol; what came over `cache_duration` ago is None."""
        followed = self._followed.get(symbol)
        if followed is None:
            raise ValidationError(
                f"expected a symbol that is followed, one of {', '.join(self._followed) or 'none'}"
                f", found {symbol!r}; name it in start()",
                MarketWindow(self.provider.exchange, symbol if isinstance(symbol, str) else None),
            )
        since_s = self._clock() - self.config.cache_duration
        return followed.snapshot(self.provider.exchange, symbol, since_s)

    async def _take(self, events: Sequence[IngestEvent]) -> None:
        while max(len(self._unstored), self._untold) >= WAITING_MAX and not self._draining:
            self._room.clear()
            await self._room.wait()
        now_s = self._clock()
        for event in events:
            followed = self._followed.get(event.symbol)
            if followed is not None and followed.take(event, now_s):
                assert isinstance(event, Trade | Candle)
                self._unstored.append(event)
                self._untold += 1

    async def _every_interval(self, action: Callable[[], Awaitable[None]]) -> None:
        # The round that begins after `_last_round` was set is the last one, and takes everything.
        is_last = False
        while not is_last:
            await self._pause(self.config.update_interval)
            is_last = self._last_round.is_set()
            await action()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._last_round.wait(), seconds)

    async def _tell(self) -> None:
        for symbol, followed in self._followed.items():
            if not followed.has_news:
                continue
            update = followed.take_update(self.provider.exchange, symbol)
            for subscription in list(self._subscriptions):
                if subscription.symbol in (None, symbol):
                    await _call(subscription.callback, update)
            self._untold -= len(update.trades) + len(update.candles)
            self._room.set()

    async def _store(self) -> None:
        attempt = 0
        while self._unstored:
            batch = self._unstored[:]
            try:
                await self.storage.save_trades([e for e in batch if isinstance(e, Trade)])
                await self.storage.save_candles([e for e in batch if isinstance(e, Candle)])
                await self.storage.flush()
            except Exception as error:
                # All of it is saved again: saving is idempotent.
                attempt += 1
                self._storage_error = error
                wait_s = backoff_s(attempt, first_s=0.1, max_s=STORAGE_WAIT_S_MAX)
                log.warning(
                    "storage.refused",
                    exchange=self.provider.exchange,
                    waiting=len(self._unstored),
                    error=f"{type(error).__name__}: {str(error)[:300]}",
                    retry_in_s=round(wait_s, 1),
                )
                if self._last_round.is_set():
                    await asyncio.sleep(min(wait_s, 1.0))
                else:
                    await self._pause(wait_s)
                continue
            del self._unstored[: len(batch)]
            self.stored += len(batch)
            self._storage_error = None
            self._room.set()

    async def _watch(self) -> None:
        # The stream heals itself; that it ends by an error is worth a word at once.
        try:
            await self.provider.wait()
        except Exception as error:
            log.error("stream.ended", exchange=self.provider.exchange, error=str(error)[:300])

    async def _end_tasks(self) -> None:
        self._last_round.set()
        tasks, self._tasks = self._tasks, []
        rounds, watching = tasks[:2], tasks[2:]
        for task in watching:
            task.cancel()
        await asyncio.wait(rounds, timeout=STOP_S_MAX)
        if not rounds[0].done():
            # What is not stored is an error of `stop`; this is in the storage.
            log.error("subscribers.stuck", exchange=self.provider.exchange, untold=self._untold)
        for task in rounds:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._untold = 0

    async def _finish_storing(self) -> None:
        if self._unstored:
            raise StorageError(
                f"expected to store everything within {STOP_S_MAX:.0f} s of stop(), found "
                f"{len(self._unstored)} trades and candles refused; when the storage is back, "
                "fetch their time as history",
                MarketWindow(
                    self.provider.exchange,
                    start_us=min(_time_us(event) for event in self._unstored),
                    end_us=max(_time_us(event) for event in self._unstored) + 1,
                ),
            ) from self._storage_error
        await self.storage.flush()


@dataclass(frozen=True, eq=False)
class _Subscription:
    callback: Callback
    symbol: str | None


async def _call(callback: Callback, update: MarketUpdate) -> None:
    try:
        result = callback(update)
        if inspect.isawaitable(result):
            await result
    except Exception:
        log.exception("subscriber.failed", callback=repr(callback), symbol=update.symbol)


def _time_us(event: Trade | Candle) -> int:
    return event.trade_time_us if isinstance(event, Trade) else event.open_time_us
