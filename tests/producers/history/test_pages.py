"""Pages of the past from every exchange: whole, in order, and honest about what is missing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from alpha_pulse.contracts.config import HistoryConfig, ProducerConfig
from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.producers.exchanges.registry import ExchangeType, exchange_of
from alpha_pulse.producers.history.asking import NotOfferedError
from alpha_pulse.producers.history.candle_pages import CandlePage
from alpha_pulse.producers.history.pages import History, open_history
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.exchange.faults import FaultPlan, RestFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.long_market import LongMarket
from alpha_pulse.replay.markets.synthetic import BEGIN_US

MINUTE_US = 60_000_000
MINUTES = 1_100
HALT = (BEGIN_US + 400 * MINUTE_US, BEGIN_US + 520 * MINUTE_US)
ALL = tuple(exchange.value for exchange in ExchangeType)
# Those whose REST shows old trades, found by time.
WITH_OLD_TRADES = tuple(
    name
    for name in ALL
    if exchange_of(name).trades.first_from or exchange_of(name).trades.newest_before
)
QUICK = HistoryConfig(retry_delay_s=0.001)


def long_market(halts: Sequence[tuple[int, int]] = (HALT,)) -> LongMarket:
    return LongMarket("BTC/USDT", 2, begin_us=BEGIN_US, end_us=BEGIN_US + MINUTES * MINUTE_US,
                      halts=halts)  # fmt: skip


@asynccontextmanager
async def history_of(
    exchange: ReplayExchange, settings: HistoryConfig = QUICK, **changes: Any
) -> AsyncIterator[tuple[History, str]]:
    config = ProducerConfig(exchange=exchange.dialect.name, exchange_url=exchange.url, **changes)
    async with open_history(config, settings, share=0) as history:
        yield history, exchange.feeds[0].symbol


async def candles(history: History, symbol: str, first: int = 0, last: int = MINUTES,
                  timeframe: str = "1m") -> tuple[list[Candle], list[CandlePage]]:  # fmt: skip
    start_us, end_us = BEGIN_US + first * MINUTE_US, BEGIN_US + last * MINUTE_US
    pages = [page async for page in history.candles.pages(symbol, timeframe, start_us, end_us)]
    return [candle for page in pages for candle in page.candles], pages


def same(found: list[Candle], market: LongMarket, minutes: Sequence[int]) -> bool:
    """Return whether candles are the market's own, to the last digit of what is told."""
    if [c.open_time_us for c in found] != [BEGIN_US + m * MINUTE_US for m in minutes]:
        return False
    for candle in found:
        own = market.closed_candle(candle.open_time_us)
        assert own is not None
        told = (candle.open, candle.high, candle.low, candle.close, candle.volume)
        if told != (own.open, own.high, own.low, own.close, own.volume):
            return False
        if candle.quote_volume is not None and Decimal(candle.quote_volume) != own.quote_volume:
            return False
    return True


@pytest.mark.parametrize("name", ALL)
async def test_candles_come_whole_and_in_order_with_the_halt_left_out(name: str) -> None:
    market = long_market()
    async with (
        ReplayExchange([market], dialect=name, at_end=True) as exchange,
        history_of(exchange) as (history, symbol),
    ):
        found, pages = await candles(history, symbol)
        offered_from = 0
        newest_rows = exchange_of(name).candles.newest_rows
        if newest_rows is not None and newest_rows < MINUTES:
            assert [page.offered for page in pages] == [False, True]
            offered_from = (pages[1].start_us - BEGIN_US) // MINUTE_US
            assert offered_from > MINUTES - newest_rows - 100, "the newest only"
        expected = [m for m in range(offered_from, MINUTES) if not 400 <= m < 520]
        assert same(found, market, expected)
        assert sum(page.absent for page in pages) == MINUTES - offered_from - len(expected)
        assert [p.start_us for p in pages[1:]] == [p.end_us for p in pages[:-1]]


@pytest.mark.parametrize("name", ALL)
async def test_faults_of_all_kinds_change_nothing_of_what_comes(name: str) -> None:
    kinds = ("no-rows", "few-rows", "truncated", "empty", "http500", "null", "few-rows")
    market = long_market(halts=())
    faults = FaultPlan(rest=[RestFault(kind, at_request=n) for n, kind in enumerate(kinds)])
    async with (
        ReplayExchange([market], dialect=name, at_end=True, faults=faults) as exchange,
        history_of(exchange) as (history, symbol),
    ):
        first = MINUTES - 700 if exchange_of(name).candles.newest_rows else 0
        found, pages = await candles(history, symbol, first)
        assert same(found, market, range(first, MINUTES))
        assert not any(page.absent for page in pages)
        assert faults.applied, "a fault must have happened"


async def test_a_refusal_with_retry_after_holds_everybody_back_and_then_goes_on() -> None:
    market = long_market(halts=())
    faults = FaultPlan(rest=[RestFault("http429", at_request=0, seconds=1)])
    async with (
        ReplayExchange([market], at_end=True, faults=faults) as exchange,
        history_of(exchange) as (history, symbol),
    ):
        found, _ = await candles(history, symbol)
        assert len(found) == MINUTES
        assert history.ask.asked.by_error == {"DDoSProtection": 1}


async def test_an_exchange_that_never_answers_is_an_error_and_keeps_what_came() -> None:
    market = long_market(halts=())
    # The first page is answered, everything after it is not.
    faults = FaultPlan(rest=[RestFault("http500", at_request=n) for n in range(1, 60)])
    settings = replace(QUICK, max_retries=2, pages_ahead_max=1, page_rows_max=200)
    async with (
        ReplayExchange([market], at_end=True, faults=faults) as exchange,
        history_of(exchange, settings) as (history, symbol),
    ):
        pages = history.candles.pages(symbol, "1m", BEGIN_US, BEGIN_US + MINUTES * MINUTE_US)
        assert len((await anext(pages)).candles) == 200
        with pytest.raises(DataFetchError, match="in 3 attempts"):
            await anext(pages)


async def test_longer_timeframes_open_at_midnight_utc_everywhere() -> None:
    for name in ("okx", "bybit", "kraken"):
        market = LongMarket("BTC/USDT", begin_us=BEGIN_US, end_us=BEGIN_US + 4320 * MINUTE_US)
        async with (
            ReplayExchange([market], dialect=name, at_end=True) as exchange,
            history_of(exchange) as (history, symbol),
        ):
            found, _ = await candles(history, symbol, 0, 3 * 1440, "1d")
            days = [(c.open_time_us - BEGIN_US) // (1440 * MINUTE_US) for c in found]
            assert days == [0, 1, 2], name
            assert all(c.open_time_us % (1440 * MINUTE_US) == 0 for c in found)


async def test_a_timeframe_that_an_exchange_has_not_is_not_offered() -> None:
    async with (
        ReplayExchange([long_market()], dialect="coinbase", at_end=True) as exchange,
        history_of(exchange) as (history, symbol),
    ):
        with pytest.raises(NotOfferedError, match="one of 1m 5m"):
            await candles(history, symbol, timeframe="1w")


@pytest.mark.parametrize("name", WITH_OLD_TRADES)
async def test_trades_come_by_id_each_once_through_short_answers(name: str) -> None:
    market = long_market()
    faults = FaultPlan(rest=[RestFault("few-rows", at_request=n) for n in (2, 3, 6)])
    start_us, end_us = BEGIN_US + 380 * MINUTE_US, BEGIN_US + 600 * MINUTE_US
    async with (
        ReplayExchange([market], dialect=name, at_end=True, faults=faults) as exchange,
        history_of(exchange) as (history, symbol),
    ):
        found: list[Trade] = []
        async for page in history.trades.pages(symbol, start_us, end_us):
            assert not page.missing
            found += page.trades
        expected = market.rows(market.position_at(start_us), market.position_at(end_us))
        assert [int(trade.trade_id) for trade in found] == [row.trade_id for row in expected]
        assert [trade.trade_time_us for trade in found] == [r.trade_time_us for r in expected]
        assert [(t.price, t.amount, t.side) for t in found] == [
            (row.price, row.amount, row.side) for row in expected
        ]
        assert await history.trades.no_trade_in(symbol, *HALT) is True
        assert await history.trades.no_trade_in(symbol, start_us, start_us + MINUTE_US) is False


async def test_trades_that_are_not_served_are_said_to_be_so() -> None:
    async with (
        ReplayExchange([long_market()], dialect="bybit", at_end=True) as exchange,
        history_of(exchange) as (history, symbol),
    ):
        with pytest.raises(NotOfferedError, match="only the last ones"):
            await anext(history.trades.pages(symbol, BEGIN_US, BEGIN_US + MINUTE_US))
    options = Options(keyless_history=False)
    async with (
        ReplayExchange([long_market()], at_end=True, options=options) as exchange,
        history_of(exchange) as (history, symbol),
    ):
        with pytest.raises(NotOfferedError, match="API key"):
            await anext(history.trades.pages(symbol, BEGIN_US, BEGIN_US + MINUTE_US))


async def test_the_first_candle_tells_when_a_symbol_was_listed() -> None:
    async with (
        ReplayExchange([long_market()], at_end=True) as exchange,
        history_of(exchange) as (history, symbol),
    ):
        end_us = BEGIN_US + MINUTES * MINUTE_US
        assert await history.listed_from_us(symbol, 0, end_us) == BEGIN_US
