"""The exchange's own candles over REST: those that the stream did not bring as final."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import ccxt.pro
import msgspec
import structlog

from alpha_pulse.contracts.errors import DataFetchError, ValidationError
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.producers.exchanges.candles import MINUTE, CandleRequest
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.liveness.heartbeat import ExchangeClock

log = structlog.get_logger()

PAGE = 300
EVERY_S = 20.0
# A minute's candle is asked for so often; some exchanges have none for a minute without a trade.
ASK_MAX = 3
# After its end a candle may still change this long, and the stream has its chance first.
FINAL_AFTER_US = 10_000_000


class CandleHealer:
    """Fetches closed candles that are missing from the feeds.

    Args:
        healer: asks the exchange.
        on_progress: called after candles were put into a feed.
    """

    def __init__(self, healer: Healer, *, on_progress: Callable[[SymbolFeed], None]) -> None:
        self._healer = healer
        self._on_progress = on_progress
        self._asked: dict[tuple[str, int], int] = {}

    async def run(self, feeds: Mapping[str, SymbolFeed], clock: ExchangeClock) -> None:
        """Ask for ever, every 20 s, for the candles that ended and that the stream did not bring.

        Args:
            feeds: by symbol; they may change meanwhile.
            clock: the exchange's time.
        """
        while True:
            await asyncio.sleep(EVERY_S)
            await self.heal(list(feeds.values()), clock.now_us(time.monotonic_ns() // 1000))

    async def heal(
        self, feeds: Iterable[SymbolFeed], clock_us: int, final_after_us: int = FINAL_AFTER_US
    ) -> None:
        """Ask once for what is missing; a failure is for the next time.

        Args:
            feeds: the feeds to look at.
            clock_us: the exchange's time.
            final_after_us: how long after its end a candle is left to the stream.
        """
        for feed in feeds:
            missing = self._missing(feed, clock_us - final_after_us)
            if not missing:
                continue
            for open_time_us in missing:
                key = (feed.symbol, open_time_us)
                self._asked[key] = self._asked.get(key, 0) + 1
            try:
                candles = await self._fetch(feed.symbol, missing[0], missing[-1])
            except DataFetchError as error:
                log.warning("candles.unfetched", symbol=feed.symbol, error=str(error)[:300])
                continue
            wanted = set(missing)
            for candle in candles:
                if candle.open_time_us in wanted:
                    feed.add_candle(candle)
            self._on_progress(feed)
        while len(self._asked) > 100_000:
            del self._asked[next(iter(self._asked))]

    def _missing(self, feed: SymbolFeed, until_us: int) -> list[int]:
        missing = feed.missing_candles(until_us)
        return [m for m in missing if self._asked.get((feed.symbol, m), 0) < ASK_MAX]

    async def _fetch(self, symbol: str, first_us: int, last_us: int) -> list[Candle]:
        client = self._healer.client
        if not client.has.get("fetchOHLCV"):
            return []
        candles: list[Candle] = []
        since_us = first_us
        while since_us <= last_us:
            try:
                async with self._healer.limiter:
                    page = await self._page(symbol, since_us, last_us)
            except (ccxt.pro.BaseError, msgspec.ValidationError, ValidationError) as error:
                self._healer.limiter.obey(error, client)
                raise DataFetchError(
                    f"expected 1m candles of {symbol} from {self._healer.name}, found "
                    f"{type(error).__name__}: {str(error)[:200]}"
                ) from error
            candles += page
            newest_us = max((candle.open_time_us for candle in page), default=0)
            if newest_us < since_us:
                break
            since_us = newest_us + MINUTE_US
            await asyncio.sleep(0)
        return candles

    async def _page(self, symbol: str, since_us: int, last_us: int) -> list[Candle]:
        client = self._healer.client
        source = exchange_of(client.id).candles
        end_us = min(since_us + PAGE * MINUTE_US, last_us + MINUTE_US)
        request = CandleRequest(self._healer.name, client, symbol, MINUTE, since_us, end_us)
        return await source.ask_recent(request, source.timeframes(client).get(MINUTE.name, ""))
