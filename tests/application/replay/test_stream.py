"""The Binance stream, frame by frame: order, final candles, clocks, refusals."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.market import TradeRow
from alpha_pulse.replay.markets.recorded import LoopedMarket, RecordedMarket
from alpha_pulse.replay.markets.recording import Recording
from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from tests.application.replay.conftest import BEGIN_US, MINUTE_US, Connect, until
from tests.patience import PATIENCE_S

HOST = "stream.binance.com:9443"
BOTH = ["btcusdt@trade", "btcusdt@kline_1m"]


class Reader:
    """A bare websocket client that keeps what it reads."""

    def __init__(self, session: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.session = session
        self.ws = ws

    async def ask(self, method: str, params: Any, number: int = 1) -> Any:
        await self.ws.send_json({"method": method, "params": params, "id": number})
        return await self.frame()

    async def frame(self) -> Any:
        message = await self.ws.receive(timeout=PATIENCE_S)
        assert message.type == aiohttp.WSMsgType.TEXT, message
        return orjson.loads(message.data)

    async def frames_until(self, event_time_ms: int) -> list[Any]:
        frames: list[Any] = []
        while not frames or frames[-1].get("E", 0) < event_time_ms:
            frames.append(await self.frame())
        return frames


@asynccontextmanager
async def reader(exchange: ReplayExchange, path: str = "/ws/0") -> AsyncIterator[Reader]:
    async with aiohttp.ClientSession() as session:
        ws = await session.ws_connect(f"{exchange.url}/{HOST}{path}")
        yield Reader(session, ws)
        await ws.close()


async def get(exchange: ReplayExchange, path: str, **query: Any) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session:
        url = f"{exchange.url}/api.binance.com/api/v3/{path}"
        async with session.get(url, params=query) as response:
            return response.status, orjson.loads(await response.read())


def end_ms(recording: Recording) -> int:
    return -(-recording.end_us // 1_000)


async def test_one_final_candle_per_minute_after_all_its_trades(recording: Recording) -> None:
    async with ReplayExchange([RecordedMarket(recording)]) as exchange, reader(exchange) as client:
        assert await client.ask("SUBSCRIBE", BOTH) == {"result": None, "id": 1}
        frames = await client.frames_until(end_ms(recording))
    finals = [
        frame["k"]["t"] * 1_000 for frame in frames if frame["e"] == "kline" and frame["k"]["x"]
    ]
    assert finals == [candle.open_time_us for candle in recording.candles]
    closed_ms = 0
    event_ms = 0
    for frame in frames:
        assert frame["E"] >= event_ms
        event_ms = frame["E"]
        if frame["e"] == "trade":
            assert frame["T"] >= closed_ms
        elif frame["k"]["x"]:
            closed_ms = frame["k"]["T"] + 1
    by_open = {candle.open_time_us: candle for candle in recording.candles}
    for frame in frames:
        if frame["e"] == "kline" and frame["k"]["x"]:
            own, k = by_open[frame["k"]["t"] * 1_000], frame["k"]
            assert (k["o"], k["h"], k["l"], k["c"], k["v"]) == (
                own.open,
                own.high,
                own.low,
                own.close,
                own.volume,
            )
            assert k["n"] == own.trade_count


async def test_after_the_end_unfinished_candles_go_on_with_the_end_as_their_time(
    recording: Recording,
) -> None:
    async with ReplayExchange([RecordedMarket(recording)]) as exchange, reader(exchange) as client:
        await client.ask("SUBSCRIBE", BOTH)
        await client.frames_until(end_ms(recording))
        for _ in range(3):
            frame = await client.frame()
            assert (frame["e"], frame["E"]) == ("kline", end_ms(recording))
            assert not frame["k"]["x"]


async def test_nothing_is_streamed_before_the_expected_subscriptions_are_there(
    recording: Recording,
) -> None:
    async with ReplayExchange([RecordedMarket(recording)]) as exchange, reader(exchange) as client:
        await client.ask("SUBSCRIBE", ["btcusdt@trade"])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.ws.receive(), 0.2)
        assert exchange.state()["waiting_for"] == [["candles", "BTC/USDT"]]
        assert await get(exchange, "trades", symbol="BTCUSDT") == (200, [])


async def test_rest_knows_what_the_stream_has_shown_and_no_candle_of_the_future(
    recording: Recording,
) -> None:
    market = SyntheticMarket("BTC/USDT", 5, begin_us=BEGIN_US, trades_per_minute=6_000)
    async with ReplayExchange([market]) as exchange, reader(exchange) as client:
        await client.ask("SUBSCRIBE", BOTH)
        last_id = 0
        while last_id < 200_000_000:
            frame = await client.frame()
            if frame["e"] == "trade":
                last_id = frame["t"]
                break
        status, rows = await get(exchange, "historicalTrades", symbol="BTCUSDT", fromId=last_id)
        assert (status, rows[0]["id"]) == (200, last_id)
        _, candles = await get(exchange, "klines", symbol="BTCUSDT", interval="1m", limit=1)
        _, clock = await get(exchange, "time")
        assert candles[-1][0] <= clock["serverTime"]


async def test_combined_streams_are_wrapped(recording: Recording) -> None:
    path = "/stream?streams=btcusdt@trade/btcusdt@kline_1m"
    async with (
        ReplayExchange([RecordedMarket(recording)]) as exchange,
        reader(exchange, path) as client,
    ):
        frame = await client.frame()
        assert frame["stream"] in BOTH
        assert frame["data"]["s"] == "BTCUSDT"


async def test_a_malformed_request_gets_an_error_and_the_socket_lives_on(
    recording: Recording,
) -> None:
    # Eight messages in a second are more than the exchange takes.
    options = Options(limits_scale=None)
    async with (
        ReplayExchange([RecordedMarket(recording)], options=options) as exchange,
        reader(exchange) as client,
    ):
        for text in ("{", "[]", '"x"', '{"method":"NO","id":7}', '{"method":"SUBSCRIBE","id":7}'):
            await client.ws.send_str(text)
            assert "error" in await client.frame()
        assert (await client.ask("SUBSCRIBE", [1, 2], 8))["id"] == 8
        assert await client.ask("SUBSCRIBE", ["nosuch@trade"], 9) == {"result": None, "id": 9}
        assert (await client.ask("LIST_SUBSCRIPTIONS", None, 10))["result"] == []


async def test_unsubscribed_channels_fall_silent(recording: Recording) -> None:
    async with (
        ReplayExchange([LoopedMarket(recording)], speed=200.0) as exchange,
        reader(exchange) as client,
    ):
        await client.ask("SUBSCRIBE", BOTH)
        await client.frame()
        await client.ws.send_json({"method": "UNSUBSCRIBE", "params": BOTH, "id": 2})
        while (await client.frame()).get("id") != 2:
            pass
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.ws.receive(), 0.3)


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("klines", {"symbol": "NOSUCH", "interval": "1m"}, 400, -1121),
        ("klines", {"interval": "1m"}, 400, -1102),
        ("klines", {"symbol": "BTCUSDT"}, 400, -1102),
        ("klines", {"symbol": "BTCUSDT", "interval": "7m"}, 400, -1120),
        ("klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "x"}, 400, -1100),
        ("trades", {"symbol": "BTCUSDT", "limit": "0"}, 400, -1130),
        ("historicalTrades", {"symbol": "BTCUSDT"}, 401, -2014),
    ],
)
async def test_bad_requests_are_refused_as_the_exchange_does(
    recording: Recording, path: str, query: dict[str, str], status: int, code: int
) -> None:
    options = Options(keyless_history=False)
    async with ReplayExchange([RecordedMarket(recording)], options=options) as exchange:
        found, body = await get(exchange, path, **query)
        assert (found, body["code"]) == (status, code)


async def test_history_is_paged_by_id_by_time_and_from_the_end(recording: Recording) -> None:
    market = RecordedMarket(recording)
    ids = [row.trade_id for row in recording.trades]
    async with ReplayExchange([market], at_end=True) as exchange:
        _, newest = await get(exchange, "trades", symbol="BTCUSDT", limit=5_000)
        assert [row["id"] for row in newest] == ids[-1_000:]
        collected: list[int] = []
        while len(collected) < len(ids):
            first = ids[len(collected)]
            _, page = await get(
                exchange, "historicalTrades", symbol="BTCUSDT", fromId=first, limit=333
            )
            collected += [row["id"] for row in page]
        assert collected == ids
        at_us = recording.trades[100].trade_time_us
        _, page = await get(
            exchange, "aggTrades", symbol="BTCUSDT", startTime=at_us // 1_000, limit=10
        )
        assert page[0]["T"] == at_us // 1_000
        assert page[0]["a"] != page[0]["f"] == page[0]["l"]
        opens = [candle.open_time_us // 1_000 for candle in recording.candles]
        _, rows = await get(
            exchange, "klines", symbol="BTCUSDT", interval="1m", startTime=opens[1], limit=2
        )
        assert [row[0] for row in rows] == opens[1:3]
        _, rows = await get(
            exchange, "klines", symbol="BTCUSDT", interval="1m", endTime=opens[3], limit=2
        )
        assert [row[0] for row in rows] == opens[2:4]


async def test_a_paced_recording_takes_its_time(recording: Recording) -> None:
    market = RecordedMarket(recording)
    async with (
        ReplayExchange([market], speed=60.0, wait_for=("trades",)) as exchange,
        reader(exchange) as client,
    ):
        await client.ask("SUBSCRIBE", BOTH)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await client.frames_until((recording.begin_us + 2 * MINUTE_US) // 1_000)
        # Two minutes at 60 times the pace are two seconds; a slow machine may need more.
        assert loop.time() - began > 1.5
        assert not exchange.conductor.finished


async def test_a_live_market_streams_now_and_serves_its_past(connect: Connect) -> None:
    # Never quiet: the test runs at any time of any day.
    markets = [
        SyntheticMarket(symbol, 2, trades_per_minute=300, quiet_minutes=0)
        for symbol in ("BTC/USDT", "ETH/USDT")
    ]
    async with ReplayExchange(markets, live=True) as exchange, connect(exchange) as client:
        await client.load_markets()
        began_ms = client.milliseconds()
        trades = await client.watch_trades_for_symbols(["BTC/USDT", "ETH/USDT"])
        # A frame may carry what was traded since its second began.
        assert began_ms - 5_000 < trades[-1]["timestamp"] < client.milliseconds() + 5_000
        # A hundred minutes back over REST: no hole, and only the last is unfinished.
        candles = await client.fetch_ohlcv("BTC/USDT", "1m", limit=100)
        opens = [candle[0] for candle in candles]
        assert opens == list(range(opens[0], opens[0] + 100 * 60_000, 60_000))
        assert set(exchange.ledger.report()["symbols"]) == {"BTC/USDT", "ETH/USDT"}
        await until(lambda: exchange.ledger.report()["symbols"]["BTC/USDT"]["sent"] > 0)
        report = exchange.ledger.report()["symbols"]["BTC/USDT"]
        assert report["not_sent_ids"] == []


async def test_a_market_that_nobody_watches_has_published_nothing(recording: Recording) -> None:
    async with ReplayExchange([SyntheticMarket("BTC/USDT", 2)], live=True) as exchange:
        start_us = exchange.conductor.now_us
        await until(lambda: exchange.conductor.now_us > start_us + 300_000)
        assert exchange.ledger.report()["symbols"]["BTC/USDT"]["published"] == 0


async def test_a_reader_that_does_not_read_holds_full_speed_back(recording: Recording) -> None:
    async with (
        ReplayExchange([LoopedMarket(recording)]) as exchange,
        reader(exchange) as client,
    ):
        await client.ask("SUBSCRIBE", BOTH)
        stream = exchange.conductor
        seen = -1
        while stream.published != seen:
            seen = stream.published
            await asyncio.sleep(0.3)
        # Held back: some socket buffers of frames were made, and not millions.
        assert 0 < seen < 200_000
        for _ in range(20_000):
            await client.frame()
        await until(lambda: stream.published > seen)


async def test_a_reader_too_slow_for_a_live_market_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("alpha_pulse.replay.exchange.sender.TOO_SLOW_BYTES", -1)
    market = SyntheticMarket("BTC/USDT", 2, trades_per_minute=600, quiet_minutes=0)
    async with ReplayExchange([market], live=True) as exchange, reader(exchange) as client:
        await client.ws.send_str('{"method":"LIST_SUBSCRIPTIONS","id":1}')
        kinds = [(await client.ws.receive(timeout=PATIENCE_S)).type]
        if kinds[0] == aiohttp.WSMsgType.TEXT:
            kinds.append((await client.ws.receive(timeout=PATIENCE_S)).type)
        assert kinds[-1] in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        await until(lambda: not exchange.conductor.sockets)


async def test_an_idle_live_market_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ReplayExchange([SyntheticMarket("BTC/USDT", 2)], live=True) as exchange:
        advance, count = exchange.conductor._advance, 0

        async def counted() -> None:
            nonlocal count
            count += 1
            await advance()

        monkeypatch.setattr(exchange.conductor, "_advance", counted)
        begun_us = exchange.conductor.now_us
        await until(lambda: exchange.conductor.now_us > begun_us + 500_000)
        # A busy loop turns thousands of times in half a second.
        assert count < 300


async def test_several_symbols_are_streamed_in_the_order_of_time() -> None:
    def rows(first_id: int, *at_s: float) -> tuple[TradeRow, ...]:
        return tuple(
            TradeRow(first_id + place, BEGIN_US + int(seconds * 1e6), "1.5", "2", "buy")
            for place, seconds in enumerate(at_s)
        )

    # The second BTC trade is printed third, with a clock that has stepped back.
    btc = Recording("binance", "spot", "BTC/USDT", "", rows(1, 10, 30, 29.5, 50), ())
    eth = Recording("binance", "spot", "ETH/USDT", "", rows(1, 20, 29.7, 30, 40), ())
    names = ["btcusdt@trade", "ethusdt@trade"]
    markets = [RecordedMarket(btc), RecordedMarket(eth)]
    async with (
        ReplayExchange(markets, wait_for=("trades",)) as exchange,
        reader(exchange) as client,
    ):
        await client.ask("SUBSCRIBE", names)
        frames = [await client.frame() for _ in range(8)]
    found = [(frame["s"][:3], frame["t"]) for frame in frames]
    assert [number for name, number in found if name == "BTC"] == [1, 2, 3, 4]
    assert [number for name, number in found if name == "ETH"] == [1, 2, 3, 4]
    assert found[:2] == [("BTC", 1), ("ETH", 1)]
    assert found[-2:] == [("ETH", 4), ("BTC", 4)]
    for name in ("BTC", "ETH"):
        event_ms = [frame["E"] for frame in frames if frame["s"].startswith(name)]
        assert event_ms == sorted(event_ms)


async def test_two_sockets_share_one_stream(recording: Recording) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)]) as exchange,
        reader(exchange) as trades,
        reader(exchange, "/ws/1") as candles,
    ):
        await trades.ask("SUBSCRIBE", BOTH[:1])
        await candles.ask("SUBSCRIBE", BOTH[1:])
        ids = [(await trades.frame())["t"] for _ in recording.trades]
        assert ids == [row.trade_id for row in recording.trades]
        frames = await candles.frames_until(end_ms(recording))
        assert sum(frame["k"]["x"] for frame in frames) == len(recording.candles)


async def test_the_ledger_and_the_state_are_served(recording: Recording) -> None:
    async with ReplayExchange([RecordedMarket(recording)]) as exchange, reader(exchange) as client:
        await client.ask("SUBSCRIBE", BOTH)
        await client.frames_until(end_ms(recording))
        async with client.session.get(f"{exchange.url}/_ledger?sha256=1") as response:
            ledger = orjson.loads(await response.read())
        async with client.session.get(f"{exchange.url}/_state") as response:
            state = orjson.loads(await response.read())
    found = ledger["symbols"]["BTC/USDT"]
    assert found["published"] == found["sent"] == len(recording.trades)
    assert found["first_trade_id"] == recording.trades[0].trade_id
    assert found["last_trade_id"] == recording.trades[-1].trade_id
    assert found["closed_candles"] == len(recording.candles)
    assert found["sha256"] == exchange.ledger.published_sha256("BTC/USDT")
    assert state["finished"]
    assert state["failed"] is None


async def test_another_exchanges_host_is_refused(recording: Recording) -> None:
    async with (
        ReplayExchange([RecordedMarket(recording)]) as exchange,
        aiohttp.ClientSession() as session,
        session.get(f"{exchange.url}/api.kraken.com/0/public/Time") as response,
    ):
        assert response.status == 404
        assert "api.kraken.com" in await response.text()


async def test_an_unknown_dialect_is_refused(recording: Recording) -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        ReplayExchange([RecordedMarket(recording)], dialect="nosuch")


async def test_a_taken_port_is_named(recording: Recording) -> None:
    async with ReplayExchange([RecordedMarket(recording)]) as first:
        with pytest.raises(OSError, match=str(first.port)):
            async with ReplayExchange([RecordedMarket(recording)], port=first.port):
                pass
