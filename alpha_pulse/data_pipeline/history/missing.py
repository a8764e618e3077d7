"""What is missing of each stored market, from the tables alone."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from alpha_pulse.contracts.events import Gap
from alpha_pulse.contracts.market import PUBLISHED_TIMEFRAMES, TIMEFRAMES
from alpha_pulse.data_pipeline.history.runs import with_explained
from alpha_pulse.data_pipeline.history.stored import StoredMarket
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.producers.history.missing import (
    FINAL_REASONS,
    Known,
    Missing,
    explain,
    first_open,
    missing_windows,
)


@dataclass(slots=True)
class MissingMarket:
    """What one market lacks between two times: candles by timeframe, gaps in trades.

    timeframe: the shortest that is wanted. error: why healing failed.
    """

    market: Market
    timeframe: str
    start_us: int
    end_us: int
    candles: dict[str, list[Missing]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    error: str = ""

    @property
    def may_be_healed(self) -> bool:
        """Whether something is missing that may exist."""
        return bool(self.gaps) or any(
            run.reason not in FINAL_REASONS for runs in self.candles.values() for run in runs
        )


async def find_missing(
    stored: StoredMarket,
    chosen: tuple[str, str],
    timeframes: Iterable[str],
    window: tuple[int | None, int | None],
) -> list[MissingMarket]:
    """Return what each market lacks. chosen: exchange and symbol, "" for all of them.

    timeframes: none: the shortest that is stored of a market, and all longer ones. window: default
    from the market's first such candle, else trade, to its last one.
    Raises: ValidationError when no such market is stored.
    """
    found = []
    named = list(timeframes)
    for span in await stored.chosen_markets(*chosen):
        market, shortest = span.market, TIMEFRAMES[span.timeframe or "1m"]
        start_us = span.start_us if window[0] is None else window[0]
        end_us = span.end_us if window[1] is None else window[1]
        names = named or [
            name
            for name in PUBLISHED_TIMEFRAMES
            if TIMEFRAMES[name].duration_us >= shortest.duration_us
        ]
        lacking = MissingMarket(market, names[0], start_us, end_us)
        explained = await stored.explained(market, start_us, end_us)
        known = with_explained(Known(), explained)
        for name in names:
            frame = TIMEFRAMES[name]
            # Only windows that lie whole between the first and the last minute can be expected.
            first, last = first_open(frame, start_us), frame.open_time_us(end_us)
            have = await stored.open_times_us(market, frame, first, last)
            runs = explain(missing_windows(have, frame, first, last), frame, known)
            lacking.candles[name] = runs
        lacking.gaps = [
            gap
            for gap in await stored.gaps(market, since_us=start_us)
            if gap.start_time_us < end_us
        ]
        found.append(lacking)
    return found
