"""The pipeline as a storage: read from ClickHouse, written through Kafka.

What a manager saves here passes the processors and sinks like everything else, so that downstream
consumers see it too, with `job` set.
"""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Self

from msgspec.structs import replace

from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.market import get_timeframe
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.validation import validate_candle
from alpha_pulse.data_pipeline.history.bringing import Brought
from alpha_pulse.data_pipeline.history.jobs import (
    JobWriter,
    wait_for_candles,
    wait_for_ids,
)
from alpha_pulse.data_pipeline.history.runs import runs_of
from alpha_pulse.data_pipeline.history.stored import StoredMarket, stored_market
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.data_pipeline.history.verify import differences

# So much is kept before it is written without being asked to.
BUFFERED_MAX = 50_000


class PipelineStorage:
    """A `Storage` over a running pipeline (`alpha-pulse up`, or the roles anywhere).

    config: where Kafka and ClickHouse are; default: `load_config()`. Candles must be the exchange's
    own: the pipeline builds its own from trades. Numbers come back without zeros at their end, and
    revisions are the pipeline's. Every call raises StorageError or KafkaError when it is away.
    """

    def __init__(self, config: Config | None = None) -> None:
        self._config = config or load_config()
        self._open: AsyncExitStack | None = None
        self._opening = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._candles: dict[tuple[Market, str], dict[int, Candle]] = defaultdict(dict)
        self._trades: dict[Market, dict[str, Trade]] = defaultdict(dict)
        self._stored: StoredMarket | None = None
        self._writer: JobWriter | None = None

    async def __aenter__(self) -> Self:
        await self._connected()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def save_candles(self, candles: Iterable[Candle]) -> int:
        """Take the exchange's own candles of any markets; return how many were given.

        Raises: ValidationError for a candle that is not the exchange's own.
        """
        given = list(candles)
        for candle in given:
            if candle.source != "exchange":
                raise ValidationError(
                    f"expected the exchange's own candle of {candle.symbol}, found one from "
                    f"{candle.source}; save the trades: the pipeline builds candles from them"
                )
            validate_candle(candle)
            market = Market(candle.exchange, candle.symbol)
            self._candles[market, candle.timeframe][candle.open_time_us] = replace(
                candle, revision=0, coverage="exchange", job=None
            )
        await self._flush_when_full()
        return len(given)

    async def save_trades(self, trades: Iterable[Trade]) -> int:
        """Take trades of any markets; return how many were given."""
        given = list(trades)
        for trade in given:
            self._trades[Market(trade.exchange, trade.symbol)][trade.trade_id] = trade
        await self._flush_when_full()
        return len(given)

    async def flush(self) -> None:
        """Write what was saved and return once ClickHouse shows it."""
        async with self._writing:
            stored, writer = await self._connected()
            candles, self._candles = self._candles, defaultdict(dict)
            trades, self._trades = self._trades, defaultdict(dict)
            jobs: list[Brought] = []
            for (market, timeframe), found in candles.items():
                jobs += await self._write_candles(market, timeframe, found)
            for market, saved in trades.items():
                await self._write_trades(market, list(saved.values()))
            await writer.flush()
            for job, opens in jobs:
                await wait_for_candles(stored, job, opens)
            for market, saved in trades.items():
                times_us = [trade.trade_time_us for trade in saved.values()]
                await wait_for_ids(stored, market, list(saved), min(times_us), max(times_us) + 1)

    async def load_candles(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[Candle]:
        """Return the candles that open in `[start_us, end_us)`, ascending."""
        stored, _ = await self._connected()
        frame = get_timeframe(timeframe)
        return await stored.candles(Market(exchange, symbol), frame, start_us, end_us)

    async def load_trades(
        self, exchange: str, symbol: str, start_us: int, end_us: int
    ) -> list[Trade]:
        """Return the trades of `[start_us, end_us)`, by time, then by id."""
        stored, _ = await self._connected()
        return await stored.trades(Market(exchange, symbol), start_us, end_us)

    async def open_times_us(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[int]:
        """Return which candles are stored whole, ascending.

        Those that say of themselves that something is missing do not count: they are to be had
        from the exchange.
        """
        stored, _ = await self._connected()
        frame = get_timeframe(timeframe)
        return await stored.open_times_us(Market(exchange, symbol), frame, start_us, end_us)

    async def close(self) -> None:
        """Flush and give the connections back."""
        if self._candles or self._trades:
            await self.flush()
        opened, self._open = self._open, None
        self._stored = self._writer = None
        if opened is not None:
            await opened.aclose()

    async def _connected(self) -> tuple[StoredMarket, JobWriter]:
        async with self._opening:
            if self._stored is None or self._writer is None:
                async with AsyncExitStack() as stack:
                    stored = await stack.enter_async_context(stored_market(self._config))
                    publisher = Publisher(self._config.kafka, "alpha-pulse-storage")
                    await publisher.start()
                    stack.push_async_callback(publisher.stop)
                    self._open = stack.pop_all()
                self._stored, self._writer = stored, JobWriter(self._config, publisher)
            return self._stored, self._writer

    async def _flush_when_full(self) -> None:
        waiting = sum(map(len, self._candles.values())) + sum(map(len, self._trades.values()))
        if waiting >= BUFFERED_MAX:
            await self.flush()

    async def _write_candles(
        self, market: Market, timeframe: str, saved: dict[int, Candle]
    ) -> list[Brought]:
        stored, writer = await self._connected()
        frame = get_timeframe(timeframe)
        known = {
            candle.open_time_us: candle
            for candle in await stored.candles(
                market, frame, min(saved), max(saved) + frame.duration_us
            )
        }
        # What stands already is not written again: saving twice changes nothing.
        fresh = [
            saved[time_us]
            for time_us in sorted(saved)
            if time_us not in known
            or known[time_us].coverage in ("partial", "gap")
            or differences(known[time_us], saved[time_us])
        ]
        jobs = []
        for run in runs_of(fresh, frame):
            end_us = run[-1].open_time_us + frame.duration_us
            job = await writer.begin(market, frame, run[0].open_time_us, end_us, "storage")
            await writer.put(job, run)
            await writer.end(job)
            jobs.append((job, [candle.open_time_us for candle in run]))
        return jobs

    async def _write_trades(self, market: Market, trades: Sequence[Trade]) -> None:
        # Without markers: nobody promises that these are all trades of their time, so that no
        # candle is built from them.
        _, writer = await self._connected()
        name = f"storage-{uuid.uuid4().hex[:16]}"
        ordered = sorted(trades, key=lambda t: (t.trade_time_us, len(t.trade_id), t.trade_id))
        for trade in ordered:
            await writer.publish(market, replace(trade, job=name))
