"""What a backfill did for one symbol, and what stays missing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.producers.history.missing import Missing


@dataclass(slots=True)
class Report:
    """What became of one symbol: how much was wanted, was there, was fetched, is still missing.

    Counts are candles, or trades with `kind` trades; wanted and had count ids of no trade too.
    rebuilt: candles of longer timeframes that were taken from the exchange because no single job
    covered them. requests: to the exchange.
    """

    market: Market
    kind: Literal["candles", "trades"]
    timeframe: str
    start_us: int
    end_us: int
    wanted: int = 0
    had: int = 0
    fetched: int = 0
    rebuilt: int = 0
    requests: int = 0
    missing: list[Missing] = field(default_factory=list)
    missing_ids: list[tuple[int, int]] = field(default_factory=list)
    error: str = ""

    @property
    def done(self) -> int:
        """How much of what is wanted is settled: there, fetched, or known not to exist."""
        return self.had + self.fetched

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing at all."""
        return not self.missing and not self.missing_ids and not self.error


Progress = Callable[[Report], None]
