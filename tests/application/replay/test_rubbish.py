"""Whatever a client sends, every dialect answers and none falls over."""

from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Dialect, Options, Reply, RestRequest
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.recorded import RecordedMarket
from tests.application.replay.conftest import make_recording

RECORDING = make_recording(minutes=3, trades_per_minute=20)


class SocketInHand:
    """What a dialect needs of a socket."""

    number = 1
    path = "/ws/v5/business"
    channels: ClassVar[dict[Any, None]] = {}

    def next_sequence(self) -> int:
        return 0


def dialect_of(name: str) -> Dialect:
    feed = Feed(RecordedMarket(RECORDING), DIALECTS[name].unified_symbol("BTC/USDT"))
    feed.enter(RECORDING.end_us)
    return DIALECTS[name]([feed], Options())


WORDS = st.sampled_from(
    [
        *("subscribe", "unsubscribe", "SUBSCRIBE", "UNSUBSCRIBE", "ping", "login"),
        *("trade", "ohlc", "trades-all", "candle1m", "market_trades", "heartbeats"),
        *("BTC-USDT", "BTC/USDT", "BTCUSDT", "btcusdt@trade", "publicTrade.BTCUSDT"),
        *("kline.1.BTCUSDT", "btcusdt@kline_1m", "kline.BTCUSDT", "@", "."),
    ]
)
KEYS = st.sampled_from(["channel", "symbol", "interval", "instId", "snapshot", "x"])
LEAVES = st.none() | st.booleans() | st.integers(-5, 99) | st.floats(allow_nan=False) | WORDS
VALUES = st.recursive(
    LEAVES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SPOILED = {
    "binance": {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1},
    "binanceusdm": {"method": "UNSUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 1},
    "kraken": {
        "method": "subscribe",
        "params": {"channel": "ohlc", "symbol": ["BTC/USDT"], "interval": 1},
        "req_id": 1,
    },
    "okx": {"op": "subscribe", "args": [{"channel": "candle1m", "instId": "BTC-USDT"}]},
    "bybit": {"op": "subscribe", "args": ["publicTrade.BTCUSDT"], "req_id": 1},
    "coinbase": {"type": "subscribe", "product_ids": ["BTC-USDT"], "channel": "market_trades"},
}
# Of an exchange that is not named there: as most write it.
SUBSCRIBE = {"method": "subscribe", "params": {"channels": ["trades.BTC-USDT"]}, "id": 1}


def spoil(message: Any, steps: list[int], value: Any) -> Any:
    """Return a good message with one of its parts replaced."""
    if not steps or not isinstance(message, dict | list) or not message:
        return value
    if isinstance(message, list):
        return [spoil(message[0], steps[1:], value), *message[1:]]
    key = sorted(message)[steps[0] % len(message)]
    return message | {key: spoil(message[key], steps[1:], value)}


NUMBERS = st.integers(-(10**20), 10**20).map(str) | st.integers(0, 2_000).map(str)
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        **{key: NUMBERS for key in ("limit", "startTime", "endTime", "fromId", "since", "count")},
        **{key: NUMBERS for key in ("after", "before", "start", "end")},
        **{key: st.sampled_from(["", "x", "²", "1"]) for key in ("symbol", "type", "bar", "limit")},
        "instType": st.just("SPOT"),
    },
)
GOOD = {
    "symbol": "BTCUSDT",
    "interval": "1m",
    "instId": "BTC-USDT",
    "pair": "XBTUSDT",
    "granularity": "ONE_MINUTE",
    "category": "spot",
}


@pytest.mark.parametrize("name", sorted(DIALECTS))
@given(steps=st.lists(st.integers(0, 3), max_size=3), value=VALUES)
@settings(max_examples=80, deadline=None)
def test_any_message_is_answered(name: str, steps: list[int], value: Any) -> None:
    text = orjson.dumps(spoil(SPOILED.get(name, SUBSCRIBE), steps, value)).decode()
    reply = dialect_of(name).on_text(SocketInHand(), text)  # type: ignore[arg-type]
    assert isinstance(reply, Reply)
    for frame in reply.frames:
        assert frame == b"pong" or orjson.loads(frame)


@pytest.mark.parametrize("name", sorted(DIALECTS))
@given(text=st.text())
@settings(max_examples=30, deadline=None)
def test_any_text_is_answered(name: str, text: str) -> None:
    assert isinstance(dialect_of(name).on_text(SocketInHand(), text), Reply)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(DIALECTS))
@given(query=QUERIES, place=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
async def test_any_query_is_answered(name: str, query: dict[str, str], place: int) -> None:
    dialect = dialect_of(name)
    pattern = dialect.routes[place % len(dialect.routes)][0]
    market = dialect.market_id(dialect.feeds[0].instrument)
    path = "api.host" + pattern.replace("(?P<product>[^/]+)", market)
    path = path.replace("(history-)?", "").replace("(/crypto)?", "").rstrip("$")
    path = path.replace(r"^[^/]*api\d?\.binance\.\w+", "")
    if name == "binance" and "exchangeInfo" in path:
        path = "api.binance.com/api/v3/exchangeInfo"
    good = GOOD | ({"interval": "1"} if name in ("kraken", "bybit") else {})
    reply = await dialect.rest(RestRequest(path, good | query, {}))
    assert reply is not None
    assert orjson.dumps(reply.body)
