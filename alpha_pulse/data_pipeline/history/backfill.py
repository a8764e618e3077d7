"""Backfill: find what is missing in ClickHouse, fetch exactly that, bring it through Kafka.

Progress is what the tables hold: a run that was killed is started again and goes on where it was.
A second run over a complete window fetches nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog
from msgspec.structs import replace

from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.events import Candle, Gap
from alpha_pulse.contracts.market import (
    MINUTE_US,
    PUBLISHED_TIMEFRAMES,
    TIMEFRAMES,
    Timeframe,
    get_timeframe,
    ids_are_consecutive,
)
from alpha_pulse.data_pipeline.history.jobs import (
    Job,
    JobWriter,
    wait_for_candles,
    wait_for_trades,
)
from alpha_pulse.data_pipeline.history.report import Progress, Report
from alpha_pulse.data_pipeline.history.runs import (
    apart,
    count_of,
    join,
    runs_of,
    windows_of,
    with_explained,
)
from alpha_pulse.data_pipeline.history.stored import Market, StoredMarket
from alpha_pulse.producers.gaps import (
    Known,
    Missing,
    Reason,
    Window,
    explain,
    first_open,
    missing_windows,
)
from alpha_pulse.producers.history.asking import NotOfferedError
from alpha_pulse.producers.history.pages import History

log = structlog.get_logger()

# What is absent is proven against the exchange's list of trades, so many times per symbol; beyond
# that candles on both sides are proof enough.
PROOFS_MAX = 100
SYMBOLS_AT_ONCE_MAX = 8

# Markets, and whether it is about their trades.
Settle = Callable[[Sequence[Market], bool], Awaitable[object]]
Brought = tuple[Job, list[int]]  # a job that was published, and the open times of its candles


class Backfill:
    """Brings the history of one exchange's symbols into the pipeline.

    on_progress: called with a symbol's report whenever it moved on. settle: waits until ClickHouse
    shows what is on its way already, so that it is not fetched again.
    """

    def __init__(
        self,
        history: History,
        stored: StoredMarket,
        writer: JobWriter,
        on_progress: Progress = lambda report: None,
        settle: Settle | None = None,
    ) -> None:
        self.history = history
        self._settle = settle
        self._stored = stored
        self._writer = writer
        self._on_progress = on_progress

    async def run(
        self, symbols: Sequence[str], timeframe: str, start_us: int, end_us: int,
        *, trades: bool = False,
    ) -> list[Report]:  # fmt: skip
        """Fill `[start_us, end_us)` of every symbol, several at once under the one rate limit.

        trades: bring the trades themselves; the candles are built from them. An exchange that
        stops answering leaves an error in its symbol's report, and what came stays.
        Raises: StorageError, KafkaError when the pipeline itself can't be reached.
        """
        slots = asyncio.Semaphore(SYMBOLS_AT_ONCE_MAX)
        clock_us = await self.history.clock_us()
        await self.settle([Market(self.history.name, s) for s in symbols], trades=trades)

        async def one(symbol: str) -> Report:
            async with slots:
                if trades:
                    # The minute that still runs is no history: its candle would be called whole.
                    closed_us = TIMEFRAMES["1m"].open_time_us(clock_us)
                    return await self.trades(symbol, start_us, min(end_us, closed_us))
                return await self.candles(symbol, timeframe, start_us, end_us, clock_us)

        tasks = [asyncio.create_task(one(symbol)) for symbol in symbols]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            # One symbol's fault is the pipeline's: the others would wait for the same.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self, markets: Sequence[Market], *, trades: bool = False) -> None:
        """Wait until ClickHouse shows the markets' events that stand in the ingest log now."""
        if self._settle is not None:
            await self._settle(markets, trades)

    # --- candles ------------------------------------------------------------------------------

    async def candles(
        self, symbol: str, timeframe: str, start_us: int, end_us: int, clock_us: int
    ) -> Report:
        """Fill one symbol's candles of a timeframe, then the longer ones that span its windows."""
        frame = get_timeframe(timeframe)
        start_us, end_us = first_open(frame, start_us), first_open(frame, end_us)
        market = Market(self.history.name, symbol)
        report = Report(market, "candles", timeframe, start_us, end_us)
        report.wanted = max(0, end_us - start_us) // frame.duration_us
        asked_before = self.history.requests
        known = Known(closed_until_us=frame.open_time_us(min(end_us, clock_us)))
        missing = await self._missing(report, frame, known)
        report.had = report.wanted - count_of(missing, frame)
        self._on_progress(report)
        try:
            if any(run.reason == "unanswered" for run in missing):
                missing = await self._fetch_all(report, frame, known, missing)
            longer_us = min(end_us, known.closed_until_us or end_us)
            report.rebuilt = await self._longer(market, frame, start_us, longer_us)
        except DataFetchError as error:
            report.error = str(error)
            missing = await self._missing(report, frame, known)
        report.missing = missing
        report.requests = self.history.requests - asked_before
        self._on_progress(report)
        return report

    async def _missing(self, report: Report, frame: Timeframe, known: Known) -> list[Missing]:
        start_us, end_us = report.start_us, report.end_us
        have = await self._stored.open_times_us(report.market, frame, start_us, end_us)
        explained = await self._stored.explained(report.market, start_us, end_us)
        return explain(
            missing_windows(have, frame, start_us, end_us), frame, with_explained(known, explained)
        )

    async def _fetch_all(
        self, report: Report, frame: Timeframe, known: Known, missing: list[Missing]
    ) -> list[Missing]:
        market = report.market
        unanswered = [run for run in missing if run.reason == "unanswered"]
        if unanswered and unanswered[0].start_us == report.start_us:
            listed_us = await self.history.listed_from_us(market.symbol)
            if listed_us is not None and listed_us > report.start_us:
                known = with_explained(known, {}, listed_from_us=listed_us)
        proofs = [PROOFS_MAX]
        offered_from_us: int | None = None
        for run in unanswered:
            for window in apart(run, known, frame):
                offered_us = await self._fetch(report, frame, window, proofs)
                offered_from_us = max(offered_from_us or 0, offered_us) if offered_us else None
        if offered_from_us is not None:
            offered_from_us = await self._from_trades(report, frame, offered_from_us)
        return await self._missing(
            report, frame, with_explained(known, {}, offered_from_us=offered_from_us)
        )

    async def _fetch(
        self, report: Report, frame: Timeframe, window: Window, proofs: list[int]
    ) -> int | None:
        """Fetch one run as one job; return until when the exchange offers nothing, if anything."""
        market, writer = report.market, self._writer
        offered_from_us: int | None = None
        job: Job | None = None
        published: list[int] = []
        absent: list[Window] = []
        pages = self.history.candle_pages(market.symbol, frame.name, window.start_us, window.end_us)
        try:
            async for page in pages:
                if not page.offered:
                    offered_from_us = page.end_us
                    continue
                if job is None:
                    # It begins where the exchange does, so that what it covers is whole.
                    job = await writer.begin(market, frame, page.start_us, window.end_us)
                await writer.put(job, page.candles)
                published += [candle.open_time_us for candle in page.candles]
                report.fetched += len(page.candles)
                if page.absent:
                    have = [candle.open_time_us for candle in page.candles]
                    join(absent, missing_windows(have, frame, page.start_us, page.end_us))
                self._on_progress(report)
            if job is not None:
                for gone in absent:
                    await self._explain(report, frame, job, gone, proofs)
        finally:
            # What came before an error stands; the job's other windows stay missing.
            if job is not None:
                await writer.end(job)
        if job is not None:
            await wait_for_candles(self._stored, job, published)
        return offered_from_us

    async def _explain(
        self, report: Report, frame: Timeframe, job: Job, gone: Window, proofs: list[int]
    ) -> None:
        """Publish why a run is absent, or fetch it after all."""
        source, _ = self.history.source(frame.name)
        symbol = report.market.symbol
        reason: Reason = "no_trades" if source.empty_left_out else "halted"
        silent: bool | None = None
        if not source.empty_left_out and proofs[0] > 0:
            proofs[0] -= 1
            silent = await self.history.no_trade_in(symbol, gone.start_us, gone.end_us)
        if silent is False:
            # There were trades, so there are candles: every answer so far was short.
            await self._fetch_again(report, frame, gone)
            return
        if silent is None:
            inside = report.start_us < gone.start_us and gone.end_us < report.end_us
            if not inside or not await self._has_sides(report, frame, gone):
                log.warning("candles.absent", symbol=symbol, start_us=gone.start_us)
                return
        await self._writer.explain(job, gone, reason)

    async def _fetch_again(self, report: Report, frame: Timeframe, gone: Window) -> None:
        market = report.market
        wanted = range(gone.start_us, gone.end_us, frame.duration_us)
        jobs = await self.take(market, frame, wanted, "backfill")
        await self.wait(jobs)
        report.fetched += sum(len(opens) for _, opens in jobs)

    async def _has_sides(self, report: Report, frame: Timeframe, gone: Window) -> bool:
        # Agreeing empty answers, and candles on both sides of them.
        pages = self.history.candle_pages(
            report.market.symbol, frame.name, gone.start_us - frame.duration_us,
            gone.end_us + frame.duration_us,
        )  # fmt: skip
        found = [candle.open_time_us async for page in pages for candle in page.candles]
        return any(t < gone.start_us for t in found) and any(t >= gone.end_us for t in found)

    async def _from_trades(self, report: Report, frame: Timeframe, offered_us: int) -> int | None:
        """Build what the exchange shows no candles of from its trades, where it serves those."""
        run = Window(report.start_us, min(offered_us, report.end_us))
        try:
            made = await self.trades(report.market.symbol, run.start_us, run.end_us)
        except NotOfferedError as error:
            log.info("history.not_offered", symbol=report.market.symbol, error=str(error)[:200])
            return offered_us
        except DataFetchError as error:
            report.error = str(error)
            return None
        report.error = report.error or made.error
        have = await self._stored.open_times_us(report.market, frame, run.start_us, run.end_us)
        report.fetched += len(have)
        return None

    async def _longer(self, market: Market, frame: Timeframe, start_us: int, end_us: int) -> int:
        """Take the longer candles that no job covered whole from the exchange itself.

        A job publishes only what lies whole inside it: where jobs meet, the windows across the
        seam are asked for, one by one.
        """
        jobs: list[Brought] = []
        parts: list[int] | None = None
        for name in PUBLISHED_TIMEFRAMES:
            longer = TIMEFRAMES[name]
            if longer.duration_us <= frame.duration_us:
                continue
            first, last = first_open(longer, start_us), longer.open_time_us(end_us)
            if first >= last:
                break
            have = await self._stored.open_times_us(market, longer, first, last)
            missing = missing_windows(have, longer, first, last)
            if not missing or name not in self.history.source(frame.name)[0].names:
                continue
            if parts is None:
                parts = await self._stored.open_times_us(market, frame, start_us, end_us)
            traded = {longer.open_time_us(part) for part in parts}
            wanted = [
                open_us
                for run in missing
                for open_us in range(run.start_us, run.end_us, longer.duration_us)
                if open_us in traded
            ]
            jobs += await self.take(market, longer, wanted, "longer")
        await self.wait(jobs)
        return sum(len(opens) for _, opens in jobs)

    async def take(
        self, market: Market, frame: Timeframe, open_times_us: Sequence[int], kind: str
    ) -> list[Brought]:
        """Fetch single candles from the exchange and bring them; return the jobs to wait for."""
        jobs: list[Brought] = []
        for window in windows_of(open_times_us, frame):
            async for page in self.history.candle_pages(
                market.symbol, frame.name, window.start_us, window.end_us
            ):
                jobs += await self.put(market, frame, page.candles, kind)
        return jobs

    async def put(
        self, market: Market, frame: Timeframe, candles: Sequence[Candle], kind: str
    ) -> list[Brought]:
        """Publish candles of the exchange, a job for each unbroken run; return the jobs."""
        jobs: list[Brought] = []
        for run in runs_of(candles, frame):
            end_us = run[-1].open_time_us + frame.duration_us
            job = await self._writer.begin(market, frame, run[0].open_time_us, end_us, kind)
            await self._writer.put(job, run)
            await self._writer.end(job)
            jobs.append((job, [candle.open_time_us for candle in run]))
        return jobs

    async def wait(self, jobs: Iterable[Brought]) -> None:
        """Return once the candles of jobs are in ClickHouse."""
        for job, opens in jobs:
            await wait_for_candles(self._stored, job, opens)

    # --- trades -------------------------------------------------------------------------------

    async def trades(self, symbol: str, start_us: int, end_us: int) -> Report:
        """Fill one symbol's trades by id, as far as the exchange serves them.

        Raises: NotOfferedError where it serves none.
        """
        market = Market(self.history.name, symbol)
        frame = TIMEFRAMES["1m"]
        start_us, end_us = frame.open_time_us(start_us), first_open(frame, end_us)
        report = Report(market, "trades", "", start_us, end_us)
        asked_before = self.history.requests
        first = await self.history.first_trade_from(symbol, start_us)
        if first is None or first.time_us >= end_us:
            return report
        after = await self.history.first_trade_from(symbol, end_us)
        if not ids_are_consecutive(market.exchange) or after is None:
            windows = [Window(start_us, end_us)]
        else:
            report.wanted = after.trade_id - first.trade_id
            last_id = after.trade_id - 1
            windows = await self._missing_trades(market, start_us, end_us, first.trade_id, last_id)
            lost = sum(
                ids.last_id - ids.first_id + 1
                for ids in await self._stored.missing_ids(
                    market, start_us, end_us, first.trade_id, last_id
                )
            )
            report.had = report.wanted - lost
        self._on_progress(report)
        try:
            for window in windows:
                await self._fetch_trades(report, window)
        except NotOfferedError:
            raise
        except DataFetchError as error:
            report.error = str(error)
        if after is not None and ids_are_consecutive(market.exchange):
            report.missing_ids = [
                (ids.first_id, ids.last_id)
                for ids in await self._stored.missing_ids(
                    market, start_us, end_us, first.trade_id, after.trade_id - 1
                )
            ]
        report.requests = self.history.requests - asked_before
        self._on_progress(report)
        return report

    async def refetch(self, market: Market, window: Window) -> None:
        """Bring all trades of whole minutes again, so that their candles are built anew.

        Raises: NotOfferedError where the exchange serves no old trades.
        """
        report = Report(market, "trades", "", window.start_us, window.end_us)
        await self._fetch_trades(report, window)

    async def publish_again(self, market: Market, frame: Timeframe, window: Window) -> None:
        """Publish the exchange's own candles of a window, as the live stream would."""
        async for page in self.history.candle_pages(
            market.symbol, frame.name, window.start_us, window.end_us
        ):
            for candle in page.candles:
                await self._writer.publish(market, candle)
        await self._writer.flush()

    async def tell_filled(self, market: Market, gap: Gap) -> None:
        """Publish that nothing of a gap is missing any more."""
        filled = replace(gap, status="filled", reason="fetched as history", revision=0, job=None)
        await self._writer.publish(market, filled)
        await self._writer.flush()

    async def _missing_trades(
        self, market: Market, start_us: int, end_us: int, first_id: int, last_id: int
    ) -> list[Window]:
        found: list[Window] = []
        for ids in await self._stored.missing_ids(market, start_us, end_us, first_id, last_id):
            # Whole minutes, so that their candles can be built; what overlaps is one job.
            first = max(start_us, ids.before_us - ids.before_us % MINUTE_US)
            last = min(end_us, ids.after_us - ids.after_us % MINUTE_US + MINUTE_US)
            if found and first <= found[-1].end_us:
                found[-1] = Window(found[-1].start_us, max(last, found[-1].end_us))
            else:
                found.append(Window(first, last))
        return found

    async def _fetch_trades(self, report: Report, window: Window) -> None:
        market, writer = report.market, self._writer
        job: Job | None = None
        ids: set[str] = set()
        minutes: set[int] = set()
        try:
            async for page in self.history.trade_pages(
                market.symbol, window.start_us, window.end_us
            ):
                if job is None:
                    job = await writer.begin(market, None, window.start_us, window.end_us)
                await writer.put(job, page.trades)
                ids.update(trade.trade_id for trade in page.trades)
                minutes.update(t.trade_time_us - t.trade_time_us % MINUTE_US for t in page.trades)
                report.fetched += len(page.trades)
                self._on_progress(report)
        finally:
            if job is not None:
                await writer.end(job)
        if job is not None:
            await wait_for_trades(self._stored, job, len(ids))
            await wait_for_candles(self._stored, job, minutes)
