"""Catching up over REST: fills holes, and proves after a reconnect that nothing came meanwhile."""

import asyncio
import time
from collections.abc import Callable

import structlog

from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.producers.continuity import ConsecutiveIds
from alpha_pulse.producers.healing import Healer, Wanted
from alpha_pulse.producers.limiter import backoff_s
from alpha_pulse.producers.symbol_feed import SymbolFeed

log = structlog.get_logger()

# Frames that only swapped places close their hole by themselves within this.
SWAP_WAIT_S = 0.02
# REST may lag behind the stream: ids that it does not show are asked for this often.
ASK_AGAIN_MAX = 5
HOLE_MAX = 1_000_000


class CatchUp:
    """Runs at most one REST conversation per symbol.

    on_progress: called after trades were put into a feed. on_done: when a feed has nothing missing
    any more.
    """

    def __init__(
        self,
        healer: Healer,
        *,
        on_progress: Callable[[SymbolFeed], None],
        on_done: Callable[[SymbolFeed], None],
    ) -> None:
        self._healer = healer
        self._on_progress = on_progress
        self._on_done = on_done
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, feed: SymbolFeed) -> None:
        """See to it that a feed's holes are filled; nothing happens when that is under way."""
        if feed.symbol not in self._tasks:
            task = asyncio.create_task(self._run(feed))
            self._tasks[feed.symbol] = task
            task.add_done_callback(lambda _: self._tasks.pop(feed.symbol, None))

    async def stop(self) -> None:
        """End all conversations."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def newest(self, feed: SymbolFeed) -> bool:
        """Fetch everything after the last published trade; return whether there was anything."""
        tracker = feed.tracker
        found = False
        while isinstance(tracker, ConsecutiveIds) and tracker.last_id is not None:
            first_id = tracker.last_id + 1
            trades = await self._healer.fetch(
                Wanted(feed.symbol, first_id, None, tracker.last_time_us)
            )
            for trade in trades:
                feed.take_trade(trade, _now_us())
            self._on_progress(feed)
            if tracker.last_id < first_id:
                return found
            found = True
        return found

    async def _run(self, feed: SymbolFeed) -> None:
        failures = asked = 0
        if feed.caught_up:
            await asyncio.sleep(SWAP_WAIT_S)
        while not feed.is_complete:
            tracker = feed.tracker
            if not isinstance(tracker, ConsecutiveIds):
                feed.caught_up = True  # see `overlap`
                break
            holes = tracker.holes()
            try:
                if not holes:
                    # Nothing is held: ask until REST knows of nothing newer either.
                    await self.newest(feed)
                    feed.caught_up = not tracker.held
                    continue
                hole = holes[0]
                if hole.last - hole.first >= HOLE_MAX:
                    feed.caught_up = True
                    reason = "too many trades to fetch while live: backfill them as history"
                    feed.take_events(tracker.give_up(_now_us(), reason, for_good=True))
                    self._on_progress(feed)
                    continue
                trades = await self._healer.fetch(
                    Wanted(feed.symbol, hole.first, hole.last, tracker.last_time_us)
                )
            except DataFetchError as error:
                failures += 1
                log.warning("healing.failed", symbol=feed.symbol, error=str(error)[:300])
                await asyncio.sleep(backoff_s(failures, max_s=5.0))
                continue
            failures = 0
            for trade in trades:
                feed.take_trade(trade, _now_us())
            self._on_progress(feed)
            if trades and tracker.last_id is not None and tracker.last_id >= hole.first:
                asked = 0
                feed.caught_up = True
            elif asked < ASK_AGAIN_MAX:
                asked += 1
                await asyncio.sleep(backoff_s(asked, first_s=0.1, max_s=2.0))
            else:
                asked = 0
                feed.caught_up = True
                reason = f"{self._healer.name} has no trades with these ids over REST"
                feed.take_events(tracker.give_up(_now_us(), reason, for_good=True))
                self._on_progress(feed)
        self._on_done(feed)


def _now_us() -> int:
    return time.monotonic_ns() // 1000
