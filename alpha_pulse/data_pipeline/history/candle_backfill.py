"""A symbol's candles of one timeframe, and the longer ones that span what was brought apart."""

from dataclasses import dataclass, field

import structlog

from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.market import PUBLISHED_TIMEFRAMES, TIMEFRAMES, Timeframe, get_timeframe
from alpha_pulse.data_pipeline.history.bringing import Bringer, Brought
from alpha_pulse.data_pipeline.history.jobs import Job, wait_for_candles
from alpha_pulse.data_pipeline.history.report import Progress, Report
from alpha_pulse.data_pipeline.history.runs import (
    apart,
    count_of,
    join,
    windows_of,
    with_explained,
)
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.data_pipeline.history.trade_backfill import TradeBackfill
from alpha_pulse.producers.history.absence import ended_from_us, why_absent
from alpha_pulse.producers.history.asking import NotOfferedError
from alpha_pulse.producers.history.missing import (
    Known,
    Missing,
    Reason,
    Window,
    explain,
    first_open,
    missing_windows,
)

log = structlog.get_logger()

# What is absent is proven against the exchange's list of trades, so many times per symbol; beyond
# that candles on both sides are proof enough.
PROOFS_MAX = 100
# At the end of a longer run without candles it is worth a few requests to learn whether the symbol
# is traded at all any more.
LONG_CANDLES = 5_000


@dataclass(slots=True)
class _Proofs:
    # Until when candles are closed, how many proofs by trades are left, and what was proven: it is
    # on its way to ClickHouse, and may not be seen there yet.
    closed_us: int
    left: int = PROOFS_MAX
    told: dict[Reason, list[Window]] = field(default_factory=dict)


class CandleBackfill:
    """Fills candles. on_progress: called with a symbol's report whenever it moved on."""

    def __init__(self, bring: Bringer, trades: TradeBackfill, on_progress: Progress) -> None:
        self.history = bring.history
        self._bring = bring
        self._stored = bring.stored
        self._writer = bring.writer
        self._trades = trades
        self._on_progress = on_progress

    async def fill(
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
        closed_us = known.closed_until_us or report.end_us
        if unanswered and unanswered[0].start_us == report.start_us:
            listed_us = await self.history.listed_from_us(market.symbol, report.start_us, closed_us)
            if listed_us is not None and listed_us > report.start_us:
                known = with_explained(known, {}, listed_from_us=listed_us)
        if unanswered and count_of(unanswered[-1:], frame) > LONG_CANDLES:
            known = await self._ended(market, frame, known, unanswered[-1])
        proofs = _Proofs(closed_us)
        offered_from_us: int | None = None
        for run in unanswered:
            for window in apart(run, known, frame):
                offered_us = await self._fetch(report, frame, window, proofs)
                offered_from_us = max(offered_from_us or 0, offered_us) if offered_us else None
        if offered_from_us is not None:
            offered_from_us = await self._from_trades(report, frame, offered_from_us)
        return await self._missing(
            report, frame, with_explained(known, proofs.told, offered_from_us=offered_from_us)
        )

    async def _ended(self, market: Market, frame: Timeframe, known: Known, run: Missing) -> Known:
        """Return what is known once a long time after a symbol's last trade is told as such.

        Else years without a candle would be asked for page by page, each until answers agree.
        """
        ended_us = await ended_from_us(self.history, market.symbol, run.start_us)
        if ended_us is None:
            return known
        gone = Window(max(run.start_us, first_open(frame, ended_us)), run.end_us)
        if gone.start_us >= gone.end_us:
            return known
        job = await self._writer.begin(market, frame, gone.start_us, gone.end_us)
        await self._writer.explain(job, gone, "ended")
        await self._writer.end(job)
        return with_explained(known, {"ended": [gone]})

    async def _fetch(
        self, report: Report, frame: Timeframe, window: Window, proofs: _Proofs
    ) -> int | None:
        """Fetch one run as one job; return until when the exchange offers nothing, if anything."""
        market, writer = report.market, self._writer
        offered_from_us: int | None = None
        job: Job | None = None
        published: list[int] = []
        absent: list[Window] = []
        pages = self.history.candles.pages(
            market.symbol, frame.name, window.start_us, window.end_us
        )
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
                    refused = page.refused_us(frame)
                    have = [*(candle.open_time_us for candle in page.candles), *refused]
                    join(absent, missing_windows(have, frame, page.start_us, page.end_us))
                    await writer.refuse(market, page.refused)
                    for gone in windows_of(refused, frame):
                        await self._tell(job, gone, "refused", proofs)
                self._on_progress(report)
            if job is not None:
                for gone in absent:
                    await self._explain(report, frame, job, gone, published, proofs)
        finally:
            # What came before an error stands; the job's other windows stay missing.
            if job is not None:
                await writer.end(job)
        if job is not None:
            await wait_for_candles(self._stored, job, published)
        return offered_from_us

    async def _explain(
        self, report: Report, frame: Timeframe, job: Job, gone: Window, have: list[int],
        proofs: _Proofs,
    ) -> None:  # fmt: skip
        """Publish why a run is absent, or fetch it after all."""
        symbol = report.market.symbol
        proofs.left -= 1
        reason = await why_absent(
            self.history, symbol, frame, gone, proofs.closed_us, have,
            ask_trades=proofs.left >= 0,
        )  # fmt: skip
        if reason in ("halted", "no_trades", "ended"):
            await self._tell(job, gone, reason, proofs)
        elif reason == "unanswered" and await self._fetch_again(report, frame, gone):
            # There were trades, so there are candles: every answer so far was short.
            log.info("candles.fetched_again", symbol=symbol, start_us=gone.start_us)
        else:
            log.warning("candles.absent", symbol=symbol, start_us=gone.start_us, reason=reason)

    async def _tell(self, job: Job, gone: Window, reason: Reason, proofs: _Proofs) -> None:
        await self._writer.explain(job, gone, reason)
        proofs.told.setdefault(reason, []).append(gone)

    async def _fetch_again(self, report: Report, frame: Timeframe, gone: Window) -> int:
        market = report.market
        wanted = range(gone.start_us, gone.end_us, frame.duration_us)
        jobs = await self._bring.take(market, frame, wanted, "backfill")
        await self._bring.wait(jobs)
        fetched = sum(len(opens) for _, opens in jobs)
        report.fetched += fetched
        return fetched

    async def _from_trades(self, report: Report, frame: Timeframe, offered_us: int) -> int | None:
        """Build what the exchange shows no candles of from its trades, where it serves those."""
        run = Window(report.start_us, min(offered_us, report.end_us))
        try:
            made = await self._trades.fill(report.market.symbol, run.start_us, run.end_us)
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
            if not missing or name not in self.history.candles.timeframes:
                continue
            if parts is None:
                parts = await self._stored.open_times_us(market, frame, start_us, end_us)
            traded = {longer.open_time_us(part) for part in parts}
            explained = await self._stored.explained(market, first, last)
            refused = Known(refused=explained.get("refused", ()))
            wanted = [
                open_us
                for run in explain(missing, longer, refused)
                if run.reason != "refused"
                for open_us in range(run.start_us, run.end_us, longer.duration_us)
                if open_us in traded
            ]
            jobs += await self._bring.take(market, longer, wanted, "longer")
        await self._bring.wait(jobs)
        return sum(len(opens) for _, opens in jobs)
