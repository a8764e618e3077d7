"""Backfill: find what is missing in ClickHouse, fetch exactly that, bring it through Kafka.

Progress is what the tables hold: a run that was killed is started again and goes on where it was.
A second run over a complete window fetches nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.market import TIMEFRAMES
from alpha_pulse.data_pipeline.history.bringing import Bringer
from alpha_pulse.data_pipeline.history.candle_backfill import CandleBackfill
from alpha_pulse.data_pipeline.history.jobs import JobWriter
from alpha_pulse.data_pipeline.history.report import Progress, Report
from alpha_pulse.data_pipeline.history.stored import StoredMarket
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.data_pipeline.history.trade_backfill import TradeBackfill
from alpha_pulse.producers.history.pages import History

SYMBOLS_AT_ONCE_MAX = 8

# Markets, and whether it is about their trades.
Settle = Callable[[Sequence[Market], bool], Awaitable[object]]


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
        self.bring = Bringer(history, stored, writer)
        self.trades = TradeBackfill(self.bring, on_progress)
        self.candles = CandleBackfill(self.bring, self.trades, on_progress)
        self._settle = settle

    async def run(
        self, symbols: Sequence[str], timeframe: str, start_us: int, end_us: int,
        *, trades: bool = False,
    ) -> list[Report]:  # fmt: skip
        """Fill `[start_us, end_us)` of every symbol, several at once under the one rate limit.

        trades: bring the trades themselves; the candles are built from them. Each symbol's fault is
        its own: a symbol that is not listed or not served, and an exchange that stops answering,
        leave an error in the symbol's report, and what came stays.
        Raises: StorageError, KafkaError when the pipeline itself can't be reached.
        """
        slots = asyncio.Semaphore(SYMBOLS_AT_ONCE_MAX)
        clock_us = await self.history.clock_us()
        await self.settle([Market(self.history.name, s) for s in symbols], trades=trades)

        async def one(symbol: str) -> Report:
            async with slots:
                try:
                    self.history.check_listed(symbol)
                    if not trades:
                        return await self.candles.fill(
                            symbol, timeframe, start_us, end_us, clock_us
                        )
                    # The minute that still runs is no history: its candle would be called whole.
                    closed_us = TIMEFRAMES["1m"].open_time_us(clock_us)
                    return await self.trades.fill(symbol, start_us, min(end_us, closed_us))
                except DataFetchError as error:
                    return Report(
                        Market(self.history.name, symbol),
                        "trades" if trades else "candles",
                        "" if trades else timeframe,
                        start_us,
                        end_us,
                        error=str(error),
                    )

        tasks = [asyncio.create_task(one(symbol)) for symbol in symbols]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            # What is left is the pipeline's fault: the others would wait for the same.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self, markets: Sequence[Market], *, trades: bool = False) -> None:
        """Wait until ClickHouse shows the markets' events that stand in the ingest log now."""
        if self._settle is not None:
            await self._settle(markets, trades)
