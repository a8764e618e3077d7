"""What bites about exchanges and ccxt.pro, one test each, against the replay exchange."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import structlog.testing

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.producers.connection import listing
from alpha_pulse.producers.connection.symbols import shard_of
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.exchange.faults import SOCKET_PATHS, FaultPlan, RestFault, StreamFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S, check_promise
from tests.rooms import a_decoder

MINUTE_US = 60_000_000


def market(
    symbol: str = "BTC/USDT", seed: int = 5, minutes: int = 5, per_minute: int = 120
) -> SyntheticMarket:
    end_us = BEGIN_US + minutes * MINUTE_US
    return SyntheticMarket(symbol, seed, end_us=end_us, trades_per_minute=per_minute)


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


def ids_sent(exchange: ReplayExchange, symbol: str = "BTC/USDT") -> list[str]:
    return [str(row.trade_id) for row in exchange.ledger.published(symbol)]


async def test_a_flood_beyond_ccxts_cache_of_1000_trades_loses_nothing(follow: Any) -> None:
    async with ReplayExchange([market(per_minute=6_000)]) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        found = [trade.trade_id for trade in following.published.trades()]
        assert len(found) > 10_000
        assert found == ids_sent(exchange)


@pytest.mark.parametrize("kind", ["close", "abort"])
async def test_a_lost_socket_is_said_and_its_trades_are_fetched(kind: str, follow: Any) -> None:
    plan = FaultPlan(stream=[StreamFault(kind, at_trade=100)])
    async with ReplayExchange([market()], faults=plan) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        assert [trade.trade_id for trade in following.published.trades()] == ids_sent(exchange)
        states = [beat.state for beat in following.published.heartbeats()]
        assert states == ["live", "disconnected", "live", "live"]


async def test_a_half_open_socket_is_found_and_its_trades_are_fetched(follow: Any) -> None:
    plan = FaultPlan(stream=[StreamFault("no-pong", at_trade=50)])
    async with ReplayExchange(
        [market(minutes=4, per_minute=600)], speed=4.0, faults=plan
    ) as exchange:
        following = await follow(config(exchange))
        await following.until(lambda: plan.applied)
        loop = asyncio.get_running_loop()
        broken_at = loop.time()
        await following.until(
            lambda: any(b.state == "disconnected" for b in following.published.heartbeats())
        )
        check_promise(loop.time() - broken_at, 10)
        await following.until(lambda: following.published.heartbeats()[-1].state == "live")
        await following.end()
        found = [trade.trade_id for trade in following.published.trades()]
        assert len(found) > 100
        assert found == ids_sent(exchange)[: len(found)]


async def test_after_a_storm_of_closes_every_stream_is_back(follow: Any) -> None:
    plan = FaultPlan(stream=[StreamFault("close", at_trade=50 + number) for number in range(100)])
    markets = [market(minutes=60, per_minute=1_200), market("ETH/USDT", seed=6, minutes=60)]
    async with ReplayExchange(markets, speed=1.0, faults=plan) as exchange:
        following = await follow(config(exchange, until_us=0))
        published = following.published
        await following.until(lambda: plan.next_at_trade is None)
        loop = asyncio.get_running_loop()
        healed_at = loop.time()

        def is_live(symbol: str) -> bool:
            return bool(published.heartbeats(symbol)[-1].state == "live")

        await following.until(
            lambda: not exchange.conductor.missing and is_live("BTC/USDT") and is_live("ETH/USDT")
        )
        check_promise(loop.time() - healed_at, 5)
        # Far fewer sockets than closes: most of them found nobody.
        assert exchange.state()["sockets_opened"] < 20
        await following.end()
        found = [trade.trade_id for trade in published.trades("BTC/USDT")]
        assert found == ids_sent(exchange)[: len(found)]


@pytest.mark.parametrize("kind", ["http429", "http418", "http500"])
async def test_a_refused_handshake_is_dialed_again_when_the_exchange_says(
    kind: str, follow: Any
) -> None:
    plan = FaultPlan(rest=[RestFault(kind, number, 1.0, SOCKET_PATHS) for number in range(2)])
    async with ReplayExchange([market()], faults=plan) as exchange:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        assert len(plan.applied) == 2
        assert [trade.trade_id for trade in following.published.trades()] == ids_sent(exchange)
        if kind != "http500":
            assert loop.time() - began_at >= 2, "each answer named a second"
            assert following.producer.limiter.limited == 2


@pytest.mark.parametrize("name", ["binance", "coinbase", "bybit"])
async def test_a_quiet_symbol_keeps_its_own_trades_beside_a_busy_one(
    name: str, follow: Any
) -> None:
    markets = [market("BTC/USDT", per_minute=600), market("ETH/USDT", seed=6, per_minute=5)]
    async with ReplayExchange(markets, dialect=name) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        for symbol in ("BTC/USDT", "ETH/USDT"):
            sent = [(r.price, r.amount) for r in exchange.ledger.published(symbol)]
            found = [(t.price, t.amount) for t in following.published.trades(symbol)]
            assert found == sent


@pytest.mark.parametrize(
    "kind", ["empty", "truncated", "null", "http429", "http418", "http500", "delay"]
)
async def test_a_hole_is_filled_although_rest_fails_first(kind: str, follow: Any) -> None:
    plan = FaultPlan(
        stream=[StreamFault("drop", at_trade=100, trades=20)],
        rest=[RestFault(kind, at_request=0, seconds=0.3)],
    )
    async with ReplayExchange([market()], faults=plan) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        assert len(plan.applied) == 2
        assert [trade.trade_id for trade in following.published.trades()] == ids_sent(exchange)
        # Told once, as filled, behind the trades that were fetched.
        (gap,) = following.published.gaps()
        assert gap.status == "filled"


async def test_without_a_key_a_hole_within_the_last_thousand_trades_is_filled(follow: Any) -> None:
    plan = FaultPlan(stream=[StreamFault("drop", at_trade=100, trades=20)])
    options = Options(keyless_history=False)
    async with ReplayExchange([market()], faults=plan, options=options) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        assert [trade.trade_id for trade in following.published.trades()] == ids_sent(exchange)


async def test_what_rest_no_longer_shows_becomes_a_gap_and_the_feed_goes_on(follow: Any) -> None:
    plan = FaultPlan(stream=[StreamFault("drop", at_trade=100, trades=20)])
    options = Options(keyless_history=False)
    source = market(per_minute=6_000)
    async with ReplayExchange([source], faults=plan, options=options) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        found = [trade.trade_id for trade in following.published.trades()]
        (gap,) = following.published.gaps()
        assert gap.status == "unfillable"
        missing = range(int(gap.first_trade_id or 0), int(gap.last_trade_id or 0) + 1)
        assert len(missing) == 20
        assert sorted([*map(int, found), *missing]) == sorted(map(int, ids_sent(exchange)))


async def test_symbols_and_candles_of_binance_share_one_socket(follow: Any) -> None:
    markets = [market(symbol, seed) for seed, symbol in enumerate(("A/USDT", "B/USDT", "C/USDT"))]
    async with ReplayExchange(markets) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        assert exchange.state()["sockets_opened"] == 1


async def test_nothing_is_left_open_when_a_producer_has_ended(follow: Any) -> None:
    before = asyncio.all_tasks()
    async with ReplayExchange([market()]) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        await following.until(lambda: not exchange.state()["sockets"])
    left = {task.get_name() for task in asyncio.all_tasks() - before if not task.done()}
    assert not {name for name in left if "catch-up" in name}


def test_a_trade_that_was_printed_after_our_clock_is_taken() -> None:
    frame = (
        '{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":1,"p":"1","q":"1",'
        '"T":1723161255342,"m":true,"M":true}'
    )
    decode = a_decoder("binance")
    received_us = 1_723_161_254_000_000
    assert decode(frame, received_us)
    assert decode.trades([frame], received_us)


async def test_kafka_away_stops_reading_and_loses_nothing(follow: Any) -> None:
    async with ReplayExchange([market(per_minute=6_000)]) as exchange:
        following = await follow(config(exchange, publish_pending_bytes_max=1))
        published = following.published
        await following.until(lambda: len(published.trades()) > 1_000)
        published.may_take.clear()
        published.pending_bytes = 2
        producer = following.producer
        await following.until(lambda: not producer.gate_is_open)
        read = producer.intake.frames
        await asyncio.sleep(0.5)
        # What was on its way into the socket is read, then no more.
        assert producer.intake.frames - read < 5_000
        published.pending_bytes = 0
        published.may_take.set()
        await asyncio.wait_for(following.task, PATIENCE_S)
        assert [trade.trade_id for trade in published.trades()] == ids_sent(exchange)


async def test_symbols_come_and_go_without_touching_the_others(follow: Any) -> None:
    symbols = ("BTC/USDT", "ETH/USDT", "LTC/USDT")
    markets = [market(symbol, seed=seed, minutes=60) for seed, symbol in enumerate(symbols, 5)]
    async with ReplayExchange(markets, speed=20.0, wait_for=[]) as exchange:
        following = await follow(config(exchange, symbols=("BTC/USDT", "ETH/USDT"), until_us=0))
        published = following.published
        await following.until(lambda: published.trades("BTC/USDT") and published.trades("ETH/USDT"))
        await following.producer.set_symbols(["BTC/USDT", "LTC/USDT"])
        ended_with = len(published.trades("ETH/USDT"))
        await following.until(lambda: len(published.trades("LTC/USDT")) > 20)
        assert len(published.trades("ETH/USDT")) == ended_with
        assert [beat.state for beat in published.heartbeats("BTC/USDT")] == ["live"]
        assert published.heartbeats("ETH/USDT")[-1].state == "disconnected"
        assert published.dead_letters() == []
        trades = [int(trade.trade_id) for trade in published.trades("BTC/USDT")]
        assert trades == list(range(trades[0], trades[0] + len(trades)))
        await following.end()


async def test_a_symbol_is_followed_once_it_is_listed_and_halted_once_it_is_not(
    follow: Any,
) -> None:
    markets = [market("BTC/USDT", minutes=60), market("ETH/USDT", seed=6, minutes=60)]
    async with ReplayExchange(markets, speed=20.0, wait_for=[]) as exchange:
        exchange.feeds[1].listed = False
        following = await follow(config(exchange, until_us=0, quarantine_s=0.3))
        published = following.published
        await following.until(lambda: published.trades("BTC/USDT"))
        assert published.trades("ETH/USDT") == []
        exchange.feeds[1].listed = True
        await following.until(lambda: published.trades("ETH/USDT"))
        assert following.producer.quarantined == {}
        exchange.feeds[0].listed = False
        await following.until(
            lambda: "halted" in [beat.state for beat in published.heartbeats("BTC/USDT")]
        )
        await following.end()


def test_shards_part_the_symbols_and_one_more_symbol_moves_no_other() -> None:
    symbols = [f"S{number}/USDT" for number in range(200)]
    shards = [shard_of(symbols, index, 4) for index in range(4)]
    assert sorted(symbol for shard in shards for symbol in shard) == sorted(symbols)
    assert all(20 < len(shard) < 80 for shard in shards)
    more = [shard_of([*symbols, "NEW/USDT"], index, 4) for index in range(4)]
    assert all(set(shard) <= set(grown) for shard, grown in zip(shards, more, strict=True))


async def test_an_exchange_that_is_not_there_is_named_and_tried_again(
    follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = structlog.testing.CapturingLogger()
    monkeypatch.setattr(listing, "log", said)
    async with ReplayExchange([market()]) as exchange:
        gone = config(exchange)
    following = await follow(replace(gone, exchange_url="http://127.0.0.1:9"))

    def unreachable() -> list[str]:
        return [str(call) for call in said.calls if call.args[:1] == ("exchange.unreachable",)]

    async with asyncio.timeout(PATIENCE_S):
        while len(unreachable()) < 2:  # noqa: ASYNC110, a log has no event to wait for
            await asyncio.sleep(0.01)
    assert not following.task.done()
    await following.end()
    assert all("127.0.0.1:9" in line for line in unreachable())
