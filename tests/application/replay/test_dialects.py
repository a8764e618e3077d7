"""One suite for every dialect: real, unmodified ccxt.pro against the replay exchange."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import aiohttp
import ccxt.pro
import orjson
import pytest

from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.exchange.faults import FaultPlan, StreamFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.market import TradeRow
from alpha_pulse.replay.markets.recorded import RecordedMarket
from alpha_pulse.replay.markets.recording import Recording
from tests.application.replay.conftest import Connect, until, watching
from tests.patience import PATIENCE_S

MINUTE_MS = 60_000


@pytest.fixture(params=sorted(DIALECTS))
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def symbol_of(exchange: ReplayExchange) -> str:
    return exchange.feeds[0].symbol


def client_id(exchange: ReplayExchange, row: TradeRow) -> str:
    return exchange.dialect.trade_id(exchange.feeds[0], row)


def watch_trades(client: Any, symbol: str) -> Any:
    # OKX's default channel merges the prints of one order.
    params = {"channel": "trades-all"} if client.id == "okx" else {}
    if client.has["watchTradesForSymbols"]:
        return client.watch_trades_for_symbols([symbol], params=params)
    return client.watch_trades(symbol, params=params)


async def next_pong(socket: Any) -> None:
    before = socket.lastPong
    await until(lambda: socket.lastPong != before)


@contextmanager
def subscribed(client: Any, exchange: ReplayExchange) -> Iterator[None]:
    """Watch trades and candles as an application would."""
    symbol = symbol_of(exchange)
    tasks = [asyncio.create_task(watching(lambda: watch_trades(client, symbol)))]
    if exchange.dialect.has_candle_channel:
        tasks.append(asyncio.create_task(watching(lambda: client.watch_ohlcv(symbol, "1m"))))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def streamed(
    recording: Recording, dialect: str, connect: Connect, **options: Any
) -> AsyncIterator[tuple[ReplayExchange, Any]]:
    """A client that has received all of a recording."""
    market = RecordedMarket(recording)
    async with (
        ReplayExchange([market], dialect=dialect, **options) as exchange,
        connect(exchange) as client,
    ):
        await client.load_markets()
        with subscribed(client, exchange):
            await until(lambda: exchange.conductor.finished)
            last = client_id(exchange, recording.trades[-1])
            symbol = symbol_of(exchange)
            await until(lambda: last in {t["id"] for t in client.trades.get(symbol, [])})
            yield exchange, client


async def test_every_trade_arrives_once_in_order_with_its_own_digits(
    recording: Recording, dialect: str, connect: Connect
) -> None:
    async with streamed(recording, dialect, connect) as (exchange, client):
        received = client.trades[symbol_of(exchange)]
        assert [trade["id"] for trade in received] == [
            client_id(exchange, row) for row in recording.trades
        ]
        for trade, row in zip(received, recording.trades, strict=True):
            assert Decimal(trade["price"]) == Decimal(row.price)
            assert Decimal(trade["amount"]) == Decimal(row.amount)
            # Coinbase tells the maker's side, and ccxt passes it on.
            assert (trade["side"] == row.side) == (dialect != "coinbase")
            assert trade["timestamp"] == row.trade_time_us // 1_000
        counted = exchange.ledger.report()["symbols"][symbol_of(exchange)]
        assert counted["published"] == counted["sent"] == len(recording.trades)
        assert counted["sent_again"] == 0
        assert counted["not_sent_ids"] == []


async def test_rest_candles_equal_the_recorded_ones(
    recording: Recording, dialect: str, connect: Connect
) -> None:
    async with streamed(recording, dialect, connect) as (exchange, client):
        since = recording.candles[0].open_time_us // 1_000
        served = await client.fetch_ohlcv(symbol_of(exchange), "1m", since=since, limit=100)
        leaves_out_empty = exchange_of(dialect).candles.empty_left_out
        by_time = {candle[0]: candle[1:] for candle in served}
        kept = [c for c in recording.candles if c.trade_count or not leaves_out_empty]
        assert len(kept) > 3
        for candle in kept:
            found = by_time[candle.open_time_us // 1_000]
            texts = [candle.open, candle.high, candle.low, candle.close, candle.volume]
            assert [Decimal(str(n)) for n in found] == [Decimal(text) for text in texts]


async def test_watched_candles_end_with_the_exchanges_values(
    recording: Recording, dialect: str, connect: Connect
) -> None:
    if not DIALECTS[dialect].has_candle_channel:
        pytest.skip(f"{dialect}: ccxt cannot watch candles")
    async with streamed(recording, dialect, connect) as (exchange, client):
        symbol = symbol_of(exchange)
        await until(lambda: symbol in client.ohlcvs and "1m" in client.ohlcvs[symbol])
        last_us = recording.candles[-1].open_time_us
        await until(lambda: client.ohlcvs[symbol]["1m"][-1][0] >= last_us // 1_000)
        watched = {row[0]: row[1:6] for row in client.ohlcvs[symbol]["1m"]}
        # Kraken sends nothing about a minute without trades.
        kept = [c for c in recording.candles if c.trade_count or dialect != "kraken"]
        for candle in kept:
            texts = [candle.open, candle.high, candle.low, candle.close, candle.volume]
            found = watched[candle.open_time_us // 1_000]
            assert [float(n) for n in found] == [float(text) for text in texts]


async def test_the_newest_trades_over_rest_are_those_of_the_stream(
    recording: Recording, dialect: str, connect: Connect
) -> None:
    async with streamed(recording, dialect, connect) as (exchange, client):
        params = {"fetchTradesMethod": "publicGetTrades"} if "binance" in dialect else {}
        if dialect == "binanceusdm":
            params = {"fetchTradesMethod": "fapiPublicGetTrades"}
        served = await client.fetch_trades(symbol_of(exchange), limit=50, params=params)
        newest = [client_id(exchange, row) for row in recording.trades[-50:]]
        assert sorted(trade["id"] for trade in served) == sorted(newest)


async def test_a_lost_connection_loses_trades_that_rest_still_knows(
    recording: Recording, dialect: str, connect: Connect
) -> None:
    faults = FaultPlan([StreamFault("abort", at_trade=200, trades=20)])
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect=dialect, faults=faults) as exchange,
        connect(exchange) as client,
    ):
        await client.load_markets()
        symbol = symbol_of(exchange)
        received: set[str] = set()

        async def watch() -> None:
            while True:
                try:
                    received.update(t["id"] for t in await watch_trades(client, symbol))
                except Exception:
                    await asyncio.sleep(0.01)

        async def watch_candles() -> None:
            while True:
                try:
                    await client.watch_ohlcv(symbol, "1m")
                except Exception:
                    await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(watch())]
        if exchange.dialect.has_candle_channel:
            tasks.append(asyncio.create_task(watch_candles()))
        await until(lambda: exchange.conductor.finished)
        last = client_id(exchange, recording.trades[-1])
        await until(lambda: last in {t["id"] for t in client.trades.get(symbol, [])})
        for task in tasks:
            task.cancel()
        lost = exchange.ledger.not_sent(symbol)
        unseen = list(recording.trades[200:220])
        # A snapshot brings the newest ones to whoever subscribes again.
        assert lost == ([] if DIALECTS[dialect].snapshot_trades else unseen)
        feed = exchange.feeds[0]
        assert list(feed.trades_from_id(unseen[0].trade_id, 20)) == unseen


async def test_a_refused_symbol_is_never_streamed(
    recording: Recording, dialect: str, connect: Connect
) -> None:
    symbol = DIALECTS[dialect].unified_symbol("BTC/USDT")
    options = Options(refused=frozenset({symbol}))
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect=dialect, options=options) as exchange,
        connect(exchange) as client,
    ):
        await client.load_markets()
        with pytest.raises((TimeoutError, ccxt.pro.BaseError)):
            await asyncio.wait_for(watch_trades(client, symbol), 0.5)
        channels = [socket.channels for socket in exchange.conductor.sockets.values()]
        assert not any(channels)
        # Nobody can subscribe to it, so the stream does not wait for anyone.
        assert exchange.conductor.started


async def test_an_unknown_symbol_is_an_error_over_rest(
    recording: Recording, dialect: str, connect: Connect
) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect=dialect) as exchange,
        connect(exchange) as client,
    ):
        await client.load_markets()
        symbol = symbol_of(exchange)
        # ccxt refuses unknown symbols itself: give it a wrong name for a known one.
        client.markets[symbol].update(id="NOSUCH", baseName="NOSUCH")
        with pytest.raises(ccxt.ExchangeError):
            await client.fetch_ohlcv(symbol, "1m", since=1_723_161_240_000, limit=5)


async def test_the_clients_own_pings_are_answered(
    recording: Recording, dialect: str, connect: Connect
) -> None:
    # Ten pings a second are more than an exchange allows, and a busy machine sends them for longer.
    options = Options(limits_scale=None)
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect=dialect, options=options) as exchange,
        connect(exchange) as client,
    ):
        # No verdict on the speed of a busy machine: only that pongs come.
        client.streaming = {**client.streaming, "keepAlive": 100, "maxPingPongMisses": 1_000}
        await client.load_markets()
        with subscribed(client, exchange):
            await until(lambda: exchange.conductor.finished)
            sockets = list(client.clients.values())
            assert sockets
            for socket in sockets:
                await next_pong(socket)
                await next_pong(socket)
            assert exchange.state()["sockets_opened"] == len(sockets)


async def test_the_exchanges_clock_reaches_the_end_of_the_recording(
    recording: Recording, dialect: str, connect: Connect
) -> None:
    async with streamed(recording, dialect, connect) as (exchange, client):
        assert exchange.end_us == recording.end_us
        assert await client.fetch_time() >= recording.end_us // 1_000_000 * 1_000
        assert exchange.state()["event_time_us"] == recording.end_us


@pytest.mark.parametrize("make", [lambda n: str(uuid.UUID(int=n)), lambda n: f"{n}{'0' * 20}"])
async def test_recorded_ids_are_bybits_ids(
    recording: Recording, make: Callable[[int], str], connect: Connect
) -> None:
    ids = tuple(make(number) for number in range(1, 41))
    rows = tuple(row._replace(trade_id=n) for n, row in enumerate(recording.trades[:40], 1))
    native = replace(recording, exchange="bybit", trades=rows, candles=(), native_ids=ids)
    async with streamed(native, "bybit", connect) as (exchange, client):
        assert [trade["id"] for trade in client.trades[symbol_of(exchange)]] == list(ids)


async def test_coinbase_puts_two_products_into_one_frame(connect: Connect) -> None:
    def one(symbol: str, number: int) -> RecordedMarket:
        row = TradeRow(number, 1_723_161_255_342_000, "1.5", "2", "buy")
        return RecordedMarket(Recording("coinbase", "spot", symbol, "", (row,), ()))

    markets = [one("BTC/USDT", 7), one("ETH/USDT", 9)]
    async with ReplayExchange(markets, dialect="coinbase") as exchange:
        async with aiohttp.ClientSession() as session:
            ws = await session.ws_connect(f"{exchange.url}/advanced-trade-ws.coinbase.com")
            products = ["BTC-USDT", "ETH-USDT"]
            await ws.send_json(
                {"type": "subscribe", "product_ids": products, "channel": "market_trades"}
            )
            frames = [orjson.loads((await ws.receive(timeout=PATIENCE_S)).data) for _ in range(2)]
        assert frames[0]["channel"] == "subscriptions"
        named = [trade["product_id"] for trade in frames[1]["events"][0]["trades"]]
        assert sorted(named) == products
        assert [frame["sequence_num"] for frame in frames] == [0, 1]


async def test_coinbase_answers_a_subscribe_to_usdc_in_the_name_of_usd(connect: Connect) -> None:
    row = TradeRow(7, 1_723_161_255_342_000, "1.5", "2", "buy")
    usdc = RecordedMarket(Recording("coinbase", "spot", "BTC/USDC", "", (row,), ()))
    async with ReplayExchange([usdc], dialect="coinbase") as exchange, connect(exchange) as client:
        markets = await client.load_markets()
        assert markets["BTC/USDC"]["info"]["alias"] == "BTC-USD"
        async with aiohttp.ClientSession() as session:
            ws = await session.ws_connect(f"{exchange.url}/advanced-trade-ws.coinbase.com")
            await ws.send_json(
                {"type": "subscribe", "product_ids": ["BTC-USDC"], "channel": "market_trades"}
            )
            frames = [orjson.loads((await ws.receive(timeout=PATIENCE_S)).data) for _ in range(2)]
        assert [trade["product_id"] for trade in frames[1]["events"][0]["trades"]] == ["BTC-USD"]


async def test_bybits_spot_ids_are_numbers_that_rise_and_are_not_consecutive(
    recording: Recording, connect: Connect
) -> None:
    async with streamed(recording, "bybit", connect) as (exchange, client):
        ids = [int(trade["id"]) for trade in client.trades[symbol_of(exchange)]]
        assert len(str(ids[0])) == 22
        steps = {after - before for before, after in pairwise(ids)}
        assert min(steps) > 0
        assert steps != {1}


@pytest.mark.parametrize("stream", ["btcusdt@trade", "btcusdt@kline_1m"])
@pytest.mark.parametrize("in_url", [False, True])
async def test_a_perpetuals_stream_is_mute_on_every_address_but_its_own(
    stream: str, in_url: bool, recording: Recording
) -> None:
    perpetual = RecordedMarket(replace(recording, symbol="BTC/USDT:USDT"))
    own = "/public" if stream.endswith("@trade") else "/market"
    async with (
        ReplayExchange([perpetual], dialect="binanceusdm", wait_for=[], speed=1.0) as exchange,
        aiohttp.ClientSession() as session,
    ):
        channels = {}
        for address in ("/public", "/market", "/private", ""):
            path = f"{address}/ws/{stream if in_url else '0'}"
            ws = await session.ws_connect(f"{exchange.url}/fstream.binance.com{path}")
            if not in_url:
                await ws.send_json({"method": "SUBSCRIBE", "params": [stream], "id": 1})
                assert (await ws.receive_json(timeout=PATIENCE_S))["result"] is None
            (socket,) = [s for s in exchange.conductor.sockets.values() if s.path == path]
            channels[address] = [channel.name for channel in socket.channels]
        assert channels == {"/public": [], "/market": [], "/private": [], "": []} | {own: [stream]}
