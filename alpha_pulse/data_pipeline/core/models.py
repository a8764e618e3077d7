"""What the managers answer with; candles and trades are those of the contracts."""

from dataclasses import dataclass

from alpha_pulse.contracts.errors import format_us
from alpha_pulse.contracts.events import Candle, Gap, StreamState, Trade
from alpha_pulse.contracts.interfaces import MissingCandles, MissingReason
from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.producers.exchanges.registry import ExchangeType


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """What of a window is in the storage, counted there after everything was fetched.

    start_us, end_us: the window in whole candles. had: candles that were stored already.
    fetched: candles that were missing, came from the exchange and are stored now. missing: the
    others, with the reason; every candle of the window is in one of the three.
    """

    exchange: str
    symbol: str
    timeframe: str
    start_us: int
    end_us: int
    had: int
    fetched: int
    missing: tuple[MissingCandles, ...] = ()

    @property
    def expected(self) -> int:
        """Return how many candles the window has room for."""
        return self.had + self.fetched + self.missing_count

    @property
    def missing_count(self) -> int:
        """Return how many candles are missing."""
        return sum(run.count for run in self.missing)

    @property
    def is_complete(self) -> bool:
        """Return whether every candle of the window is stored."""
        return not self.missing

    def __str__(self) -> str:
        window = f"{format_us(self.start_us)} to {format_us(self.end_us)}"
        state = "complete" if self.is_complete else f"{self.missing_count} missing"
        lines = [
            f"{self.exchange} {self.symbol} {self.timeframe} {window}: {state}, "
            f"had {self.had}, fetched {self.fetched}"
        ]
        return "\n  ".join([*lines, *map(str, self.missing)])


@dataclass(frozen=True, slots=True)
class MarketUpdate:
    """What came of a symbol since the last update, each in the order of the exchange.

    candles: the exchange's own closed ones. gaps: trades that are missing, or found again.
    """

    exchange: str
    symbol: str
    state: StreamState | None
    trades: tuple[Trade, ...] = ()
    candles: tuple[Candle, ...] = ()
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class MarketSnapshot:
    """The newest that is known of a symbol; what is older than the cache keeps is None.

    state: None until the exchange has said anything.
    """

    exchange: str
    symbol: str
    state: StreamState | None
    trade: Trade | None
    candle: Candle | None


__all__ = [
    "Candle",
    "CoverageReport",
    "ExchangeType",
    "Gap",
    "MarketSnapshot",
    "MarketUpdate",
    "MissingCandles",
    "MissingReason",
    "StreamState",
    "Timeframe",
    "Trade",
]
