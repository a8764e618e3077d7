"""Bringing what the exchange serves into the pipeline: candles as jobs, and single events."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from alpha_pulse.contracts.events import Candle, Gap
from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.data_pipeline.history.jobs import Job, JobWriter, wait_for_candles
from alpha_pulse.data_pipeline.history.runs import runs_of, windows_of
from alpha_pulse.data_pipeline.history.stored import StoredMarket
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.producers.history.candle_pages import CandlePage
from alpha_pulse.producers.history.missing import Window
from alpha_pulse.producers.history.pages import History

Brought = tuple[Job, list[int]]  # a job that was published, and the open times of its candles


class Bringer:
    """One exchange on one side, the ingest log on the other, ClickHouse to see what arrived."""

    def __init__(self, history: History, stored: StoredMarket, writer: JobWriter) -> None:
        self.history = history
        self.stored = stored
        self.writer = writer

    async def take(
        self, market: Market, frame: Timeframe, open_times_us: Sequence[int], kind: str
    ) -> list[Brought]:
        """Fetch single candles from the exchange and bring them; return the jobs to wait for.

        Of rows that break the contract dead letters are published, and that their candles are none.
        """
        jobs: list[Brought] = []
        for window in windows_of(open_times_us, frame):
            async for page in self.history.candles.pages(
                market.symbol, frame.name, window.start_us, window.end_us
            ):
                jobs += await self.put(market, frame, page.candles, kind)
                if page.refused:
                    await self._refuse(market, frame, page, kind)
        return jobs

    async def _refuse(self, market: Market, frame: Timeframe, page: CandlePage, kind: str) -> None:
        await self.writer.refuse(market, page.refused)
        for gone in windows_of(page.refused_us(frame), frame):
            job = await self.writer.begin(market, frame, gone.start_us, gone.end_us, kind)
            await self.writer.explain(job, gone, "refused")
            await self.writer.end(job)

    async def put(
        self, market: Market, frame: Timeframe, candles: Sequence[Candle], kind: str
    ) -> list[Brought]:
        """Publish candles of the exchange, a job for each unbroken run; return the jobs."""
        jobs: list[Brought] = []
        for run in runs_of(candles, frame):
            end_us = run[-1].open_time_us + frame.duration_us
            job = await self.writer.begin(market, frame, run[0].open_time_us, end_us, kind)
            await self.writer.put(job, run)
            await self.writer.end(job)
            jobs.append((job, [candle.open_time_us for candle in run]))
        return jobs

    async def wait(self, jobs: Iterable[Brought]) -> None:
        """Return once the candles of jobs are in ClickHouse."""
        for job, opens in jobs:
            await wait_for_candles(self.stored, job, opens)

    async def publish_again(self, market: Market, frame: Timeframe, window: Window) -> None:
        """Publish the exchange's own candles of a window, as the live stream would."""
        async for page in self.history.candles.pages(
            market.symbol, frame.name, window.start_us, window.end_us
        ):
            for candle in page.candles:
                await self.writer.publish(market, candle)
        await self.writer.flush()

    async def tell_filled(self, market: Market, gap: Gap) -> None:
        """Publish that nothing of a gap is missing any more."""
        filled = replace(gap, status="filled", reason="fetched as history", revision=0, job=None)
        await self.writer.publish(market, filled)
        await self.writer.flush()
