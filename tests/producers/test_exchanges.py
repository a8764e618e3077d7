"""One suite for every exchange: the real ccxt.pro against the replay exchange."""

import asyncio
import base64
import time
from decimal import Decimal
from typing import Any

import pytest

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.events import Heartbeat
from alpha_pulse.producers.exchanges.registry import ExchangeType, exchange_of
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.exchange.faults import (
    GARBAGE_KINDS,
    HUGE_BYTES,
    FaultPlan,
    StreamFault,
    seeded_plan,
)
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S

EXCHANGES = tuple(exchange.value for exchange in ExchangeType)
WITH_IDS = tuple(name for name in EXCHANGES if exchange_of(name).ids_are_consecutive)
MINUTE_US = 60_000_000
MINUTES = 5
END_US = BEGIN_US + MINUTES * MINUTE_US


def market(symbol: str = "BTC/USDT", seed: int = 3, minutes: int = MINUTES) -> SyntheticMarket:
    return SyntheticMarket(symbol, seed, end_us=BEGIN_US + minutes * MINUTE_US)


def config(exchange: ReplayExchange, **changes: Any) -> ProducerConfig:
    assert exchange.end_us is not None
    settings: dict[str, Any] = {
        "exchange": exchange.dialect.name,
        "symbols": tuple(feed.symbol for feed in exchange.feeds),
        "exchange_url": exchange.url,
        "clock": "event",
        "until_us": exchange.end_us,
        **changes,
    }
    return ProducerConfig(**settings)


def sent(exchange: ReplayExchange, symbol: str, precision_us: int) -> list[tuple[Any, ...]]:
    return [
        (row.price, row.amount, row.trade_time_us // precision_us * precision_us)
        for row in exchange.ledger.published(symbol)
    ]


@pytest.mark.parametrize("name", EXCHANGES)
async def test_an_open_socket_answers_when_it_is_asked_how_far_it_is(
    name: str, follow: Any
) -> None:
    async with ReplayExchange([market()], dialect=name, speed=1.0) as exchange:
        following = await follow(config(exchange, clock="exchange", until_us=0))
        await following.until(lambda: following.published.trades())
        for socket in following.producer._sockets.values():
            payload = socket.heard.ask(BEGIN_US, time.monotonic_ns() // 1000)
            assert payload is not None
            socket.ping(payload)
            await following.until(lambda heard=socket.heard: not heard.asked_at_us)
        await following.end()


@pytest.mark.parametrize("name", EXCHANGES)
async def test_every_trade_arrives_once_in_order_with_its_own_digits(
    name: str, follow: Any
) -> None:
    async with ReplayExchange([market()], dialect=name) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        symbol = exchange.feeds[0].symbol
        trades = following.published.trades(symbol)
        found = [(t.price, t.amount, t.trade_time_us) for t in trades]
        assert len(found) > 100
        assert found == sent(exchange, symbol, exchange.dialect.time_precision_us)
        assert len({trade.trade_id for trade in trades}) == len(trades)


@pytest.mark.parametrize("name", EXCHANGES)
async def test_the_last_word_of_a_recording_is_that_it_is_complete_until_its_end(
    name: str, follow: Any
) -> None:
    async with ReplayExchange([market()], dialect=name) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        last = following.published.log()[-1]
        assert isinstance(last, Heartbeat)
        assert (last.state, last.complete_until_us) == ("live", exchange.end_us)


@pytest.mark.parametrize("name", EXCHANGES)
async def test_exchange_candles_are_taken_once_each_and_only_when_final(
    name: str, follow: Any
) -> None:
    async with ReplayExchange([market()], dialect=name) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        candles = following.published.candles()
        opened = [candle.open_time_us for candle in candles]
        assert opened == [BEGIN_US + minute * MINUTE_US for minute in range(MINUTES)]
        rows = list(exchange.ledger.published(exchange.feeds[0].symbol))
        for candle in candles:
            close_us = candle.open_time_us + MINUTE_US
            inside = [r for r in rows if candle.open_time_us <= r.trade_time_us < close_us]
            prices = [Decimal(row.price) for row in inside]
            if inside:
                assert Decimal(candle.open) == prices[0]
                assert Decimal(candle.close) == prices[-1]
                assert (Decimal(candle.high), Decimal(candle.low)) == (max(prices), min(prices))
            assert Decimal(candle.volume) == sum(Decimal(row.amount) for row in inside)


@pytest.mark.parametrize("name", WITH_IDS)
async def test_no_trade_is_lost_or_doubled_whatever_the_stream_does(name: str, follow: Any) -> None:
    # At once: most of each is waiting before the next dial.
    await asyncio.gather(*(check_that_nothing_is_lost(name, seed, follow) for seed in (1, 2, 3)))


async def check_that_nothing_is_lost(name: str, seed: int, follow: Any) -> None:
    source = market(seed=seed)
    plan = seeded_plan(
        ["close", "abort", "duplicate", "swap", "drop", "garbage", "http429", "http500"],
        seed,
        source.position_at(END_US),
    )
    async with ReplayExchange([source], dialect=name, faults=plan) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        trades = following.published.trades()
        assert [int(trade.trade_id) for trade in trades] == [
            row.trade_id for row in exchange.ledger.published(exchange.feeds[0].symbol)
        ], f"fault seed {seed}"
        gaps = following.published.gaps()
        assert [gap for gap in gaps if gap.status == "unfillable"] == [], f"fault seed {seed}"


@pytest.mark.parametrize("name", EXCHANGES)
async def test_each_bad_frame_is_one_dead_letter_and_the_feed_goes_on(
    name: str, follow: Any
) -> None:
    faults = [
        StreamFault("garbage", at_trade=50 + 20 * place, garbage=kind)
        for place, kind in enumerate((*GARBAGE_KINDS, "list", "null"))
    ]
    async with ReplayExchange(
        [market()], dialect=name, faults=FaultPlan(stream=faults)
    ) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        letters = following.published.dead_letters()
        # The same bytes a second time ("list", "null") make no second letter.
        assert len(letters) == len(GARBAGE_KINDS)
        assert len({letter.identity for letter in letters}) == len(letters)
        huge = [letter for letter in letters if letter.payload_bytes > HUGE_BYTES]
        assert [len(base64.b64decode(letter.payload_base64)) for letter in huge] == [256 * 1024]
        symbol = exchange.feeds[0].symbol
        assert len(following.published.trades()) == len(list(exchange.ledger.published(symbol)))
        assert following.published.gaps() == []


@pytest.mark.parametrize("name", EXCHANGES)
async def test_a_refused_symbol_is_quarantined_and_the_others_go_on(name: str, follow: Any) -> None:
    if not DIALECTS[name].refuses_symbols:
        pytest.skip(f"{name} acknowledges any name; a delisted symbol is missing from its list")
    markets = [market("BTC/USDT"), market("ETH/USDT", seed=4)]
    other, refused = (DIALECTS[name].unified_symbol(m.instrument.symbol) for m in markets)
    async with ReplayExchange(
        markets, dialect=name, options=Options(refused=frozenset({refused}))
    ) as exchange:
        following = await follow(config(exchange, until_us=0))
        await following.until(lambda: refused in following.producer.quarantined)
        await following.until(lambda: len(following.published.trades(other)) > 100)
        assert following.published.trades(refused) == []
        await following.end()


async def test_an_unlisted_symbol_is_quarantined_and_the_others_go_on(follow: Any) -> None:
    async with ReplayExchange([market()]) as exchange:
        following = await follow(config(exchange, symbols=("NO/SUCH", "BTC/USDT"), until_us=0))
        await following.until(lambda: len(following.published.trades("BTC/USDT")) > 100)
        assert "does not list" in following.producer.quarantined["NO/SUCH"]
        await following.end()


@pytest.mark.parametrize("name", WITH_IDS)
async def test_after_a_restart_the_hole_since_the_last_published_trade_is_filled(
    name: str, follow: Any
) -> None:
    source = market()
    rows = source.rows(0, source.position_at(END_US))
    last = rows[20]
    async with ReplayExchange([source], dialect=name) as exchange:
        symbol = exchange.feeds[0].symbol
        following = await follow(
            config(exchange), resume={symbol: (str(last.trade_id), last.trade_time_us)}
        )
        await asyncio.wait_for(following.task, PATIENCE_S)
        assert [int(trade.trade_id) for trade in following.published.trades()] == [
            row.trade_id for row in rows[21:]
        ]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("name", EXCHANGES)
async def test_the_log_of_a_symbol_begins_with_a_heartbeat_that_says_what_ids_prove(
    name: str, restarted: bool, follow: Any
) -> None:
    source = market()
    last = source.rows(0, source.position_at(END_US))[20]
    async with ReplayExchange([source], dialect=name) as exchange:
        feed = exchange.feeds[0]
        seen = {feed.symbol: (exchange.dialect.trade_id(feed, last), last.trade_time_us)}
        following = await follow(config(exchange), resume=seen if restarted else None)
        await asyncio.wait_for(following.task, PATIENCE_S)
        first, *others = following.published.log(feed.symbol)
        assert isinstance(first, Heartbeat)
        assert len(others) > 100
        said = {beat.ids_are_consecutive for beat in following.published.heartbeats()}
        assert said == {exchange_of(name).ids_are_consecutive}
