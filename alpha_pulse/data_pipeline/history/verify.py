"""Verify: the stored candles against the exchange's own, field by field; and what heals them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import structlog

from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.events import Candle, FieldDifference, Gap
from alpha_pulse.contracts.kinds import CANDLE
from alpha_pulse.contracts.market import (
    MINUTE_US,
    PUBLISHED_TIMEFRAMES,
    TIMEFRAMES,
    Timeframe,
    get_timeframe,
)
from alpha_pulse.data_pipeline.history.backfill import Backfill
from alpha_pulse.data_pipeline.history.stored import StoredMarket
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.producers.history.asking import NotOfferedError
from alpha_pulse.producers.history.missing import Window, first_open

log = structlog.get_logger()

# Minutes so near to each other are refetched together.
NEAR_US = 10 * MINUTE_US
# Where refetched trades and the exchange's candle go on differing it is a finding, to be left.
TRIES_MAX = 2
TRIED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One candle that differs from the exchange's own. differences: none when we have none."""

    open_time_us: int
    coverage: str
    differences: tuple[FieldDifference, ...]


@dataclass(slots=True)
class Verdict:
    """What a comparison of one symbol and timeframe found. healed: mismatches before healing.

    error: why it could not be compared.
    """

    market: Market
    timeframe: str
    start_us: int
    end_us: int
    compared: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    absent: list[int] = field(default_factory=list)
    healed: int = 0
    error: str = ""


def differences(ours: Candle, theirs: Candle) -> tuple[FieldDifference, ...]:
    """Return the fields in which two candles differ; what one side does not know is no difference.

    Numbers are compared, not texts: `1.50` is `1.5`.
    """
    found = []
    for name in CANDLE.decimal_fields:
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine is not None and other is not None and Decimal(mine) != Decimal(other):
            found.append(FieldDifference(field=name, ours=mine, exchange=other))
    counts = (ours.trade_count, theirs.trade_count)
    if None not in counts and counts[0] != counts[1]:
        found.append(
            FieldDifference(field="trade_count", ours=str(counts[0]), exchange=str(counts[1]))
        )
    return tuple(found)


class Verifier:
    """Compares and heals. A backfill brings what is to be corrected."""

    def __init__(self, backfill: Backfill, stored: StoredMarket) -> None:
        self._backfill = backfill
        self._history = backfill.bring.history
        self._stored = stored

    async def verify(
        self, symbol: str, timeframe: str, start_us: int, end_us: int, *, heal: bool = False
    ) -> Verdict:
        """Hold the stored candles of a window against the exchange's own, fetched now.

        heal: refetch the trades of what differs (where the exchange serves none: take its candle),
        which corrects it by a revision; then compare again.
        Raises: DataFetchError when the exchange does not answer.
        """
        market = Market(self._history.name, symbol)
        frame = get_timeframe(timeframe)
        clock_us = frame.open_time_us(await self._history.clock_us())
        start_us, end_us = first_open(frame, start_us), min(first_open(frame, end_us), clock_us)
        verdict = Verdict(market, timeframe, start_us, end_us)
        if start_us >= end_us:
            return verdict
        theirs = await self._fetch(symbol, frame, start_us, end_us)
        await self._compare(verdict, frame, theirs)
        if heal and verdict.mismatches:
            before = len(verdict.mismatches)
            await self.heal(market, frame, [m.open_time_us for m in verdict.mismatches], theirs)
            await self._compare(verdict, frame, theirs)
            verdict.healed = before - len(verdict.mismatches)
        return verdict

    async def heal(
        self, market: Market, frame: Timeframe, open_times_us: Sequence[int],
        theirs: dict[int, Candle],
    ) -> None:  # fmt: skip
        """Correct candles by a revision: from refetched trades, else the exchange's own.

        theirs: the exchange's candles by open time, as far as they are known. The longer candles
        over them are corrected too.
        """
        if frame.duration_us == MINUTE_US:
            try:
                for window in near(open_times_us, frame):
                    await self._backfill.trades.refetch(market, window)
            except NotOfferedError as error:
                log.info("heal.by_candles", symbol=market.symbol, reason=str(error)[:200])
        left = await self._different(market, frame, open_times_us, theirs)
        # Trades with consecutive ids stand against the exchange's candle: a finding, no mistake.
        wrong = [theirs[t] for t, coverage in left.items() if coverage != "contiguous"]
        jobs = await self._backfill.bring.put(market, frame, wrong, "heal")
        await self._backfill.bring.wait(jobs)
        await self._heal_longer(market, frame, open_times_us)

    async def _heal_longer(
        self, market: Market, frame: Timeframe, open_times_us: Iterable[int]
    ) -> None:
        touched = sorted(open_times_us)
        names, clock_us = (
            self._history.candles.timeframes,
            await self._history.clock_us(),
        )
        jobs = []
        for name in PUBLISHED_TIMEFRAMES:
            longer = TIMEFRAMES[name]
            if longer.duration_us <= frame.duration_us or name not in names:
                continue
            windows = dict.fromkeys(longer.open_time_us(time_us) for time_us in touched)
            for open_us in windows:
                if open_us + longer.duration_us > clock_us:
                    continue
                theirs = await self._fetch(
                    market.symbol, longer, open_us, open_us + longer.duration_us
                )
                left = await self._different(market, longer, [open_us], theirs)
                wrong = [theirs[time_us] for time_us in left]
                jobs += await self._backfill.bring.put(market, longer, wrong, "heal")
        await self._backfill.bring.wait(jobs)

    async def _different(
        self, market: Market, frame: Timeframe, open_times_us: Sequence[int],
        theirs: dict[int, Candle],
    ) -> dict[int, str]:  # fmt: skip
        if not open_times_us:
            return {}
        ours = await self._stored.candles(
            market, frame, min(open_times_us), max(open_times_us) + frame.duration_us
        )
        wanted = set(open_times_us)
        return {
            candle.open_time_us: candle.coverage
            for candle in ours
            if candle.open_time_us in wanted
            and candle.open_time_us in theirs
            and differences(candle, theirs[candle.open_time_us])
        }

    async def _compare(self, verdict: Verdict, frame: Timeframe, theirs: dict[int, Candle]) -> None:
        ours = await self._stored.candles(verdict.market, frame, verdict.start_us, verdict.end_us)
        verdict.mismatches.clear()
        have = {candle.open_time_us for candle in ours}
        verdict.absent = sorted(set(theirs) - have)
        both = [candle for candle in ours if candle.open_time_us in theirs]
        verdict.compared = len(both)
        for candle in both:
            found = differences(candle, theirs[candle.open_time_us])
            if found:
                verdict.mismatches.append(Mismatch(candle.open_time_us, candle.coverage, found))

    async def _fetch(
        self, symbol: str, frame: Timeframe, start_us: int, end_us: int
    ) -> dict[int, Candle]:
        pages = self._history.candles.pages(symbol, frame.name, start_us, end_us)
        return {candle.open_time_us: candle async for page in pages for candle in page.candles}


@dataclass(slots=True)
class Repair:
    """What one round of repair did for one symbol."""

    market: Market
    fetched: int = 0
    healed: int = 0
    filled: int = 0
    left: int = 0
    error: str = ""


class Repairer:
    """Heals what the tables themselves say is wrong or missing; compares nothing else."""

    def __init__(self, backfill: Backfill, stored: StoredMarket, verifier: Verifier) -> None:
        self._backfill = backfill
        self._history = backfill.bring.history
        self._stored = stored
        self._verifier = verifier
        self._tried: dict[tuple[Market, int], int] = {}

    async def repair(self, symbol: str, start_us: int, end_us: int) -> Repair:
        """Fill missing minutes and gaps of a window, and correct what the audit found different.

        An exchange that does not answer leaves its error; the next round tries again.
        """
        market = Market(self._history.name, symbol)
        done = Repair(market)
        frame = TIMEFRAMES["1m"]
        try:
            done.filled = await self.fill_gaps(market, since_us=start_us)
            await self._correct(done, frame, start_us, end_us)
            report = await self._backfill.candles.fill(
                symbol, "1m", start_us, end_us, await self._history.clock_us()
            )
            done.fetched, done.error = report.fetched, report.error
        except DataFetchError as error:
            done.error = str(error)
        return done

    async def _correct(self, done: Repair, frame: Timeframe, start_us: int, end_us: int) -> None:
        market = done.market
        different = await self._stored.different(market, frame, start_us, end_us)
        fresh = [t for t in different if self._tried.get((market, t), 0) < TRIES_MAX]
        for open_us in fresh:
            self._tried[market, open_us] = self._tried.get((market, open_us), 0) + 1
        for window in near(fresh, frame):
            verdict = await self._verifier.verify(
                market.symbol, frame.name, window.start_us, window.end_us, heal=True
            )
            done.healed += verdict.healed
            # It may be the exchange's candle that reached us wrong: it is published once more.
            await self._backfill.bring.publish_again(market, frame, window)
        done.left = len(different) - len(fresh)
        while len(self._tried) > TRIED_MAX:
            del self._tried[next(iter(self._tried))]

    async def fill_gaps(self, market: Market, *, since_us: int = 0) -> int:
        """Fetch the trades of gaps that are not filled, by id; return how many gaps were filled."""
        clock_us = await self._history.clock_us()
        wanted: list[tuple[Gap, Window]] = []
        for gap in await self._stored.gaps(market, since_us=since_us):
            first, last = gap.first_trade_id, gap.last_trade_id
            if first is None or last is None or not (first.isdigit() and last.isdigit()):
                continue
            start_us = gap.start_time_us - gap.start_time_us % MINUTE_US
            end_us = gap.end_time_us - gap.end_time_us % MINUTE_US + MINUTE_US
            if end_us <= clock_us:  # else its last minute is still open: the next round
                wanted.append((gap, Window(start_us, end_us)))
        try:
            for window in merged(window for _, window in wanted):
                await self._backfill.trades.refetch(market, window)
        except NotOfferedError as error:
            log.info("gaps.left", symbol=market.symbol, reason=str(error)[:200])
            return 0
        filled = 0
        for gap, window in wanted:
            first_id, last_id = int(gap.first_trade_id or 0), int(gap.last_trade_id or 0)
            left = await self._stored.missing_ids(
                market, window.start_us, window.end_us, first_id, last_id
            )
            if not left:
                await self._backfill.bring.tell_filled(market, gap)
                filled += 1
        return filled


def merged(windows: Iterable[Window]) -> list[Window]:
    """Return windows in order, those near to each other as one."""
    found: list[Window] = []
    for window in sorted(windows):
        if found and window.start_us - found[-1].end_us <= NEAR_US:
            found[-1] = Window(found[-1].start_us, max(found[-1].end_us, window.end_us))
        else:
            found.append(window)
    return found


def near(open_times_us: Iterable[int], frame: Timeframe) -> list[Window]:
    """Return the windows to refetch for candles: those near to each other are one."""
    return merged(Window(open_us, open_us + frame.duration_us) for open_us in open_times_us)
