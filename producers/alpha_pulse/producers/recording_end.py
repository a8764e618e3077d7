"""The end of a recording that is followed by the event clock: nothing may be left behind."""

import asyncio

import structlog

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.producers.feed.state import Event, State
from alpha_pulse.producers.healing.candle_healing import ASK_MAX, CandleHealer
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.liveness.heartbeat import ExchangeClock
from alpha_pulse.producers.streams import Streams

log = structlog.get_logger()

LOOK_EVERY_S = 0.02
# Some exchanges send no time of their own in a quiet market: after so long REST is asked.
QUIET_S = 0.5
# Their clock over REST may be cut to whole seconds.
REST_CLOCK_US = 1_000_000


class RecordingEnd:
    """Waits for a recording's end, makes sure of its last trades and candles, and says so."""

    def __init__(
        self, config: ProducerConfig, clock: ExchangeClock, healer: Healer, streams: Streams
    ) -> None:
        self._config = config
        self._clock = clock
        self._healer = healer
        self._streams = streams
        self._feeds = streams.feeds

    async def reach(self, candles: CandleHealer) -> None:
        """Return when everything earlier than the end is in the feeds, and their last word too.

        Args:
            candles: asks for the candles that the stream did not bring.
        """
        await self._trades_complete()
        if self._config.exchange_candles:
            for _ in range(ASK_MAX):
                await candles.heal(list(self._feeds.values()), self._config.until_us, 0)
        for feed in self._feeds.values():
            self._streams.send(feed, Event.FINISHED)

    async def _trades_complete(self) -> None:
        catch_up = self._streams.catch_up
        while True:
            await self._clock_at_end()
            try:
                newer = [await catch_up.newest(feed) for feed in list(self._feeds.values())]
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
            if self._clock.frame_us >= self._config.until_us and self._all_complete():
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
        return clock_us + REST_CLOCK_US > self._config.until_us

    def _trades(self) -> int:
        return sum(feed.trades for feed in self._feeds.values())

    def _all_complete(self) -> bool:
        return all(
            feed.is_complete and feed.state is State.LIVE and not feed.seeks
            for feed in self._feeds.values()
        )
