"""Where trades come from: one interface over a recording, a looped recording, a synthetic market.

A market numbers its trades 0, 1, 2, … in the order in which the exchange printed them: these are
positions. What has happened so far is a position, so that REST and websocket can share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class TradeRow(NamedTuple):
    """One trade: price and amount in the exchange's digits, side of the taker (buy or sell)."""

    trade_id: int
    trade_time_us: int
    price: str
    amount: str
    side: str


@dataclass(frozen=True, slots=True)
class RecordedCandle:
    """The exchange's own candle of one minute, in its own digits; trade_count when it is known."""

    open_time_us: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    trade_count: int | None


@dataclass(frozen=True, slots=True)
class Instrument:
    """A symbol and the digits behind the point of its prices and amounts."""

    symbol: str
    price_digits: int
    amount_digits: int

    @property
    def base(self) -> str:
        """Return the currency bought and sold: BTC of BTC/USDT."""
        return self.symbol.split("/")[0]

    @property
    def quote(self) -> str:
        """Return the currency of the price: USDT of BTC/USDT and of BTC/USDT:USDT."""
        return self.symbol.split("/")[1].split(":")[0]


class Market(Protocol):
    """One symbol's trades, in the exchange's order, and what it knows of its own candles."""

    @property
    def instrument(self) -> Instrument:
        """Return the symbol and its digits."""
        ...

    @property
    def begin_us(self) -> int:
        """Return when the market begins."""
        ...

    @property
    def end_us(self) -> int | None:
        """Return when the market ends, None when it is endless."""
        ...

    @property
    def complete_from_us(self) -> int:
        """Return the first minute whose trades are all here: the first candle to serve."""
        ...

    def position_at(self, time_us: int) -> int:
        """Return how many trades the exchange printed before a time."""
        ...

    def position_of(self, trade_id: int) -> int:
        """Return the position of a trade id, or of the next higher id."""
        ...

    def rows(self, first: int, end: int) -> Sequence[TradeRow]:
        """Return the trades at positions [first, end), fewer when the market ends before."""
        ...

    def settled_us(self, close_us: int) -> int:
        """Return from when on all trades earlier than a minute's close have been printed."""
        ...

    def own_candle(self, open_time_us: int) -> RecordedCandle | None:
        """Return the exchange's own candle where one was recorded."""
        ...

    def native_id(self, row: TradeRow) -> str | None:
        """Return the exchange's own id where ids are no consecutive numbers, else None."""
        ...


def spot_symbol(symbol: str) -> str:
    """Return a perpetual's symbol without its settlement: BTC/USDT of BTC/USDT:USDT."""
    return symbol.split(":")[0]


def perpetual_symbol(symbol: str) -> str:
    """Return a symbol as a linear perpetual: BTC/USDT:USDT of BTC/USDT."""
    return symbol if ":" in symbol else f"{symbol}:{symbol.split('/')[1]}"
