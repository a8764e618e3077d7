"""What exchanges answer instead of trades: through the real ccxt, and no other symbol notices."""

import asyncio
import json
from typing import Any

import ccxt.pro
import pytest

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.producers import live
from alpha_pulse.producers.connection import subscriptions
from alpha_pulse.producers.connection.limiter import Limiter
from alpha_pulse.producers.exchanges.registry import ExchangeType, exchange_of
from alpha_pulse.producers.exchanges.standing import Standing
from alpha_pulse.producers.feed.state import State
from alpha_pulse.replay.dialects.base import Options, Reply
from alpha_pulse.replay.exchange.faults import FaultPlan, StreamFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S

MINUTE_US = 60_000_000
EXCHANGES = tuple(exchange.value for exchange in ExchangeType)
# Which have an answer for a symbol that they don't have; the others say nothing at all.
REFUSING = [
    ("kraken", "/USDT"),
    ("okx", "/USDT"),
    ("bybit", "/USDT"),
    ("bybit", "/USDT:USDT"),
    ("coinbase", "/USDT"),
]


def market(
    symbol: str = "BTC/USDT", seed: int = 7, minutes: int = 5, per_minute: int = 120
) -> SyntheticMarket:
    end_us = BEGIN_US + minutes * MINUTE_US
    return SyntheticMarket(symbol, seed, end_us=end_us, trades_per_minute=per_minute)


def quiet(symbol: str) -> SyntheticMarket:
    """A market that trades nothing in its first half minute."""
    markets = (market(symbol, seed, per_minute=1) for seed in range(1, 10_000))
    return next(one for one in markets if not one.position_at(BEGIN_US + MINUTE_US // 2))


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


def sent(exchange: ReplayExchange, symbol: str) -> list[tuple[str, str]]:
    return [(row.price, row.amount) for row in exchange.ledger.published(symbol)]


def found(following: Any, symbol: str) -> list[tuple[str, str]]:
    return [(trade.price, trade.amount) for trade in following.published.trades(symbol)]


def answers(exchange: ReplayExchange, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Keep what the exchange answers to messages."""
    kept: list[bytes] = []
    answer = exchange.dialect.answer

    def keep(*arguments: Any) -> Reply:
        reply = answer(*arguments)
        kept.extend(reply.frames)
        return reply

    monkeypatch.setattr(exchange.dialect, "answer", keep)
    return kept


# What each exchange documents for REST. Sources: Binance "Limits"; Kraken "Errors"; OKX "Error
# code", REST; Bybit "Error codes" and "Rate limit"; Coinbase "REST rate limits".
TOO_MANY = [
    ("binance", 429, '{"code":-1003,"msg":"Too many requests."}'),
    ("binance", 418, '{"code":-1003,"msg":"Way too many requests; IP banned until 1."}'),
    ("binanceusdm", 429, '{"code":-1003,"msg":"Too many requests."}'),
    ("kraken", 200, '{"error":["EAPI:Rate limit exceeded"]}'),
    ("kraken", 200, '{"error":["EGeneral:Too many requests"]}'),
    ("kraken", 200, '{"error":["EGeneral:Temporary lockout"]}'),
    ("kraken", 429, "error code: 1015"),
    ("okx", 429, '{"code":"50011","msg":"Rate limit reached","data":[]}'),
    ("okx", 200, '{"code":"50011","msg":"Requests too frequent","data":[]}'),
    ("bybit", 200, '{"retCode":10006,"retMsg":"Too many visits!","result":{}}'),
    ("bybit", 200, '{"retCode":10018,"retMsg":"Exceeded the IP Rate Limit.","result":{}}'),
    ("bybit", 200, '{"retCode":10429,"retMsg":"System level frequency protection","result":{}}'),
    ("bybit", 403, '{"retCode":403,"retMsg":"access too frequent"}'),
    ("coinbase", 429, '{"errors":[{"id":"rate_limit_exceeded","message":"Too many requests"}]}'),
    ("coinbase", 429, "Too many requests"),
]
AWAY = [
    ("binance", 503, '{"code":-1008,"msg":"Server is currently overloaded."}'),
    ("binance", 503, "<html></html>"),
    ("kraken", 200, '{"error":["EService:Unavailable"]}'),
    ("kraken", 200, '{"error":["EService:Busy"]}'),
    ("kraken", 200, '{"error":["EService:Market in cancel_only mode"]}'),
    ("okx", 503, '{"code":"50001","msg":"Service temporarily unavailable.","data":[]}'),
    ("okx", 200, '{"code":"50013","msg":"Systems are busy.","data":[]}'),
    ("okx", 200, '{"code":"50026","msg":"System error.","data":[]}'),
    ("bybit", 200, '{"retCode":10016,"retMsg":"Server error.","result":{}}'),
    ("coinbase", 503, '{"error":"unavailable","message":"unavailable"}'),
]


async def refused_over_rest(name: str, status: int, body: str) -> BaseException:
    """Return what ccxt makes of an answer."""
    client = getattr(ccxt.pro, name)()
    request: tuple[Any, ...] = ("", "https://exchange", "GET", {}, body)
    try:
        parsed = json.loads(body) if body.startswith("{") else None
        if client.handle_errors(status, *request, parsed, {}, None) is None:
            client.handle_http_status_code(status, "", "https://exchange", "GET", body)
    except ccxt.pro.BaseError as error:
        refused: BaseException = error
        return refused
    finally:
        await client.close()
    pytest.fail("expected an error of ccxt, found none")


@pytest.mark.parametrize(("name", "status", "body"), TOO_MANY)
async def test_every_form_of_too_many_requests_is_waited_out(
    name: str, status: int, body: str
) -> None:
    error = await refused_over_rest(name, status, body)
    limiter = Limiter(name)
    assert limiter.obey(error, None) > 0
    assert limiter.limited == 1
    assert not isinstance(error, subscriptions._REFUSED)


@pytest.mark.parametrize(("name", "status", "body"), AWAY)
async def test_an_exchange_in_maintenance_refuses_no_symbol(
    name: str, status: int, body: str
) -> None:
    error = await refused_over_rest(name, status, body)
    assert Limiter(name).obey(error, None) == 0
    assert not isinstance(error, subscriptions._REFUSED)


@pytest.mark.parametrize(("name", "quote"), REFUSING)
async def test_a_refused_symbol_costs_the_others_of_its_socket_nothing(
    name: str, quote: str, follow: Any
) -> None:
    good, bad = f"BTC{quote}", f"ETH{quote}"
    options = Options(refused=frozenset({bad}))
    async with ReplayExchange(
        [market(good), market(bad, seed=8)], dialect=name, options=options
    ) as exchange:
        following = await follow(config(exchange, symbols=(bad, good), until_us=0))
        await following.until(lambda: bad in following.producer.quarantined)
        await following.until(lambda: found(following, good) == sent(exchange, good) != [])
        assert set(following.producer.quarantined) == {bad}
        assert following.producer.streams.reconnects == 0
        assert {beat.state for beat in following.published.heartbeats(good)} == {"live"}
        assert following.published.gaps() == []
        assert following.published.dead_letters() == []
        sockets = exchange.state()["sockets"]
        assert exchange.state()["sockets_opened"] == len(sockets)
        await following.end()


@pytest.mark.parametrize(
    ("name", "answer"),
    [("kraken", b"Already subscribed"), ("bybit", b"already subscribed"), ("okx", b"subscribe")],
)
async def test_a_symbol_that_is_subscribed_already_stays_so(
    name: str, answer: bytes, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ReplayExchange(
        [market(minutes=60)], dialect=name, speed=20.0, wait_for=[]
    ) as exchange:
        kept = answers(exchange, monkeypatch)
        following = await follow(config(exchange, until_us=0))
        published = following.published
        await following.until(lambda: published.trades())
        kept.clear()
        following.producer._subscriptions.ask_again("BTC/USDT", 0.0)
        await following.until(lambda: sum(answer in frame for frame in kept) >= 2)
        count = len(published.trades())
        await following.until(lambda: len(published.trades()) > count + 20)
        assert following.producer.quarantined == {}
        assert following.producer.streams.reconnects == 0
        assert {beat.state for beat in published.heartbeats()} == {"live"}
        assert exchange.state()["sockets_opened"] == len(exchange.state()["sockets"])
        await following.end()


@pytest.mark.parametrize("name", ["kraken", "okx", "coinbase"])
async def test_a_throttled_subscribe_is_sent_again_and_nothing_is_quarantined(
    name: str, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RETRY_AFTER_S", 0.2)
    markets = [market("BTC/USDT"), market("ETH/USDT", seed=8)]
    options = Options(throttled_subscribes=3)
    async with ReplayExchange(markets, dialect=name, options=options) as exchange:
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        for symbol in ("BTC/USDT", "ETH/USDT"):
            assert found(following, symbol) == sent(exchange, symbol) != []
        assert following.producer.quarantined == {}
        assert following.producer.limiter.limited >= 1
        assert exchange.dialect._throttled == 3


@pytest.mark.parametrize("name", EXCHANGES)
async def test_each_word_of_the_exchanges_list_is_the_right_state(name: str, follow: Any) -> None:
    standings = exchange_of(name).standings
    assert {Standing.TRADING, Standing.HALTED} <= set(standings.values())
    settle = ":USDT" if name in ("bybit", "binanceusdm") else ""
    symbols = {word: f"S{place}/USDT{settle}" for place, word in enumerate(standings)}
    markets = [quiet(symbol) for symbol in symbols.values()]
    busy = f"BTC/USDT{settle}"
    async with ReplayExchange(
        [market(busy, minutes=60), *markets], dialect=name, speed=1.0, wait_for=[]
    ) as exchange:
        for word, feed in zip(symbols, exchange.feeds[1:], strict=True):
            feed.status = word
        following = await follow(config(exchange, until_us=0))
        await following.until(lambda: following.published.trades(busy))
        feeds, quarantined = following.producer.streams.feeds, following.producer.quarantined
        for word, symbol in symbols.items():
            standing = standings[word]
            assert (symbol in quarantined) is (standing is Standing.ENDED), word
            halted = symbol in feeds and feeds[symbol].state is State.HALTED
            assert halted is (standing in (Standing.HALTED, Standing.PRE_LAUNCH)), word
        await following.end()


@pytest.mark.parametrize("name", EXCHANGES)
async def test_the_first_trades_after_a_halt_or_a_launch_are_not_missed(
    name: str, follow: Any
) -> None:
    waiting = [w for w, s in exchange_of(name).standings.items() if s in
               (Standing.HALTED, Standing.PRE_LAUNCH)]  # fmt: skip
    symbols = [f"S{place}/USDT:USDT" for place in range(len(waiting))]
    if name != "bybit":
        symbols = [symbol.partition(":")[0] for symbol in symbols]
    markets = [market(symbol, place) for place, symbol in enumerate(symbols, 1)]
    async with ReplayExchange(markets, dialect=name) as exchange:
        for word, feed in zip(waiting, exchange.feeds, strict=True):
            feed.status = word
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        for feed in exchange.feeds:
            assert found(following, feed.symbol) == sent(exchange, feed.symbol) != []
        assert following.producer.quarantined == {}
        assert following.published.gaps() == []


async def test_a_halted_symbol_that_trades_is_not_called_halted_by_the_list(follow: Any) -> None:
    async with ReplayExchange([market(minutes=60)], speed=20.0, wait_for=[]) as exchange:
        exchange.feeds[0].status = "HALT"
        following = await follow(config(exchange, until_us=0, quarantine_s=0.2))
        feed = following.producer.streams.feeds
        await following.until(lambda: "BTC/USDT" in feed and feed["BTC/USDT"].state is State.LIVE)
        reviewed = following.producer._trades_reviewed
        reviewed.clear()
        await following.until(lambda: reviewed.get("BTC/USDT", 0) > 20)
        assert {beat.state for beat in following.published.heartbeats()} == {"live"}
        await following.end()


@pytest.mark.parametrize("word", ["maintenance", "cancel_only", "post_only"])
async def test_krakens_status_halts_every_symbol_until_it_trades(word: str, follow: Any) -> None:
    async with ReplayExchange(
        [market(minutes=60), quiet("ETH/USDT")],
        dialect="kraken",
        speed=1.0,
        wait_for=[],
        options=Options(system_status=word),
    ) as exchange:
        following = await follow(config(exchange, until_us=0))
        await following.until(lambda: following.published.trades("BTC/USDT"))
        feeds = following.producer.streams.feeds
        states = {symbol: feed.state for symbol, feed in feeds.items()}
        assert states == {"BTC/USDT": State.LIVE, "ETH/USDT": State.HALTED}
        assert following.producer.quarantined == {}
        await following.end()


async def test_krakens_status_halts_and_frees_symbols_that_do_not_trade(follow: Any) -> None:
    async with ReplayExchange(
        [market(minutes=60), quiet("ETH/USDT"), quiet("LTC/USDT")],
        dialect="kraken",
        speed=1.0,
        wait_for=[],
    ) as exchange:
        exchange.feeds[2].status = "cancel_only"
        following = await follow(config(exchange, until_us=0, clock="exchange"))
        feeds = following.producer.streams.feeds

        def tell(word: str) -> None:
            status = {"version": "2.0.10", "system": word, "api_version": "v2"}
            frame = {"channel": "status", "type": "update", "data": [status]}
            for socket in exchange.conductor.sockets.values():
                socket.put([json.dumps(frame).encode()])
                socket.flush()

        await following.until(lambda: feeds and feeds["ETH/USDT"].state is State.LIVE)
        tell("maintenance")
        await following.until(lambda: feeds["ETH/USDT"].state is State.HALTED)
        tell("online")
        await following.until(lambda: feeds["ETH/USDT"].state is State.LIVE)
        assert following.published.trades("ETH/USDT") == []
        assert feeds["LTC/USDT"].state is State.HALTED
        assert following.producer.streams.reconnects == 0
        await following.end()


@pytest.mark.parametrize("name", ["binance", "binanceusdm", "okx", "bybit"])
async def test_a_maintenance_of_all_halts_and_frees_symbols_that_do_not_trade(
    name: str, follow: Any
) -> None:
    async with ReplayExchange(
        [quiet("ETH/USDT")], dialect=name, speed=1.0, wait_for=[]
    ) as exchange:
        symbol = exchange.feeds[0].symbol
        following = await follow(config(exchange, until_us=0, clock="exchange", quarantine_s=0.2))
        feeds = following.producer.streams.feeds
        await following.until(lambda: feeds and feeds[symbol].state is State.LIVE)
        exchange.dialect.options = Options(system_status="system upgrade")
        await following.until(lambda: feeds[symbol].state is State.HALTED)
        exchange.dialect.options = Options()
        await following.until(lambda: feeds[symbol].state is State.LIVE)
        assert following.published.trades() == []
        assert following.producer.quarantined == {}
        await following.end()


async def test_krakens_own_names_are_neither_ccxts_nor_another_coins(
    follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols = {
        "LUNA/USD": "LUNA2/USD",
        "LUNC/USD": "LUNA/USD",
        "REP/USD": "REPV2/USD",
        "REPV1/USD": "REP/USD",
        "USTC/USD": "UST/USD",
        "BTC/USD": "BTC/USD",
        "DOGE/BTC": "DOGE/BTC",
    }
    markets = [market(symbol, seed) for seed, symbol in enumerate(symbols, 1)]
    # Holes in each, so that REST is asked as well.
    drops = [StreamFault("drop", at_trade=100 * n, trades=30) for n in range(2, 30)]
    async with ReplayExchange(
        markets, dialect="kraken", faults=FaultPlan(stream=drops)
    ) as exchange:
        kept = answers(exchange, monkeypatch)
        following = await follow(config(exchange))
        await asyncio.wait_for(following.task, PATIENCE_S)
        for symbol, name in symbols.items():
            assert found(following, symbol) == sent(exchange, symbol) != []
            assert any(f'"symbol":"{name}"'.encode() in frame for frame in kept)
        assert following.producer.quarantined == {}
        assert following.published.dead_letters() == []
        assert following.published.gaps() != []
        assert {gap.status for gap in following.published.gaps()} == {"filled"}


@pytest.mark.parametrize("symbols", [("BTC/USDC",), ("BTC/USD", "BTC/USDC")])
async def test_coinbases_one_book_of_two_products_is_followed_under_the_name_of_its_frames(
    symbols: tuple[str, ...], follow: Any
) -> None:
    markets = [
        market("BTC/USD", minutes=60),
        market("BTC/USDC", seed=8, minutes=60),
        market("ETH/USD", seed=9, minutes=60),
    ]
    async with ReplayExchange(markets, dialect="coinbase", speed=20.0, wait_for=[]) as exchange:
        following = await follow(config(exchange, symbols=(*symbols, "ETH/USD"), until_us=0))
        for symbol in {*symbols, "ETH/USD"} - {"BTC/USDC"}:
            await following.until(lambda s=symbol: len(found(following, s)) > 50)
            rows = found(following, symbol)
            at = sent(exchange, symbol).index(rows[0])
            assert rows == sent(exchange, symbol)[at : at + len(rows)]
        quarantined = following.producer.quarantined
        assert set(quarantined) == {"BTC/USDC"}
        assert "follow BTC/USD" in quarantined["BTC/USDC"]
        assert following.published.trades("BTC/USDC") == []
        assert following.published.dead_letters() == []
        await following.end()
