"""The end of a recording that is followed by the event clock: nothing may be left behind."""

import asyncio
from collections.abc import Collection

import structlog

from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.healing.catch_up import CatchUp
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.liveness.heartbeat import ExchangeClock

log = structlog.get_logger()

LOOK_EVERY_S = 0.02
# Some exchanges send no time of their own in a quiet market: after so long REST is asked.
QUIET_S = 0.5
# Their clock over REST may be cut to whole seconds.
REST_CLOCK_US = 1_000_000


class RecordingEnd:
    """Waits for a recording's end and makes sure of its last trades."""

    def __init__(
        self, feeds: Collection[SymbolFeed], clock: ExchangeClock, healer: Healer, until_us: int
    ) -> None:
        self._feeds = feeds
        self._clock = clock
        self._healer = healer
        self._until_us = until_us

    async def reached(self, catch_up: CatchUp) -> None:
        """Return when everything earlier than the end is in the feeds."""
        while True:
            await self._clock_at_end()
            try:
                newer = [await catch_up.newest(feed) for feed in self._feeds]
            except DataFetchError as error:
                log.warning("recording.unchecked", error=str(error)[:300])
                await asyncio.sleep(0.2)
                continue
            if not any(newer) and self._all_complete():
                return

    async def _clock_at_end(self) -> None:
        loop = asyncio.get_running_loop()
        count, since = self._trades(), loop.time()
        while True:
            if self._clock.frame_us >= self._until_us and self._all_complete():
                return
            await asyncio.sleep(LOOK_EVERY_S)
            if self._trades() != count:
                count, since = self._trades(), loop.time()
            elif loop.time() - since > QUIET_S:
                since = loop.time()
                if self._all_complete() and await self._ended():
                    return

    async def _ended(self) -> bool:
        try:
            clock_us = await self._healer.clock_us()
        except DataFetchError as error:
            log.warning("recording.unchecked", error=str(error)[:300])
            return False
        return clock_us + REST_CLOCK_US > self._until_us

    def _trades(self) -> int:
        return sum(feed.trades for feed in self._feeds)

    def _all_complete(self) -> bool:
        return all(f.is_complete and f.state == "live" and not f.seeks for f in self._feeds)
