"""What stays and what passes: bad rows, refusals for good, bans, and where a history begins."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ccxt.pro
import pytest

from alpha_pulse.contracts.config import HistoryConfig, ProducerConfig
from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.market import DAY_US, MINUTE_US, TIMEFRAMES
from alpha_pulse.producers.connection.limiter import LimitedError, Limiter
from alpha_pulse.producers.exchanges.registry import ExchangeType
from alpha_pulse.producers.history.absence import ended_from_us, learn_why, why_absent
from alpha_pulse.producers.history.asking import NotOfferedError, advice_on
from alpha_pulse.producers.history.missing import Window
from alpha_pulse.producers.history.pages import History, open_history
from alpha_pulse.replay.exchange.faults import FaultPlan, RestFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.long_market import LongMarket
from alpha_pulse.replay.markets.synthetic import BEGIN_US

ALL = tuple(exchange.value for exchange in ExchangeType)
ONE = TIMEFRAMES["1m"]
QUICK = HistoryConfig(retry_delay_s=0.001)


def at_us(minute: int) -> int:
    return BEGIN_US + minute * MINUTE_US


@asynccontextmanager
async def opened(exchange: ReplayExchange, **changes: Any) -> AsyncIterator[tuple[History, str]]:
    config = ProducerConfig(exchange=exchange.dialect.name, exchange_url=exchange.url)
    async with open_history(config, QUICK, share=0, **changes) as history:
        yield history, exchange.feeds[0].symbol


@pytest.mark.parametrize("name", ALL)
async def test_a_row_that_breaks_the_contract_costs_only_itself(name: str) -> None:
    broken = [at_us(n) for n in (400, 401, 590)]
    market = LongMarket("BTC/USDT", 2, begin_us=BEGIN_US, end_us=at_us(600), broken=broken)
    async with (
        ReplayExchange([market], dialect=name, at_end=True) as exchange,
        opened(exchange) as (history, symbol),
    ):
        pages = [page async for page in history.candles.pages(symbol, "1m", BEGIN_US, at_us(600))]
        found = [candle.open_time_us for page in pages for candle in page.candles]
        assert found == [at_us(n) for n in range(600) if at_us(n) not in broken]
        refused = [row for page in pages for row in page.refused]
        assert [row.error.reason for row in refused] == ["bad_candle"] * 3
        assert all(row.payload != b"" for row in refused)
        assert [t for page in pages for t in page.refused_us(ONE)] == broken
        assert sum(page.absent for page in pages) == 3
        assert history.ask.asked.failures == 0, "no answer was taken for unreadable"
        known = await learn_why(history, symbol, ONE, broken[0], broken[1] + MINUTE_US)
        assert [(w.start_us, w.end_us) for w in known.refused] == [
            (t, t + MINUTE_US) for t in broken[:2]
        ]


@pytest.mark.parametrize("name", ALL)
async def test_a_place_that_is_not_served_is_told_at_once_and_for_good(name: str) -> None:
    market = LongMarket("BTC/USDT", 2, begin_us=BEGIN_US, end_us=at_us(600))
    faults = FaultPlan(
        rest=[RestFault("restricted", at_request=n, path="kline|candle|OHLC") for n in range(9)]
    )
    async with (
        ReplayExchange([market], dialect=name, at_end=True, faults=faults) as exchange,
        opened(exchange) as (history, symbol),
    ):
        with pytest.raises(NotOfferedError, match="does not serve this place") as raised:
            await anext(history.candles.pages(symbol, "1m", BEGIN_US, at_us(200)))
        assert "again" not in str(raised.value)
        assert len(faults.applied) == 1, "asked once"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ccxt.pro.BadSymbol("x"), "symbol that it lists"),
        (ccxt.pro.PermissionDenied("x"), "api_key"),
        (ccxt.pro.BadRequest("x"), "check symbol"),
        (ccxt.pro.ExchangeNotAvailable("x GET http://h/p 451 Unavailable {}"), "this place"),
        (ccxt.pro.ExchangeNotAvailable("x GET http://h/p?a=451 503 Unavailable {}"), None),
        (ccxt.pro.NetworkError("x"), None),
        (ValueError("451"), None),
    ],
)
def test_final_is_told_from_passing_in_one_place(error: Exception, said: str | None) -> None:
    advice = advice_on(error)
    assert advice is None if said is None else said in (advice or "")


@pytest.mark.parametrize("name", ALL)
async def test_a_ban_of_days_is_told_by_a_call_instead_of_slept_through(name: str) -> None:
    market = LongMarket("BTC/USDT", 2, begin_us=BEGIN_US, end_us=at_us(600))
    three_days_s = 259_200
    faults = FaultPlan(
        rest=[RestFault("banned", at_request=0, seconds=three_days_s, path="kline|candle|OHLC")]
    )
    async with (
        ReplayExchange([market], dialect=name, at_end=True, faults=faults) as exchange,
        opened(exchange) as (history, symbol),
    ):
        async with asyncio.timeout(60):
            with pytest.raises(LimitedError, match=r"until 20\d\d-.*call again then") as raised:
                await anext(history.candles.pages(symbol, "1m", BEGIN_US, at_us(200)))
        left_s = float(str(raised.value).split(" for ")[1].split(" s ")[0])
        assert three_days_s - 120 < left_s <= three_days_s
        # Everybody who asks later hears it too, without a request.
        requests = exchange.ledger.rest_requests.total()
        with pytest.raises(LimitedError):
            await history.clock_us()
        assert exchange.ledger.rest_requests.total() == requests


class _Client:
    last_response_headers: Any = None


async def test_a_role_waits_to_the_end_of_a_ban_however_it_is_dated() -> None:
    error, client = ccxt.pro.DDoSProtection("x 418"), _Client()
    client.last_response_headers = {"Retry-After": "259200"}
    assert Limiter("x").obey(error, client) == 259_200
    client.last_response_headers = {}
    dated = ccxt.pro.RateLimitExceeded(f"IP banned until {round((time.time() + 7_200) * 1000)}.")
    assert 7_100 < Limiter("x").obey(dated, client) < 7_201
    client.last_response_headers = {"Retry-After": "Fri, 31 Dec 2049 23:59:59 GMT"}
    assert Limiter("x").obey(error, client) > 86_400
    limiter = Limiter("x")
    client.last_response_headers = {"Retry-After": "0.2"}
    limiter.obey(error, client)
    began_s = time.monotonic()
    async with limiter:
        assert time.monotonic() - began_s >= 0.15


@pytest.mark.parametrize("name", ["binanceusdm", "bybit", "okx", "coinbase", "kraken"])
async def test_a_history_begins_where_rest_shows_it_whatever_the_listing_says(name: str) -> None:
    # Binance's onboardDate of BTCUSDT is 2019-09-25, its first candle is of 2019-09-08.
    begin_us = 1_567_900_800_000_000
    market = LongMarket("BTC/USDT", 2, begin_us=begin_us, end_us=begin_us + 40 * DAY_US)
    async with (
        ReplayExchange([market], dialect=name, at_end=True) as exchange,
        opened(exchange) as (history, symbol),
    ):
        history.client.markets[symbol]["created"] = 1_569_369_600_000
        closed_us = begin_us + 40 * DAY_US
        from_us = begin_us - 20 * DAY_US
        listed_us = await history.listed_from_us(symbol, from_us, closed_us)
        assert listed_us is not None
        assert begin_us <= listed_us < begin_us + MINUTE_US
        history._listed_us.clear()
        inside_us = begin_us + 5 * DAY_US
        assert (await history.listed_from_us(symbol, inside_us, closed_us) or 0) <= inside_us


@pytest.mark.parametrize("name", ["binance", "bybit", "okx", "coinbase"])
async def test_a_symbol_that_is_traded_no_more_has_ended_while_others_go_on(name: str) -> None:
    ended_us, now_us = at_us(3 * 1_440), at_us(20 * 1_440)
    gone = LongMarket("GONE/USDT", 2, begin_us=BEGIN_US, end_us=ended_us)
    goes_on = LongMarket("BTC/USDT", 2, begin_us=BEGIN_US, end_us=now_us)
    window = Window(at_us(4 * 1_440), at_us(10 * 1_440))
    async with (
        ReplayExchange([gone, goes_on], dialect=name, at_end=True) as exchange,
        opened(exchange) as (history, symbol),
    ):
        assert await ended_from_us(history, symbol, window.start_us) == ended_us
        reason = await why_absent(
            history, symbol, ONE, window, now_us, have=[window.start_us - MINUTE_US]
        )
        assert reason == "ended"
        other = exchange.feeds[1].symbol
        assert await ended_from_us(history, other, window.start_us) is None
    halted = [(ended_us, at_us(15 * 1_440))]
    back = LongMarket("BACK/USDT", 2, begin_us=BEGIN_US, end_us=now_us, halts=halted)
    async with (
        ReplayExchange([back, goes_on], dialect=name, at_end=True) as exchange,
        opened(exchange) as (history, symbol),
    ):
        # The window ends inside the halt; the symbol goes on after it.
        reason = await why_absent(
            history, symbol, ONE, window, window.end_us, have=[window.start_us - MINUTE_US]
        )
        assert reason in ("halted", "no_trades", "unanswered")
    async with (
        ReplayExchange([gone], dialect=name, at_end=True) as exchange,
        opened(exchange) as (history, symbol),
    ):
        assert await ended_from_us(history, symbol, at_us(0)) is None


async def test_weeks_that_begin_on_another_day_are_refused_for_good() -> None:
    market = LongMarket("BTC/USDT", 2, begin_us=BEGIN_US, end_us=at_us(40 * 1_440))
    async with (
        ReplayExchange([market], dialect="bybit", at_end=True) as exchange,
        opened(exchange) as (history, symbol),
    ):
        fetch = history.client.fetch

        async def thursdays(url: str, *args: Any, **named: Any) -> Any:
            answer = await fetch(url, *args, **named)
            for row in answer.get("result", {}).get("list", []) if "kline" in url else []:
                row[0] = str(int(row[0]) + 3 * 86_400_000)
            return answer

        history.client.fetch = thursdays
        with pytest.raises(NotOfferedError, match="fetch a shorter timeframe"):
            await anext(history.candles.pages(symbol, "1w", BEGIN_US, at_us(35 * 1_440)))
        assert history.ask.asked.failures == 0


async def test_a_symbol_that_is_not_listed_is_named_with_those_near_it() -> None:
    market = LongMarket("BTC/USDT", 2, begin_us=BEGIN_US, end_us=at_us(10))
    async with ReplayExchange([market], at_end=True) as exchange, opened(exchange) as (history, _):
        with pytest.raises(DataFetchError, match=r"found 'BTC/USDC'; .* such as BTC/USDT"):
            history.check_listed("BTC/USDC")
