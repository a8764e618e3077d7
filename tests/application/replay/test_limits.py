from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.dialects.rules import Rate, SocketRules
from alpha_pulse.replay.exchange.limits import AddressLimits, RateLimit, WeightLimit
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.recorded import RecordedMarket
from alpha_pulse.replay.markets.recording import Recording
from tests.patience import PATIENCE_S


def test_weight_above_the_limit_is_refused_until_the_minute_ends() -> None:
    limit = WeightLimit(50, [(r"klines$", 2), (r"rades$", 25)])
    assert [limit.ask("api/v3/trades", 10.0).status for _ in range(3)] == [200, 200, 429]
    refused = limit.ask("api/v3/klines", 15.0)
    assert (refused.status, refused.retry_after_s) == (429, 45)
    assert limit.ask("api/v3/trades", 60.0).status == 200


def test_who_goes_on_after_429_is_banned_for_a_while() -> None:
    limit = WeightLimit(1, [])
    statuses = [limit.ask("x", 30.0).status for _ in range(6)]
    assert statuses == [200, 429, 429, 429, 418, 418]
    assert limit.ask("x", 61.0).status == 418
    assert limit.ask("x", 151.0).status == 200


@given(times_s=st.lists(st.floats(0, 10), min_size=1, max_size=60), most=st.integers(1, 8))
def test_no_more_messages_a_second_than_allowed(times_s: list[float], most: int) -> None:
    limit = RateLimit(Rate(most, 1.0))
    allowed = [now_s for now_s in sorted(times_s) if limit.allows(now_s)]
    for first, after in zip(allowed, allowed[most:], strict=False):
        assert after - first >= 1.0


async def test_a_server_with_limits_answers_429_with_retry_after(recording: Recording) -> None:
    options = Options(weight_per_minute_max=60)
    async with (
        ReplayExchange([RecordedMarket(recording)], options=options) as exchange,
        aiohttp.ClientSession() as session,
    ):
        url = f"{exchange.url}/api.binance.com/api/v3/trades?symbol=BTCUSDT"
        for expected in (200, 200, 429):
            async with session.get(url) as response:
                assert response.status == expected
                if expected == 429:
                    assert int(response.headers["Retry-After"]) >= 1
        assert exchange.ledger.report()["rest_refused"] == {"429": 1}
        ws = await session.ws_connect(f"{exchange.url}/stream.binance.com:9443/ws/0")
        for _ in range(6):
            await ws.send_str("{}")
        kinds = [(await ws.receive(timeout=PATIENCE_S)).type for _ in range(6)]
        assert kinds[:5] == [aiohttp.WSMsgType.TEXT] * 5
        assert kinds[5] == aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 1008


@pytest.mark.parametrize("path", ["api/v3/exchangeInfo", "api/v3/time"])
async def test_without_limits_nothing_is_refused(recording: Recording, path: str) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)]) as exchange,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(20):
            async with session.get(f"{exchange.url}/api.binance.com/{path}") as response:
                assert response.status == 200


# Long enough that no message of a test falls out of a window, however slow the machine is.
LONG = Options(limits_scale=600.0)
WS = {
    "binance": "stream.binance.com:9443/ws/0",
    "binanceusdm": "fstream.binance.com/ws/0",
    "okx": "ws.okx.com:8443/ws/v5/business",
    "bybit": "stream.bybit.com/v5/public/spot",
    "kraken": "ws.kraken.com/v2",
    "coinbase": "advanced-trade-ws.coinbase.com",
}
SUBSCRIBE = {
    "binance": {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1},
    "binanceusdm": {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1},
    "kraken": {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USDT"]}},
    "coinbase": {"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USDT"]},
}


async def replies(socket: aiohttp.ClientWebSocketResponse, until: str) -> list[str]:
    """Return what a client hears until a text, or until it is closed."""
    heard: list[str] = []
    while True:
        message = await socket.receive(timeout=PATIENCE_S)
        if message.type is not aiohttp.WSMsgType.TEXT:
            return [*heard, f"closed with {socket.close_code}"]
        heard.append(message.data)
        if until in message.data:
            return heard


@pytest.mark.parametrize("name", ["binance", "binanceusdm", "kraken", "coinbase"])
@pytest.mark.parametrize("kind", ["texts", "pings"])
async def test_a_client_that_sends_too_many_messages_is_refused(
    name: str, kind: str, recording: Recording
) -> None:
    messages = DIALECTS[name].rules.messages
    assert messages is not None
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect=name, options=LONG) as exchange,
        aiohttp.ClientSession() as session,
    ):
        ws = await session.ws_connect(f"{exchange.url}/{WS[name]}")
        for _ in range(messages.most):
            await (ws.send_str("{}") if kind == "texts" else ws.ping())
        await ws.send_json(SUBSCRIBE[name])
        refused = {"kraken": "Exceeded msg rate", "coinbase": "rate limit exceeded"}
        said = refused.get(name, "closed with 1008")
        assert said in (await replies(ws, said))[-1]
        assert exchange.ledger.report()["sockets_refused"] == {"messages": 1}


async def test_coinbase_counts_the_messages_of_an_address(recording: Recording) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect="coinbase", options=LONG) as exchange,
        aiohttp.ClientSession() as session,
    ):
        first, second = [await session.ws_connect(f"{exchange.url}/{WS['coinbase']}") for _ in "ab"]
        for _ in range(8):
            await first.send_str("{}")
        for _ in range(8):
            await first.receive(timeout=PATIENCE_S)
        await second.send_json(SUBSCRIBE["coinbase"])
        assert "rate limit" in (await replies(second, "rate limit"))[-1]


async def test_okx_refuses_the_481st_subscribe_of_a_connection_and_no_ping(
    recording: Recording,
) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect="okx", options=LONG) as exchange,
        aiohttp.ClientSession() as session,
    ):
        ws = await session.ws_connect(f"{exchange.url}/{WS['okx']}")
        for _ in range(480):
            await ws.send_str('{"op":"unsubscribe","args":[]}')
        await ws.send_str("ping")
        assert await replies(ws, "pong") == ["pong"]
        await ws.send_str('{"op":"subscribe","args":[]}')
        assert '"60014"' in (await replies(ws, "60014"))[-1]
        other = await session.ws_connect(f"{exchange.url}/{WS['okx']}")
        await other.send_str('{"op":"subscribe","args":[{"channel":"x"}]}')
        assert "60018" in (await replies(other, "code"))[-1]


@pytest.mark.parametrize("name", sorted(DIALECTS))
async def test_a_handshake_too_many_is_refused_until_the_window_has_room(name: str) -> None:
    rules = DIALECTS[name].rules
    assert rules.dials is not None
    limits = AddressLimits(rules, 1.0)
    assert not any(limits.refuses_dial_s(0.0) for _ in range(rules.dials.most))
    refused_s = limits.refuses_dial_s(1e-3)
    assert 0 < refused_s <= max(rules.dials.window_s, rules.dial_ban_s)
    assert limits.refuses_dial_s(refused_s + 0.01) == 0


async def test_a_refused_handshake_says_for_how_long(recording: Recording) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect="okx", options=LONG) as exchange,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(3):
            await session.ws_connect(f"{exchange.url}/{WS['okx']}")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{exchange.url}/{WS['okx']}")
        assert refused.value.status == 429
        assert refused.value.headers is not None
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 600


async def test_bybit_takes_ten_arguments_of_spot_in_one_request(recording: Recording) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect="bybit", options=LONG) as exchange,
        aiohttp.ClientSession() as session,
    ):
        ws = await session.ws_connect(f"{exchange.url}/{WS['bybit']}")
        intervals = ("1", "3", "5", "15", "30", "60", "120", "240", "360", "720", "D")
        topics = [f"kline.{interval}.BTCUSDT" for interval in intervals]
        await ws.send_json({"op": "subscribe", "args": topics})
        assert "args size >10" in (await replies(ws, "success"))[-1]
        await ws.send_json({"op": "subscribe", "args": topics[:10]})
        assert '"success":true' in (await replies(ws, "success"))[-1]


@pytest.mark.parametrize(
    ("name", "field", "breach", "said"),
    [
        ("binance", "streams", "streams", "closed with 1008"),
        ("bybit", "topic_chars", "topics", "args too long"),
    ],
)
async def test_a_connection_that_is_full_takes_no_more(
    name: str, field: str, breach: str, said: str, recording: Recording, monkeypatch: Any
) -> None:
    # Not 1,024 streams of one recorded market: the rule is the same with fewer.
    rules = {
        "streams": SocketRules(streams=1, closes=True),
        "topic_chars": SocketRules(topic_chars=25),
    }
    monkeypatch.setattr(DIALECTS[name], "rules", rules[field])
    asked: dict[str, Any] = {
        "binance": (
            {"method": "SUBSCRIBE", "id": 1},
            "params",
            "btcusdt@trade",
            "btcusdt@kline_1m",
        ),
        "bybit": ({"op": "subscribe"}, "args", "publicTrade.BTCUSDT", "kline.1.BTCUSDT"),
    }
    head, argument, first, second = asked[name]
    async with (
        ReplayExchange([RecordedMarket(recording)], dialect=name, wait_for=["x"]) as exchange,
        aiohttp.ClientSession() as session,
    ):
        ws = await session.ws_connect(f"{exchange.url}/{WS[name]}")
        await ws.send_json({**head, argument: [first]})
        await ws.receive(timeout=PATIENCE_S)
        await ws.send_json({**head, argument: [second]})
        assert said in (await replies(ws, said))[-1]
        assert exchange.ledger.report()["sockets_refused"] == {breach: 1}


async def test_without_limits_a_client_may_send_what_it_likes(recording: Recording) -> None:
    options = Options(limits_scale=None)
    async with (
        ReplayExchange([RecordedMarket(recording)], options=options) as exchange,
        aiohttp.ClientSession() as session,
    ):
        ws = await session.ws_connect(f"{exchange.url}/{WS['binance']}")
        for _ in range(50):
            await ws.send_str("{}")
        for _ in range(50):
            assert (await ws.receive(timeout=PATIENCE_S)).type is aiohttp.WSMsgType.TEXT
