"""A market as it is being served: how far it has come is one position, for REST and websocket."""

from collections.abc import Sequence

from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.replay.candles import TIMEFRAMES_US, CandleHistory, ExchangeCandle, open_time_us
from alpha_pulse.replay.market import Instrument, Market, TradeRow


class Feed:
    """One symbol on one exchange: the trades published so far and the candles of them."""

    def __init__(self, market: Market, symbol: str) -> None:
        self.market = market
        self.symbol = symbol
        self.candles = CandleHistory(market)
        self.begin = 0
        self.published = 0
        self.interim_at = -1
        # The earliest minute without its final candle frame.
        self.open_minute_us = 0
        self.listed = True
        self.watched = False
        self.now_us = market.begin_us

    @property
    def instrument(self) -> Instrument:
        """Return the symbol's base, quote and digits."""
        return self.market.instrument

    def enter(self, time_us: int) -> None:
        """Begin to publish at a time: what was printed before is history."""
        self.begin = self.published = self.market.position_at(time_us)
        self.open_minute_us = time_us - time_us % MINUTE_US
        self.now_us = time_us

    def last_trades(self, count: int) -> Sequence[TradeRow]:
        """Return the newest trades published, oldest first."""
        return self.market.rows(max(0, self.published - count), self.published)

    def trades_from_id(self, trade_id: int, count: int) -> Sequence[TradeRow]:
        """Return the trades published from an id on, oldest first."""
        first = self.market.position_of(trade_id)
        return self.market.rows(first, min(first + count, self.published))

    def trades_before_id(self, trade_id: int, count: int) -> Sequence[TradeRow]:
        """Return the newest trades published with an id below, oldest first."""
        end = min(self.market.position_of(trade_id), self.published)
        return self.market.rows(max(0, end - count), end)

    def trades_from_time(self, time_us: int, end_us: int, count: int) -> Sequence[TradeRow]:
        """Return the first trades published within [time_us, end_us), oldest first."""
        first = self.market.position_at(time_us)
        end = min(self.market.position_at(end_us), self.published)
        return self.market.rows(first, min(first + count, end))

    def trades_before_time(self, time_us: int, end_us: int, count: int) -> Sequence[TradeRow]:
        """Return the newest trades published within [time_us, end_us), oldest first."""
        first = self.market.position_at(time_us)
        end = min(self.market.position_at(end_us), self.published)
        return self.market.rows(max(first, end - count), end)

    def candle_now(self, timeframe: str) -> ExchangeCandle | None:
        """Return the unfinished candle."""
        open_us = open_time_us(self.now_us, timeframe)
        return self.candles.candle(open_us, timeframe, self.published, self.now_us)

    def first_candles(
        self, timeframe: str, first_us: int, last_us: int, count: int
    ) -> list[ExchangeCandle]:
        """Return the first candles that open within [first_us, last_us], oldest first."""
        found: list[ExchangeCandle] = []
        candles = self.candles.range(timeframe, first_us, last_us, self.published, self.now_us)
        for candle in candles:
            found.append(candle)
            if len(found) >= count:
                break
        return found

    def last_candles(
        self, timeframe: str, first_us: int, last_us: int, count: int
    ) -> list[ExchangeCandle]:
        """Return the newest candles that open within [first_us, last_us], oldest first."""
        newest_us = open_time_us(min(last_us, self.now_us), timeframe)
        first_us = max(first_us, newest_us - (count - 1) * TIMEFRAMES_US[timeframe])
        return self.first_candles(timeframe, first_us, newest_us, count)
