"""What the library's parts need of each other: a storage, a fetcher of history, a live provider.

Each has more than one implementation; a program may bring its own. Times are integer microseconds,
UTC; windows are half-open, `[start_us, end_us)`. Exchange names are those that events carry
(`binance`, `binance-testnet`).
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, Self, runtime_checkable

from alpha_pulse.contracts.errors import format_us
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.kinds import IngestEvent

# Why candles are missing although everything that the exchange gave is stored:
# not_listed_yet: before the symbol's first trade; not_offered: the exchange does not serve that
# time; halted: it printed no trade and has no candle; no_trades: the same, on an exchange that
# has no candle for a window without a trade; ended: it trades the symbol no more; refused: its
# candle breaks the contract; open: not closed yet by the exchange's clock;
# unanswered: nothing explains it, so that it is to be asked for again.
MissingReason = Literal[
    "not_listed_yet", "not_offered", "halted", "no_trades", "ended", "refused", "open", "unanswered"
]
OnEvents = Callable[[Sequence[IngestEvent]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class MissingCandles:
    """A run of candles that are missing for one reason: those that open in `[start_us, end_us)`."""

    start_us: int
    end_us: int
    count: int
    reason: MissingReason

    def __str__(self) -> str:
        window = f"{format_us(self.start_us)} to {format_us(self.end_us)}"
        return f"{self.count} from {window}: {self.reason}"


@runtime_checkable
class Storage(Protocol):
    """Keeps candles and trades, each identity once; of a candle the highest revision stands.

    Saving is idempotent: what is there already changes nothing. Of equal revisions the one saved
    last stands. Every call raises StorageError when the storage can't be reached or refuses.
    """

    async def __aenter__(self) -> Self:
        """Open it; the first use does so too."""
        ...

    async def __aexit__(self, *error: object) -> None:
        """Close it."""
        ...

    async def save_candles(self, candles: Iterable[Candle]) -> int:
        """Take candles of any markets; return how many were given."""
        ...

    async def save_trades(self, trades: Iterable[Trade]) -> int:
        """Take trades of any markets; return how many were given."""
        ...

    async def flush(self) -> None:
        """Return once everything that was saved survives a crash and is seen by every reader.

        Before the first save it only shows whether the storage can be reached.
        """
        ...

    async def load_candles(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[Candle]:
        """Return the candles with `start_us <= open_time_us < end_us`, ascending."""
        ...

    async def load_trades(
        self, exchange: str, symbol: str, start_us: int, end_us: int
    ) -> list[Trade]:
        """Return the trades with `start_us <= trade_time_us < end_us`, by time, then by id."""
        ...

    async def open_times_us(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[int]:
        """Return which candles are stored: their open times in `[start_us, end_us)`, ascending."""
        ...

    async def close(self) -> None:
        """Flush and give everything back."""
        ...


@runtime_checkable
class Fetcher(Protocol):
    """Gets history from exchanges. Every call raises DataFetchError when there is none to be had.

    exchange: ccxt's id; `-testnet` behind it means the testnet.
    """

    def exchange_name(self, exchange: str) -> str:
        """Return the name that this exchange's events carry, such as `binance-testnet`."""
        ...

    def connected(self, exchange: str) -> AbstractAsyncContextManager[object]:
        """Keep the connection over several calls; without it each call opens one of its own."""
        ...

    async def now_us(self, exchange: str) -> int:
        """Return the exchange's clock."""
        ...

    def fetch_candles(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> AsyncGenerator[list[Candle], None]:
        """Yield the exchange's own closed candles of a window, page by page, ascending.

        end_us: not beyond what is closed by the exchange's clock. What the exchange does not have
        is not among them; what it has and does not give is a DataFetchError.
        """
        ...

    async def why_missing(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[MissingCandles]:
        """Return why the candles of a window, which all are missing, could not be had.

        Returns: the whole window in runs of one reason each, ascending.
        """
        ...


@runtime_checkable
class Provider(Protocol):
    """Follows symbols of one exchange live."""

    @property
    def exchange(self) -> str:
        """Return the name that the events carry, such as `binance-testnet`."""
        ...

    async def start(self, symbols: Sequence[str], on_events: OnEvents) -> None:
        """Follow symbols; return once the exchange has answered and they are being subscribed to.

        on_events: awaited with each symbol's events in the order of its log; while it takes its
        time the exchange is read more slowly, and nothing is dropped.
        Raises: DataFetchError when the exchange can't be reached or does not trade a symbol.
        """
        ...

    async def wait(self) -> None:
        """Return when the stream has ended by itself; raises what ended it."""
        ...

    async def stop(self) -> None:
        """End it; everything received before has been given to `on_events` then."""
        ...
