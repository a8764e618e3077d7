"""What a browser asks for, and what it is given: the page's own shapes, as JSON."""

from dataclasses import dataclass

import msgspec

from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import Timeframe, get_timeframe


class ChartCandle(msgspec.Struct, frozen=True, kw_only=True):
    """One candle as the page draws it; prices and volume are decimal text.

    closed: false for what is still open: a minute, or a longer window as far as its minutes are
    closed. until_us: how far an open one reaches. revision: of equal windows the highest stands.
    """

    timeframe: str
    open_time_us: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    trade_count: int | None
    coverage: str
    revision: str
    closed: bool
    until_us: int


class GapRow(msgspec.Struct, frozen=True, kw_only=True):
    """Missing trades, the newest state of each gap."""

    start_time_us: int
    end_time_us: int
    first_trade_id: str | None
    last_trade_id: str | None
    status: str
    reason: str


class MarketRow(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol: the state of its stream, its rate and what is known of its completeness.

    rate: trades a second received lately. trade_age_s: age of the newest trade stored. close,
    coverage, minute_us: of the newest closed minute. lost_gaps: gaps that can't be filled.
    """

    exchange: str
    symbol: str
    state: str | None
    rate: float
    trade_age_s: float | None
    close: str | None
    coverage: str | None
    minute_us: int | None
    open_gaps: int
    lost_gaps: int


@dataclass(frozen=True, slots=True)
class Chart:
    """What was asked for: a market and a timeframe, checked."""

    exchange: str
    symbol: str
    timeframe: Timeframe

    @property
    def market(self) -> tuple[str, str]:
        """Exchange and symbol."""
        return self.exchange, self.symbol


def chart_candle(candle: Candle, *, closed: bool) -> ChartCandle:
    """Return an event of the topics as the page draws it."""
    duration_us = get_timeframe(candle.timeframe).duration_us
    return ChartCandle(
        timeframe=candle.timeframe,
        open_time_us=candle.open_time_us,
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume,
        trade_count=candle.trade_count,
        coverage=candle.coverage,
        revision=str(candle.revision),
        closed=closed,
        until_us=candle.open_time_us + duration_us,
    )
