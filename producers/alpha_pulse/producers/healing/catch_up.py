"""Catching up over REST: fills holes, and proves after a reconnect that nothing came meanwhile."""

import asyncio
import time
from collections.abc import Callable

import structlog

from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.events import Trade
from alpha_pulse.producers.connection.limiter import backoff_s
from alpha_pulse.producers.exchanges.tick import Numbered
from alpha_pulse.producers.exchanges.trades import Wanted
from alpha_pulse.producers.feed.continuity import ConsecutiveIds, GivenUp
from alpha_pulse.producers.feed.state import Event
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.healing.healer import Healer

log = structlog.get_logger()

# Frames that only swapped places close their hole by themselves within this.
SWAP_WAIT_S = 0.02
# REST may lag behind the stream: ids that it does not show are asked for this often.
ASK_AGAIN_MAX = 5
HOLE_MAX = 1_000_000
# Clocks of an exchange's machines may differ: how far before the hole to look again.
SLACK_US = 2_000_000
SEEK_EVERY_S = 5.0


class CatchUp:
    """Runs at most one REST conversation per symbol.

    Args:
        healer: asks the exchange.
        seek_us_max: how long the trades of a published gap are sought.
        on_progress: called after trades were put into a feed.
        on_caught_up: called when a feed has nothing missing any more.
    """

    def __init__(
        self,
        healer: Healer,
        *,
        seek_us_max: int,
        on_progress: Callable[[SymbolFeed], None],
        on_caught_up: Callable[[SymbolFeed], None],
    ) -> None:
        self._healer = healer
        self._seek_us_max = seek_us_max
        self._on_progress = on_progress
        self._on_caught_up = on_caught_up
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[asyncio.Task[None]] = set()

    def start(self, feed: SymbolFeed) -> None:
        """Begin a feed's conversation with REST; nothing happens while one is under way."""
        if feed.symbol not in self._tasks:
            task = asyncio.create_task(self._run(feed), name=f"catch-up {feed.symbol}")
            self._tasks[feed.symbol] = task
            task.add_done_callback(lambda task: self._forget(feed.symbol, task))

    def cancel(self, feed: SymbolFeed) -> None:
        """End a feed's conversation, if there is one: what it has asked is not used any more."""
        task = self._tasks.pop(feed.symbol, None)
        if task is not None:
            self._cancelled.add(task)
            task.add_done_callback(self._cancelled.discard)
            task.cancel()

    async def stop(self) -> None:
        """End all conversations."""
        tasks = [*self._tasks.values(), *self._cancelled]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def newest(self, feed: SymbolFeed) -> bool:
        """Fetch what came after the last published trade, and put it into the feed.

        Returns:
            Whether there was anything new.

        Raises:
            DataFetchError: REST does not answer.
        """
        tracker = feed.tracker
        if not isinstance(tracker, ConsecutiveIds):
            if not tracker.last_time_us:
                feed.step(Event.JOINED)  # nothing is known, so nothing can be missing
                return False
            asked_at_us = _now_us()
            recent = await self._healer.recent(feed.symbol)
            found = feed.add_overlap(recent, _now_us())
            feed.checked_at_us = asked_at_us
            self._on_progress(feed)
            return found
        found = False
        while tracker.last_id is not None:
            asked_at_us = _now_us()
            first_id = tracker.last_id + 1
            wanted = Wanted(feed.symbol, first_id, None, tracker.last_time_us)
            self._add_trades(feed, await self._healer.fetch(wanted))
            if tracker.last_id < first_id:
                feed.checked_at_us = asked_at_us
                break
            found = True
        return found

    async def _run(self, feed: SymbolFeed) -> None:
        while True:
            await self._complete(feed)
            self._on_caught_up(feed)
            # Published gaps are sought on, unless something new is missing: that comes first.
            while feed.seeks and feed.is_complete:
                await asyncio.sleep(SEEK_EVERY_S)
                await self._seek(feed)
            if feed.is_complete:
                return

    async def _complete(self, feed: SymbolFeed) -> None:
        failures = 0
        if feed.caught_up:
            await asyncio.sleep(SWAP_WAIT_S)
        while not feed.is_complete:
            try:
                await self._fill_one(feed)
                failures = 0
            except DataFetchError as error:
                failures += 1
                log.warning("healing.failed", symbol=feed.symbol, error=str(error)[:300])
                await asyncio.sleep(backoff_s(failures, max_s=5.0))

    async def _fill_one(self, feed: SymbolFeed) -> None:
        tracker = feed.tracker
        holes = tracker.holes() if isinstance(tracker, ConsecutiveIds) else []
        if not holes:
            # Nothing is held: ask until REST knows of nothing newer either.
            await self.newest(feed)
            feed.step(Event.JOINED)
            return
        assert isinstance(tracker, ConsecutiveIds)
        hole = holes[0]
        if hole.last - hole.first >= HOLE_MAX:
            reason = "too many trades to fetch while live: backfill them as history"
            self._give_up(feed, tracker, reason)
            return
        start_us, was_lost = tracker.last_time_us, False
        for asked in range(ASK_AGAIN_MAX):
            since_us = max(0, tracker.last_time_us - (SLACK_US if asked else 0))
            wanted = Wanted(feed.symbol, hole.first, hole.last, since_us, hole.until_us)
            found = await self._healer.fetch(wanted)
            was_lost = was_lost or any(isinstance(one, Trade) for one in found)
            self._add_trades(feed, found)
            assert tracker.last_id is not None
            if tracker.last_id >= hole.first:
                # Up to the trade that the stream brought nothing is missing now.
                if tracker.last_id > hole.last:
                    feed.step(Event.JOINED)
                # Ids of no trade were never missing.
                if tracker.last_id >= hole.last and was_lost:
                    feed.emit_filled(hole, start_us)
                return
            await asyncio.sleep(backoff_s(asked + 1, first_s=0.1, max_s=2.0))
        if tracker.last_id is not None and tracker.last_id >= hole.first:
            return  # the stream itself closed it meanwhile
        self._give_up(feed, tracker, f"{self._healer.name} shows no trades with these ids on REST")

    def _give_up(self, feed: SymbolFeed, tracker: ConsecutiveIds, reason: str) -> None:
        # The stream brought what comes after the hole, so it is connected.
        feed.step(Event.JOINED)
        feed.emit(tracker.give_up(_now_us(), reason, for_good=True))
        log.warning("gap.unfillable", symbol=feed.symbol, reason=reason)
        self._on_progress(feed)

    async def _seek(self, feed: SymbolFeed) -> None:
        # Gaps that were published: their trades are still wanted, each as long as it is worth it.
        tracker = feed.tracker
        assert isinstance(tracker, ConsecutiveIds)
        for lost in list(tracker.given_up):
            if _now_us() - lost.since_us > self._seek_us_max:
                reason = f"not found over REST within {self._seek_us_max // 1_000_000} s"
                feed.emit([tracker.abandon(lost, reason)])
                self._on_progress(feed)
                continue
            try:
                self._add_trades(feed, await self._healer.fetch(_wanted(feed, lost)))
            except DataFetchError as error:
                log.warning("healing.failed", symbol=feed.symbol, error=str(error)[:300])
                return

    def _add_trades(self, feed: SymbolFeed, trades: list[Numbered]) -> None:
        for trade in trades:
            feed.add_trade(trade, _now_us())
        self._on_progress(feed)

    def _forget(self, symbol: str, task: asyncio.Task[None]) -> None:
        # A conversation that was begun meanwhile is another one.
        if self._tasks.get(symbol) is task:
            del self._tasks[symbol]


def _wanted(feed: SymbolFeed, lost: GivenUp) -> Wanted:
    since_us = max(0, lost.gap.start_time_us - SLACK_US)
    return Wanted(feed.symbol, min(lost.missing), max(lost.missing), since_us, lost.gap.end_time_us)


def _now_us() -> int:
    return time.monotonic_ns() // 1000
