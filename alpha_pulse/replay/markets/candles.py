"""The exchange's own candles: the recorded rows where there are any, else exact sums of the trades.

A minute without a trade repeats the previous close with volume 0, as the exchanges do.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from itertools import compress
from operator import itemgetter, mul
from typing import Protocol, runtime_checkable

from alpha_pulse.contracts.market import MINUTE_US, TIMEFRAMES
from alpha_pulse.replay.markets.market import Market, TradeRow

TIMEFRAMES_US = {
    name: timeframe.duration_us
    for name, timeframe in TIMEFRAMES.items()
    if timeframe.duration_us >= MINUTE_US
}
CACHED_MINUTES_MAX = 20_000
_time_of = itemgetter(1)

# Sums of 38 digits never round here; the default context would cut at 28.
_EXACT = Context(prec=60)


@dataclass(frozen=True, slots=True)
class ExchangeCandle:
    """One candle as an exchange serves it; ids are None when no trade fell into it."""

    open_time_us: int
    timeframe_us: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: Decimal
    buy_volume: Decimal
    buy_quote_volume: Decimal
    trade_count: int
    first_trade_id: int | None
    last_trade_id: int | None

    @property
    def close_time_us(self) -> int:
        """Return the first moment after the candle."""
        return self.open_time_us + self.timeframe_us


def open_time_us(time_us: int, timeframe: str) -> int:
    """Return when the candle that holds a time opens; weeks begin on Monday, 00:00 UTC."""
    return TIMEFRAMES[timeframe].open_time_us(time_us)


def plain(value: Decimal, digits_min: int = 8) -> str:
    """Return a decimal as exchanges write it: no exponent, at least so many fraction digits."""
    text = f"{value:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(digits_min, '0')}" if digits_min else text


@runtime_checkable
class KnowsCandles(Protocol):
    """A market that knows its final candles without adding up trades."""

    def closed_candle(self, open_us: int) -> ExchangeCandle | None:
        """Return the final candle of a minute; None where there is none (a halt)."""
        ...


class CandleHistory:
    """A market's one-minute candles by open time, and larger ones merged from them.

    `until` arguments are positions: only trades printed before them exist yet.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self._closed: OrderedDict[int, ExchangeCandle | None] = OrderedDict()
        self._running: _RunningMinute | None = None
        # What follows from a formula is not worth remembering.
        self._known = market.closed_candle if isinstance(market, KnowsCandles) else None

    def closed_minute(self, open_us: int) -> ExchangeCandle | None:
        """Return the final candle of a minute; None where the market does not know it."""
        if self._known is not None:
            return self._known(open_us)
        if open_us in self._closed:
            self._closed.move_to_end(open_us)
            return self._closed[open_us]
        candle = self._build_closed(open_us)
        self._closed[open_us] = candle
        if len(self._closed) > CACHED_MINUTES_MAX:
            self._closed.popitem(last=False)
        return candle

    def candle(
        self, open_us: int, timeframe: str, until: int, now_us: int
    ) -> ExchangeCandle | None:
        """Return a candle as far as it has come at a time; None where it is not known."""
        size_us = TIMEFRAMES_US[timeframe]
        if open_us < self._market.complete_from_us and timeframe != "1m":
            return None
        if size_us == MINUTE_US and self.is_closed(open_us + MINUTE_US, now_us):
            return self.closed_minute(open_us)
        found = list(self._minutes(open_us, min(open_us + size_us, now_us + 1), until, now_us))
        return _merge(found, open_us, size_us) if found else None

    def is_closed(self, candle_close_us: int, now_us: int) -> bool:
        """Return whether all trades of a candle have been printed."""
        return self._market.settled_us(candle_close_us) <= now_us

    def range(
        self, timeframe: str, first_us: int, last_us: int, until: int, now_us: int
    ) -> Iterator[ExchangeCandle | None]:
        """Yield the candles with first_us <= open time <= last_us, oldest first, lazily.

        A None is a place to pause: one for each minute of a larger candle, or of an unknown one.
        """
        size_us = TIMEFRAMES_US[timeframe]
        first_us = max(first_us, self._market.complete_from_us)
        open_us = open_time_us(first_us + size_us - 1, timeframe)
        while open_us <= min(last_us, now_us):
            if size_us > MINUTE_US:
                for minute_us in range(open_us, min(open_us + size_us, now_us), MINUTE_US):
                    if self.is_closed(minute_us + MINUTE_US, now_us):
                        self.closed_minute(minute_us)
                    yield None
            yield self.candle(open_us, timeframe, until, now_us)
            open_us += size_us

    def _minutes(
        self, first_us: int, end_us: int, until: int, now_us: int
    ) -> Iterator[ExchangeCandle]:
        for open_us in range(first_us, end_us, MINUTE_US):
            if self.is_closed(open_us + MINUTE_US, now_us):
                candle = self.closed_minute(open_us)
            else:
                candle = self._build(open_us, self._market.position_at(open_us), until)
            if candle is not None:
                yield candle

    def _build_closed(self, open_us: int) -> ExchangeCandle | None:
        market = self._market
        first = market.position_at(open_us)
        end = market.position_at(market.settled_us(open_us + MINUTE_US))
        own = market.own_candle(open_us)
        if own is None:
            if open_us < market.complete_from_us:
                return None
            return self._build(open_us, first, end)
        built = self._build(open_us, first, end)
        no_sum = Decimal(0)
        counted = built.trade_count if built else 0
        return ExchangeCandle(
            open_us,
            MINUTE_US,
            own.open,
            own.high,
            own.low,
            own.close,
            own.volume,
            built.quote_volume if built else no_sum,
            built.buy_volume if built else no_sum,
            built.buy_quote_volume if built else no_sum,
            counted if own.trade_count is None else own.trade_count,
            built.first_trade_id if built else None,
            built.last_trade_id if built else None,
        )

    def _build(self, open_us: int, first: int, end: int) -> ExchangeCandle | None:
        running = self._running
        if running is None or running.open_us != open_us or running.end > end:
            running = _RunningMinute(open_us, first)
            if self._running is None or open_us >= self._running.open_us:
                # History asks for older minutes: they must not push the stream's one out.
                self._running = running
        running.add(self._market.rows(running.end, end), end)
        if running.trade_count:
            return running.candle()
        before = self._market.rows(first - 1, first) if first else ()
        if not before:
            return None
        price, zero = before[0].price, Decimal(0)
        no_volume = plain(zero, self._market.instrument.amount_digits)
        return ExchangeCandle(
            open_us,
            MINUTE_US,
            price,
            price,
            price,
            price,
            no_volume,
            zero,
            zero,
            zero,
            0,
            None,
            None,
        )


class _RunningMinute:
    # Sums one minute, so that frequent interim candles cost one addition per trade.
    def __init__(self, open_us: int, first: int) -> None:
        self.open_us = open_us
        self.end = first
        self.trade_count = 0
        self._first_us = self._last_us = 0
        self._open = self._high = self._low = self._close = ""
        self._high_value = self._low_value = Decimal(0)
        self._volume = self._quote_volume = Decimal(0)
        self._buy_volume = self._buy_quote_volume = Decimal(0)
        self._ids = (0, 0)

    def add(self, rows: Sequence[TradeRow], end: int) -> None:
        self.end = max(self.end, end)
        close_us = self.open_us + MINUTE_US
        # What was printed late belongs to another minute.
        rows = [row for row in rows if self.open_us <= row[1] < close_us]
        if not rows:
            return
        # Ties in time go by id, and rows come in the order of ids.
        first = min(rows, key=_time_of)
        last = max(reversed(rows), key=_time_of)
        if not self.trade_count or first.trade_time_us < self._first_us:
            self._open, self._first_us = first.price, first.trade_time_us
        if not self.trade_count or last.trade_time_us >= self._last_us:
            self._close, self._last_us = last.price, last.trade_time_us
        self._ids = (self._ids[0] if self.trade_count else rows[0].trade_id, rows[-1].trade_id)
        prices = [Decimal(row[2]) for row in rows]
        amounts = [Decimal(row[3]) for row in rows]
        with localcontext(_EXACT):
            costs = list(map(mul, prices, amounts))
            bought = [row[4] == "buy" for row in rows]
            self._volume = sum(amounts, self._volume)
            self._quote_volume = sum(costs, self._quote_volume)
            self._buy_volume = sum(compress(amounts, bought), self._buy_volume)
            self._buy_quote_volume = sum(compress(costs, bought), self._buy_quote_volume)
        high, low = max(prices), min(prices)
        if not self.trade_count or high > self._high_value:
            self._high, self._high_value = rows[prices.index(high)].price, high
        if not self.trade_count or low < self._low_value:
            self._low, self._low_value = rows[prices.index(low)].price, low
        self.trade_count += len(rows)

    def candle(self) -> ExchangeCandle:
        return ExchangeCandle(
            self.open_us,
            MINUTE_US,
            self._open,
            self._high,
            self._low,
            self._close,
            f"{self._volume:f}",
            self._quote_volume,
            self._buy_volume,
            self._buy_quote_volume,
            self.trade_count,
            *self._ids,
        )


def _merge(candles: Sequence[ExchangeCandle], open_us: int, size_us: int) -> ExchangeCandle:
    if len(candles) == 1 and size_us == MINUTE_US:
        return candles[0]
    traded = [candle for candle in candles if candle.first_trade_id is not None]
    return ExchangeCandle(
        open_us,
        size_us,
        candles[0].open,
        max((candle.high for candle in candles), key=Decimal),
        min((candle.low for candle in candles), key=Decimal),
        candles[-1].close,
        f"{_total(Decimal(candle.volume) for candle in candles):f}",
        _total(candle.quote_volume for candle in candles),
        _total(candle.buy_volume for candle in candles),
        _total(candle.buy_quote_volume for candle in candles),
        sum(candle.trade_count for candle in candles),
        traded[0].first_trade_id if traded else None,
        traded[-1].last_trade_id if traded else None,
    )


def _total(values: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for value in values:
        total = _EXACT.add(total, value)
    return total
