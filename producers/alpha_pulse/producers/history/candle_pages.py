"""Pages of an exchange's own candles, as complete as it has them.

An answer that is short is never taken for complete: it is asked again, for what lacks, until two
answers agree that there is no more.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from alpha_pulse.contracts.config import HistoryConfig
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import DAY_US, TIMEFRAMES, Timeframe, get_timeframe
from alpha_pulse.producers.exchanges.adapter import CandleSource
from alpha_pulse.producers.exchanges.candles import OFF_GRID, CandleRequest
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.rows import RefusedRow
from alpha_pulse.producers.history.asking import Asker, NotOfferedError
from alpha_pulse.producers.history.missing import Window, first_open, missing_windows

# Answers that agree before candles count as absent; and how often a page is asked at all.
AGREEING_ANSWERS = 2
ANSWERS_MAX = 20
# Of an exchange that shows its newest candles: an answer without the last of them is doubtful.
DOUBTFUL_ANSWERS_MAX = 4


@dataclass(frozen=True, slots=True)
class CandlePage:
    """The exchange's candles that open within `[start_us, end_us)`, ascending and unique.

    absent: how many of the window's candles the exchange does not have, by agreeing answers.
    offered: False where the exchange does not serve so old candles at all.
    refused: rows that came instead of absent candles and break the contract.
    """

    start_us: int
    end_us: int
    candles: list[Candle]
    absent: int = 0
    offered: bool = True
    refused: tuple[RefusedRow, ...] = ()

    def refused_us(self, timeframe: Timeframe) -> list[int]:
        """Return the open times of absent candles whose rows were refused, ascending.

        Args:
            timeframe: of the page's candles.
        """
        times_us = {row.error.at_us for row in self.refused if row.error.at_us is not None}
        have = [candle.open_time_us for candle in self.candles]
        gone = [
            open_us
            for window in missing_windows(have, timeframe, self.start_us, self.end_us)
            for open_us in range(window.start_us, window.end_us, timeframe.duration_us)
        ]
        # A row may be so broken that it tells no time: then all that is absent must be such rows.
        are_all = len(gone) == len(self.refused)
        return gone if are_all else [open_us for open_us in gone if open_us in times_us]


class CandlePages:
    """One exchange's candles. ask: under the limiter that everybody shares."""

    def __init__(self, ask: Asker, settings: HistoryConfig) -> None:
        self._ask = ask
        self._name, self._client = ask.name, ask.client
        self._source = exchange_of(ask.client.id).candles
        self._settings = settings

    @property
    def timeframes(self) -> Mapping[str, str]:
        """Return the exchange's names of the timeframes that it has candles of."""
        return self._source.timeframes(self._client)

    def source(self, timeframe: str) -> tuple[CandleSource, str]:
        """Return how candles of a timeframe are asked for, and the exchange's name of it.

        Args:
            timeframe: our name of it, such as `1m`.

        Raises:
            NotOfferedError: the exchange has no candles of that timeframe.
        """
        names = self.timeframes
        if timeframe not in names:
            raise NotOfferedError(
                f"expected a timeframe that {self._name} serves, one of {' '.join(names)}, "
                f"found {timeframe}; fetch a shorter one: longer ones are built from it"
            )
        return self._source, names[timeframe]

    async def pages(
        self, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> AsyncGenerator[CandlePage, None]:
        """Yield the pages of `[start_us, end_us)` in order, as complete as the exchange has them.

        Every candle of the window is asked for, whether earlier pages were empty or not.

        Args:
            symbol: the unified symbol.
            timeframe: our name of it, such as `1m`.
            start_us: the window's beginning, Unix µs.
            end_us: its end, excluded; not beyond the last closed candle (`clock_us`): an open one
                is no candle yet.

        Raises:
            NotOfferedError, DataFetchError: as `Asker`; what was yielded before stands.
        """
        source, name = self.source(timeframe)
        frame = get_timeframe(timeframe)
        start_us, end_us = first_open(frame, start_us), first_open(frame, end_us)
        if source.newest_rows is not None:
            async for page in self._newest_candles(source, name, symbol, frame, start_us, end_us):
                yield page
            return
        rows = min(source.page_rows, self._settings.page_rows_max or source.page_rows)
        step_us = rows * frame.duration_us
        starts = deque(range(start_us, end_us, step_us))
        running: deque[asyncio.Task[CandlePage]] = deque()
        try:
            while starts or running:
                while starts and len(running) < self._settings.pages_ahead_max:
                    first = starts.popleft()
                    page_end = min(first + step_us, end_us)
                    request = CandleRequest(
                        self._name, self._client, symbol, frame, first, page_end
                    )
                    running.append(asyncio.create_task(self._candle_page(source, name, request)))
                page = await running[0]
                running.popleft()
                yield page
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _candle_page(
        self, source: CandleSource, name: str, request: CandleRequest
    ) -> CandlePage:
        # `request` shrinks to what is still missing; what came stays.
        found: dict[int, Candle] = {}
        refused: tuple[RefusedRow, ...] = ()
        start_us, end_us, frame = request.start_us, request.end_us, request.timeframe
        agreeing = 0
        for _ in range(ANSWERS_MAX):
            before = len(found)
            answer = await self._ask_candles(source, name, request)
            self._check_grid(answer, request)
            for candle in answer:
                if start_us <= candle.open_time_us < end_us:
                    found.setdefault(candle.open_time_us, candle)
            missing = missing_windows(found, frame, start_us, end_us)
            refused = _refused_in(request.refused, missing)
            if not missing:
                break
            agreeing = 1 if len(found) > before else agreeing + 1
            if agreeing >= AGREEING_ANSWERS:
                break
            first_us, last_us = missing[0].start_us, missing[-1].end_us
            request = CandleRequest(
                self._name, self._client, request.symbol, frame, first_us, last_us
            )
        candles = [found[time_us] for time_us in sorted(found)]
        wanted = (end_us - start_us) // frame.duration_us
        return CandlePage(start_us, end_us, candles, wanted - len(candles), refused=refused)

    def _check_grid(self, answer: list[Candle], request: CandleRequest) -> None:
        # Some exchanges' weeks begin on Thursday: no row of theirs is ever one of our candles.
        off = [row for row in request.refused if row.error.reason == OFF_GRID]
        if len(off) > 1 and not answer:
            raise NotOfferedError(
                f"expected {request.timeframe} candles of {request.symbol} that open on the grid, "
                f"found that those of {self._name} open at other times ({off[0].error}); fetch a "
                "shorter timeframe: longer ones are built from it"
            )

    async def _ask_candles(
        self, source: CandleSource, name: str, request: CandleRequest
    ) -> list[Candle]:
        what = f"{request.timeframe} candles of {request.symbol} from {request.start_us} µs on"
        return await self._ask(what, lambda: source.ask(request, name))

    async def _newest_candles(
        self, source: CandleSource, name: str, symbol: str, frame: Timeframe, start_us: int,
        end_us: int,
    ) -> AsyncIterator[CandlePage]:  # fmt: skip
        # Whatever is asked for, the newest candles come: one request brings all there are.
        request = CandleRequest(self._name, self._client, symbol, frame, frame.duration_us, end_us)
        found: dict[int, Candle] = {}
        agreeing = 0
        for _ in range(ANSWERS_MAX):
            before = len(found)
            request = replace(request, refused=[])
            for candle in await self._ask_candles(source, name, request):
                found.setdefault(candle.open_time_us, candle)
            offered_us = min(found, default=end_us)
            if found and not missing_windows(found, frame, max(start_us, offered_us), end_us):
                break
            agreeing = 1 if len(found) > before else agreeing + 1
            # The newest are what is shown for certain: without them an answer is doubtful.
            has_end = end_us - frame.duration_us in found
            if agreeing >= (AGREEING_ANSWERS if has_end else DOUBTFUL_ANSWERS_MAX):
                break
        if start_us < offered_us:
            yield CandlePage(start_us, min(offered_us, end_us), [], offered=False)
        if offered_us < end_us:
            first_us = max(start_us, offered_us)
            candles = [found[t] for t in sorted(found) if first_us <= t < end_us]
            absent = (end_us - first_us) // frame.duration_us - len(candles)
            gone = missing_windows(found, frame, first_us, end_us)
            refused = _refused_in(request.refused, gone)
            yield CandlePage(first_us, end_us, candles, absent, refused=refused)

    async def first_us(self, symbol: str) -> int | None:
        """Return when the symbol's first candle of all opens, Unix µs.

        Args:
            symbol: the unified symbol.

        Returns:
            None where one request can't show it, or there is none.

        Raises:
            DataFetchError: the exchange does not answer.
        """
        ask = self._source.listed_from_us
        if ask is None:
            return None
        return await self._ask(f"the first candle of {symbol}", lambda: ask(self._client, symbol))

    async def days(self, symbol: str, start_us: int, end_us: int) -> list[Window]:
        """Return the days with candles that touch a window, as far as they are closed.

        Years take a request or two. Where the exchange has no candles of days: its longest ones.

        Args:
            symbol: the unified symbol.
            start_us: the window's beginning, Unix µs.
            end_us: its end, excluded, at most what is closed.

        Raises:
            DataFetchError: the exchange does not answer.
        """
        names = [TIMEFRAMES[name] for name in self.timeframes if name in TIMEFRAMES]
        frame = max(
            (frame for frame in names if frame.duration_us <= DAY_US),
            key=lambda frame: frame.duration_us,
            default=None,
        )
        if frame is None or start_us >= end_us:
            return []
        pages = self.pages(
            symbol, frame.name, frame.open_time_us(start_us), frame.open_time_us(end_us)
        )
        found: list[Window] = []
        async with aclosing(pages):
            async for page in pages:
                opens = [candle.open_time_us for candle in page.candles]
                found += [Window(open_us, open_us + frame.duration_us) for open_us in opens]
        return found


def _refused_in(rows: Iterable[RefusedRow], gone: list[Window]) -> tuple[RefusedRow, ...]:
    # An exchange may answer with more than was asked for: only what is absent is of interest.
    return tuple(
        row
        for row in rows
        if gone
        and (
            row.error.at_us is None
            or any(window.start_us <= row.error.at_us < window.end_us for window in gone)
        )
    )
