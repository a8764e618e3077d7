"""A market as it is being served: how far it has come is one position, for REST and websocket."""

import asyncio
import time
from collections.abc import Sequence
from itertools import islice

from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.replay.markets.candles import (
    TIMEFRAMES_US,
    CandleHistory,
    ExchangeCandle,
    open_time_us,
)
from alpha_pulse.replay.markets.market import Instrument, Market, TradeRow

# The stream waits no longer than this for a REST answer to be computed.
WORK_S_MAX = 0.005


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
        # The exchange's own word for where the market stands; "": the one for trading.
        self.status = ""
        self.watched = False
        # The newest time that a trade frame carried.
        self.event_ms = 0
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
        candles = self.candles.range(timeframe, first_us, last_us, self.published, self.now_us)
        return list(islice((candle for candle in candles if candle is not None), count))

    def newest_from_us(self, timeframe: str, last_us: int, count: int) -> int:
        """Return when the first of the newest candles opens that are not after last_us."""
        newest_us = open_time_us(min(last_us, self.now_us), timeframe)
        return newest_us - (count - 1) * TIMEFRAMES_US[timeframe]

    async def page_of_candles(
        self, timeframe: str, first_us: int, last_us: int, count: int, *, newest: bool = False
    ) -> list[ExchangeCandle]:
        """Return the first, or the newest, candles that open within [first_us, last_us].

        Oldest first. Many days are sums of many trades: the stream goes on meanwhile.
        """
        if newest:
            first_us = max(first_us, self.newest_from_us(timeframe, last_us, count))
        found: list[ExchangeCandle] = []
        worked_s = time.perf_counter()
        candles = self.candles.range(timeframe, first_us, last_us, self.published, self.now_us)
        for candle in candles:
            if candle is not None:
                found.append(candle)
            if len(found) >= count:
                break
            if time.perf_counter() - worked_s > WORK_S_MAX:
                await asyncio.sleep(0)
                worked_s = time.perf_counter()
        return found
