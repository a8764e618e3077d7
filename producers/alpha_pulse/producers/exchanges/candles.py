"""The exchanges' own candles: one request for some, and a row as a candle."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from alpha_pulse.contracts.decimals import AMOUNT, SUM
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import TIMEFRAMES, Timeframe
from alpha_pulse.producers.exchanges.numbers import (
    NUMBER_ID_END,
    positive_text,
    sum_text,
    time_us,
)
from alpha_pulse.producers.exchanges.rows import RefusedRow, read_rows
from alpha_pulse.producers.exchanges.tick import FrameError

# Why a candle is refused whose open time is none of its timeframe.
OFF_GRID = "off_grid"

MINUTE = TIMEFRAMES["1m"]
COUNT_MAX = 2**63 - 1

# Four prices and three volumes as the contract wants them, in one look instead of seven.
_PLAIN = re.compile(" ".join([AMOUNT.part] * 4 + [f"(?:{SUM.part}|None)"] * 3)).fullmatch


def exchange_candle(
    exchange: str,
    symbol: str,
    timeframe: Timeframe,
    open_time_us: int,
    prices: tuple[str, str, str, str],
    volume: str,
    quote_volume: str | None = None,
    buy_volume: str | None = None,
    trade_count: int | None = None,
    ids: tuple[int, int] | None = None,
) -> Candle:
    """Return the exchange's own closed candle; digits stay its own wherever they are plain.

    Args:
        exchange: the name that events carry.
        symbol: the unified symbol.
        timeframe: of the candle.
        open_time_us: Unix µs.
        prices: open, high, low, close, in the quote currency.
        volume: in the base currency.
        quote_volume: in the quote currency; None where the exchange does not say.
        buy_volume: what takers bought, in the base currency; None where it does not say.
        trade_count: None where it does not say.
        ids: of the first and last trade; None when there was none or it does not say.

    Raises:
        FrameError: a value breaks the contract of a candle.
    """
    open_, high, low, close = prices
    if not _PLAIN(f"{open_} {high} {low} {close} {volume} {quote_volume} {buy_volume}"):
        open_, high, low, close = map(positive_text, prices)
        volume = sum_text(volume)
        quote_volume = None if quote_volume is None else sum_text(quote_volume)
        buy_volume = None if buy_volume is None else sum_text(buy_volume)
    if not timeframe.is_open_time(time_us(open_time_us)):
        raise FrameError(
            f"expected an open time aligned to {timeframe}, found {open_time_us}",
            OFF_GRID,
            symbol,
        )
    if not _ordered(open_, high, low, close):
        raise FrameError(
            f"expected 0 < low <= open, close <= high, found {prices} at {open_time_us}",
            "bad_candle",
            symbol,
        )
    if trade_count is not None and not (
        0 < trade_count <= COUNT_MAX or (trade_count == 0 and not Decimal(volume))
    ):
        raise FrameError(
            f"expected a number of trades that goes with the volume {volume}, found {trade_count} "
            f"at {open_time_us}",
            "bad_candle",
            symbol,
        )
    if ids is not None and not all(0 <= trade_id < NUMBER_ID_END for trade_id in ids):
        raise FrameError(f"expected ids of trades, found {ids}"[:200], "bad_candle", symbol)
    return Candle(
        exchange=exchange,
        symbol=symbol,
        timeframe=timeframe.name,
        open_time_us=open_time_us,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        quote_volume=quote_volume,
        buy_volume=buy_volume,
        trade_count=trade_count,
        first_trade_id=None if ids is None else str(ids[0]),
        last_trade_id=None if ids is None else str(ids[1]),
        revision=0,
        source="exchange",
        coverage="exchange",
    )


@dataclass(frozen=True, slots=True)
class CandleRequest:
    """One request for the candles that open within `[start_us, end_us)`.

    exchange: the name that events carry. client: a ccxt.pro exchange with its markets loaded.
    refused: rows of the answer that are no candles (`read`).
    """

    exchange: str
    client: Any
    symbol: str
    timeframe: Timeframe
    start_us: int
    end_us: int
    refused: list[RefusedRow] = field(default_factory=list, compare=False)

    @property
    def market(self) -> Any:
        """Return the exchange's own entry of the symbol."""
        return self.client.market(self.symbol)

    @property
    def count(self) -> int:
        """Return how many candles the window has room for."""
        return (self.end_us - self.start_us) // self.timeframe.duration_us

    def read(
        self, rows: Any, kind: Any, make: Callable[[Any], Candle], *, strict: bool = True
    ) -> list[Candle]:
        """Return the answer's rows as candles; those that are none are kept in `refused`.

        Args:
            rows: the answer's list, as JSON is decoded.
            kind: what a row looks like.
            make: returns a row's candle, or raises FrameError.
            strict: whether numbers must not be written as text.

        Raises:
            ValidationError: the answer is no list of rows at all.
        """
        return read_rows(rows, kind, make, self.refused, strict=strict)

    def candle(
        self,
        open_time_us: int,
        prices: tuple[str, str, str, str],
        volume: str,
        quote_volume: str | None = None,
        buy_volume: str | None = None,
        trade_count: int | None = None,
    ) -> Candle:
        """Return a row of the answer as a candle.

        Args:
            open_time_us: Unix µs.
            prices: open, high, low, close; this and the rest as of `exchange_candle`.
            volume: in the base currency.
            quote_volume: in the quote currency.
            buy_volume: in the base currency.
            trade_count: of the window.

        Raises:
            FrameError: the row is no candle.
        """
        try:
            return exchange_candle(
                self.exchange,
                self.symbol,
                self.timeframe,
                open_time_us,
                prices,
                volume,
                quote_volume,
                buy_volume,
                trade_count,
            )
        except FrameError as error:
            error.at_us = open_time_us
            raise


def _ordered(open_: str, high: str, low: str, close: str) -> bool:
    o, h, l_, c = Decimal(open_), Decimal(high), Decimal(low), Decimal(close)
    return 0 < l_ <= o <= h and l_ <= c <= h
