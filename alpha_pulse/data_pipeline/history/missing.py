"""What is missing of each stored market, from the tables alone."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from alpha_pulse.contracts.events import Gap
from alpha_pulse.contracts.market import MINUTE_US, TIMEFRAMES
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
    """What one market lacks between two times: candles by timeframe, gaps in trades."""

    market: Market
    start_us: int
    end_us: int
    candles: dict[str, list[Missing]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)

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

    window: default from the market's first 1m candle to its last one.
    Raises: ValidationError when no such market is stored.
    """
    found = []
    for market, first_us, last_us in await stored.chosen_markets(*chosen):
        start_us = first_us if window[0] is None else window[0]
        end_us = last_us + MINUTE_US if window[1] is None else window[1]
        lacking = MissingMarket(market, start_us, end_us)
        explained = await stored.explained(market, start_us, end_us)
        known = Known(halts=explained.get("halted", ()), silent=explained.get("no_trades", ()))
        for name in timeframes:
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
