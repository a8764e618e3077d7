"""A symbol's trades by id, as far as the exchange serves them; the candles are built from them."""

from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.market import MINUTE_US, TIMEFRAMES
from alpha_pulse.data_pipeline.history.bringing import Bringer
from alpha_pulse.data_pipeline.history.jobs import (
    Job,
    wait_for_candles,
    wait_for_no_trades,
    wait_for_trades,
)
from alpha_pulse.data_pipeline.history.report import Progress, Report
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.history.asking import NotOfferedError
from alpha_pulse.producers.history.missing import Window, first_open
from alpha_pulse.producers.history.trade_pages import in_id_order


class TradeBackfill:
    """Fills trades. on_progress: called with a symbol's report whenever it moved on."""

    def __init__(self, bring: Bringer, on_progress: Progress) -> None:
        self.history = bring.history
        self._stored = bring.stored
        self._writer = bring.writer
        self._on_progress = on_progress

    async def fill(self, symbol: str, start_us: int, end_us: int) -> Report:
        """Fill one symbol's trades by id, as far as the exchange serves them.

        Raises: NotOfferedError where it serves none.
        """
        market = Market(self.history.name, symbol)
        frame = TIMEFRAMES["1m"]
        start_us, end_us = frame.open_time_us(start_us), first_open(frame, end_us)
        report = Report(market, "trades", "", start_us, end_us)
        asked_before = self.history.requests
        first = await self.history.trades.first_trade_from(symbol, start_us)
        if first is None or first.time_us >= end_us:
            return report
        after = await self.history.trades.first_trade_from(symbol, end_us)
        by_id = exchange_of(market.exchange).ids_are_consecutive
        if not by_id or after is None:
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
        if by_id and after is not None:
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
        no_trades = 0
        try:
            async for page in self.history.trades.pages(
                market.symbol, window.start_us, window.end_us
            ):
                if job is None:
                    job = await writer.begin(market, None, window.start_us, window.end_us)
                await writer.put(job, in_id_order(page))
                await writer.refuse(market, page.refused)
                ids.update(trade.trade_id for trade in page.trades)
                minutes.update(t.trade_time_us - t.trade_time_us % MINUTE_US for t in page.trades)
                no_trades += len(page.no_trades)
                report.fetched += len(page.trades)
                self._on_progress(report)
        finally:
            if job is not None:
                await writer.end(job)
        if job is not None:
            await wait_for_trades(self._stored, job, len(ids))
            await wait_for_no_trades(self._stored, job, no_trades)
            await wait_for_candles(self._stored, job, minutes)
