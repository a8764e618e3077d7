"""Every paging step makes progress or ends, whatever REST answers with, on every exchange."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.config import HistoryConfig, ProducerConfig
from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.producers.connection.client import make_exchange
from alpha_pulse.producers.connection.limiter import Limiter
from alpha_pulse.producers.exchanges.registry import ExchangeType, exchange_of
from alpha_pulse.producers.history.pages import History
from alpha_pulse.replay.dialects.base import RestRequest
from alpha_pulse.replay.exchange.faults import DATA_PATHS, shortened
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.long_market import LongMarket
from alpha_pulse.replay.markets.synthetic import BEGIN_US
from tests.producers.history.test_pages import WITH_OLD_TRADES

DAY = 1_440
# Minutes of trading around silences of twelve days, of thirty hours, and of nine days.
HALTS = ((30, 12 * DAY), (12 * DAY + 20, 12 * DAY + 1_820), (13 * DAY + 900, 22 * DAY + 900))
MINUTES = 22 * DAY + 930
# Without progress there is no end; the longest honest conversation takes a tenth.
REQUESTS_MAX = 1_500
ANSWERS = ("honest", "empty", "first", "previous", "reversed", "few", "older")


def at_us(minute: int) -> int:
    return BEGIN_US + minute * MINUTE_US


def silent_market() -> LongMarket:
    halts = [(at_us(first), at_us(end)) for first, end in HALTS]
    return LongMarket("BTC/USDT", 3, begin_us=BEGIN_US, end_us=at_us(MINUTES), halts=halts)


class Rest:
    """REST in this process: the dialect's answers, or what a script makes of them."""

    def __init__(self, exchange: ReplayExchange, script: Sequence[str]) -> None:
        self.requests = 0
        self._dialect = exchange.dialect
        self._script = script
        self._bodies: list[Any] = []

    async def fetch(self, url: str, *rest: Any, **named: Any) -> Any:
        parts = urlsplit(url)
        path, query = parts.path.lstrip("/"), dict(parse_qsl(parts.query))
        is_data = re.search(DATA_PATHS, path) is not None
        kind = self._script[self.requests % len(self._script)] if is_data else "honest"
        if kind == "older":
            # A server that takes every time for one of a week before.
            for name in ("start", "end", "startTime", "endTime"):
                if query.get(name, "").isdigit():
                    week = 604_800 * (1_000 if len(query[name]) > 10 else 1)
                    query[name] = str(max(0, int(query[name]) - week))
        reply = await self._dialect.rest(RestRequest(path, query, {}))
        assert reply is not None, path
        body = orjson.loads(orjson.dumps(reply.body))
        if not is_data:
            return body
        self.requests += 1
        assert self.requests < REQUESTS_MAX, "no progress"
        self._bodies.append(body)
        return self._made(kind, body)

    def _made(self, kind: str, body: Any) -> Any:
        if kind == "first":
            return self._bodies[0]
        if kind == "previous":
            return self._bodies[max(0, len(self._bodies) - 2)]
        if kind in ("empty", "few"):
            return shortened(body, "no-rows" if kind == "empty" else "few-rows")
        return _reversed(body) if kind == "reversed" else body


def _reversed(body: Any) -> Any:
    if isinstance(body, list):
        return body[::-1]
    if isinstance(body, dict):
        return {
            name: _reversed(value) if isinstance(value, (list, dict)) else value
            for name, value in body.items()
        }
    return body


@asynccontextmanager
async def history_over(
    name: str, script: Sequence[str] = ("honest",)
) -> AsyncIterator[tuple[History, str, Rest]]:
    exchange = ReplayExchange([silent_market()], dialect=name, at_end=True)
    rest = Rest(exchange, script)
    config = ProducerConfig(exchange=name, exchange_url="http://127.0.0.1:1", clock="event")
    client = make_exchange(config)
    client.fetch = rest.fetch
    try:
        await client.load_markets()
        settings = HistoryConfig(retry_delay_s=0.0, max_retries=1)
        yield History(name, client, Limiter(name), settings), exchange.feeds[0].symbol, rest
    finally:
        await client.close()


async def all_trades(history: History, symbol: str, first: int, end: int) -> list[Trade]:
    """Return a window's trades; pages follow one another and bring each trade once, in order."""
    found: list[Trade] = []
    covered_us = at_us(first)
    async for page in history.trades.pages(symbol, at_us(first), at_us(end)):
        assert page.start_us == covered_us
        assert page.end_us >= page.start_us
        covered_us = page.end_us
        found += page.trades
        ids = [int(trade.trade_id) for trade in found]
        assert ids == sorted(set(ids))
        assert all(at_us(first) <= trade.trade_time_us < at_us(end) for trade in page.trades)
    return found


@pytest.mark.parametrize("name", WITH_OLD_TRADES)
@settings(max_examples=12)
@given(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=6), st.integers(0, MINUTES - 1))
def test_trades_end_whatever_rest_answers_with(name: str, script: list[str], first: int) -> None:
    async def run() -> None:
        async with history_over(name, script) as (history, symbol, _):
            with suppress(DataFetchError):
                await all_trades(history, symbol, first, MINUTES)
            with suppress(DataFetchError):
                await history.trades.first_trade_from(symbol, at_us(first))

    asyncio.run(run())


@pytest.mark.parametrize("name", [exchange.value for exchange in ExchangeType])
@settings(max_examples=8)
@given(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=6), st.integers(0, 300))
def test_candles_end_whatever_rest_answers_with(name: str, script: list[str], first: int) -> None:
    async def run() -> None:
        async with history_over(name, script) as (history, symbol, _):
            start_us, end_us = at_us(first), at_us(first + 1_500)
            covered_us = start_us
            with suppress(DataFetchError):
                async for page in history.candles.pages(symbol, "1m", start_us, end_us):
                    assert page.start_us == covered_us
                    covered_us = page.end_us
                assert covered_us == end_us
            with suppress(DataFetchError):
                await history.listed_from_us(symbol, BEGIN_US, at_us(MINUTES))

    asyncio.run(run())


@pytest.mark.parametrize("name", WITH_OLD_TRADES)
async def test_trades_around_long_silences_come_whole_and_cost_little(name: str) -> None:
    async with history_over(name) as (history, symbol, rest):
        found = await all_trades(history, symbol, 0, MINUTES)
        expected = silent_market().rows(0, 10**9)
        assert [int(trade.trade_id) for trade in found] == [row.trade_id for row in expected]
        assert rest.requests < 150


@pytest.mark.parametrize("name", WITH_OLD_TRADES)
@pytest.mark.parametrize("halt", HALTS)
async def test_the_first_trade_after_a_silence_is_found_exactly(
    name: str, halt: tuple[int, int]
) -> None:
    market = silent_market()
    async with history_over(name) as (history, symbol, rest):
        for minute in (halt[0], halt[0] + 1, (halt[0] + halt[1]) // 2, halt[1] - 1, halt[1]):
            first = await history.trades.first_trade_from(symbol, at_us(minute))
            position = market.position_at(at_us(minute))
            (row,) = market.rows(position, position + 1)
            assert first is not None
            assert (first.trade_id, first.time_us) == (row.trade_id, row.trade_time_us)
        assert await history.trades.no_trade_in(symbol, at_us(halt[0]), at_us(halt[1])) is True
        assert rest.requests < 250


def test_every_exchange_that_looks_back_a_bounded_time_says_so() -> None:
    bounded = [name for name in WITH_OLD_TRADES if exchange_of(name).trades.look_back_us]
    assert bounded == ["coinbase"], "each such exchange is in the tests above"
