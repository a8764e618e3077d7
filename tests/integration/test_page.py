"""The page on a real Kafka and ClickHouse, asked as a reader, and seen in a real browser."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.events import Candle, Gap
from alpha_pulse.contracts.market import MINUTE_US, get_timeframe, message_key
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.topics import CANDLES, GAPS, OPEN_CANDLES, Topic
from alpha_pulse.page.chart import Chart
from alpha_pulse.page.history import History
from alpha_pulse.page.server import shown_page

MARKET = {"exchange": "binance", "symbol": "BTC/USDT"}


@pytest.fixture
async def page(filled: Config) -> AsyncIterator[aiohttp.ClientSession]:
    async with shown_page(filled) as address, aiohttp.ClientSession(address) as session:
        yield session


async def get(page: aiohttp.ClientSession, path: str, **parameters: Any) -> Any:
    async with page.get(f"api/{path}", params={**MARKET, **parameters}) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def newest_minute_us(page: aiohttp.ClientSession) -> int:
    candles = (await get(page, "candles", timeframe="1m", count=1))["candles"]
    return int(candles[0]["open_time_us"])


async def test_candles_are_the_stored_ones_oldest_first(page: aiohttp.ClientSession) -> None:
    candles = (await get(page, "candles", timeframe="1m", count=20))["candles"]
    times = [candle["open_time_us"] for candle in candles]
    assert len(times) == 20
    assert all(later - earlier == MINUTE_US for earlier, later in itertools.pairwise(times))
    assert [candle["coverage"] for candle in candles[5:10]] == [
        "contiguous",
        "gap",
        "partial",
        "unverified",
        "exchange",
    ]
    assert candles[-1] == {
        "timeframe": "1m",
        "open_time_us": times[-1],
        "open": "10",
        "high": "30",
        "low": "5",
        "close": "20",
        "volume": "2.5",
        "trade_count": 4,
        "coverage": "contiguous",
        "revision": "99",
        "closed": True,
        "until_us": times[-1] + MINUTE_US,
    }
    older = await get(page, "candles", timeframe="1m", count=5, before_us=times[0])
    assert [candle["open_time_us"] for candle in older["candles"]] == [
        times[0] - number * MINUTE_US for number in (5, 4, 3, 2, 1)
    ]


@pytest.mark.parametrize("name", ["3m", "5m", "1h", "1w"])
async def test_any_timeframe_ends_with_the_window_that_is_open(
    page: aiohttp.ClientSession, name: str
) -> None:
    timeframe = get_timeframe(name)
    candles = (await get(page, "candles", timeframe=name, count=5))["candles"]
    minute_us = await newest_minute_us(page)
    last = candles[-1]
    assert last["open_time_us"] == timeframe.open_time_us(minute_us)
    assert last["until_us"] == minute_us + MINUTE_US
    assert last["closed"] == (last["until_us"] == timeframe.close_time_us(last["open_time_us"]))
    minutes = min((minute_us - last["open_time_us"]) // MINUTE_US + 1, 60)
    assert float(last["volume"]) == 2.5 * minutes
    assert all(candle["closed"] for candle in candles[:-1])
    assert all(timeframe.is_open_time(candle["open_time_us"]) for candle in candles)


async def test_markets_and_gaps_tell_what_is_known(page: aiohttp.ClientSession) -> None:
    (market,) = (await get(page, "markets"))["markets"]
    assert (market["exchange"], market["symbol"]) == ("binance", "BTC/USDT")
    assert (market["state"], market["close"], market["coverage"]) == ("live", "20", "contiguous")
    assert (market["open_gaps"], market["lost_gaps"]) == (1, 1)
    gaps = (await get(page, "gaps"))["gaps"]
    assert {(gap["first_trade_id"], gap["status"]) for gap in gaps} == {
        ("7", "open"),
        ("5", "unfillable"),
    }


async def test_an_unknown_market_is_an_empty_chart(page: aiohttp.ClientSession) -> None:
    for name in ("1m", "3m", "1d"):
        found = await get(page, "candles", timeframe=name, symbol="NO/SUCH")
        assert found == {"candles": []}
    assert await get(page, "gaps", symbol="NO/SUCH") == {"gaps": []}


async def test_before_the_tables_are_made_there_is_nothing(filled: Config) -> None:
    async with History(filled.clickhouse, filled.page, "not_made_yet") as history:
        assert await history.markets() == []
        assert await history.candles(Chart("a", "B/C", get_timeframe("1m")), 1, None) == []


async def test_the_page_asks_as_a_reader_that_cannot_write(filled: Config) -> None:
    login = {"X-ClickHouse-User": "page", "X-ClickHouse-Key": filled.page.clickhouse_password}
    async with aiohttp.ClientSession(headers=login) as session:
        for statement in (
            f"DROP TABLE {filled.database}.trades_log",
            f"INSERT INTO {filled.database}.skipped_offsets VALUES ('t', 0, 0, 0, 'refused', 0)",
            "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        ):
            async with session.post(filled.clickhouse.url, data=statement) as response:
                assert response.status != 200, statement


async def publish_until(
    filled: Config, records: list[tuple[Topic, Candle | Gap]], reached: asyncio.Event
) -> None:
    """Publish again and again: the page reads from the moment on at which it is connected."""
    publisher = Publisher(filled.kafka, "test")
    await publisher.start()
    try:
        while not reached.is_set():
            for topic, event in records:
                name = topic.full_name(filled.namespace)
                await publisher.publish(
                    name, message_key(event.exchange, event.symbol), [encode(event)]
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reached.wait(), 0.2)
    finally:
        await publisher.stop()


def live_candle(open_time_us: int, close: str, **changes: Any) -> Candle:
    return Candle(
        **{
            "exchange": "binance",
            "symbol": "BTC/USDT",
            "timeframe": "1m",
            "open_time_us": open_time_us,
            "open": "20",
            "high": "29",
            "low": "19",
            "close": close,
            "volume": "3",
            "quote_volume": None,
            "buy_volume": None,
            "trade_count": 2,
            "first_trade_id": "5",
            "last_trade_id": "6",
            "revision": 200,
            "source": "trades",
            "coverage": "partial",
            **changes,
        }
    )


async def test_what_is_published_reaches_a_browser(
    page: aiohttp.ClientSession, filled: Config
) -> None:
    minute_us = await newest_minute_us(page) + MINUTE_US
    opened = live_candle(minute_us, "21")
    closed = live_candle(minute_us, "22", timeframe="5m", coverage="contiguous")
    gap = Gap(
        exchange="binance",
        symbol="BTC/USDT",
        first_trade_id="70",
        last_trade_id="71",
        start_time_us=minute_us,
        end_time_us=minute_us + 1,
        status="open",
        reason="seen by a test",
    )
    other = live_candle(minute_us, "1", symbol="ETH/USDT")
    records: list[tuple[Topic, Candle | Gap]] = [
        (OPEN_CANDLES, other),
        (OPEN_CANDLES, opened),
        (CANDLES["5m"], closed),
        (CANDLES["15m"], live_candle(minute_us, "23", timeframe="15m")),
        (GAPS, gap),
    ]
    reached = asyncio.Event()
    publishing = asyncio.create_task(publish_until(filled, records, reached))
    seen: dict[str, set[Any]] = {"candles": set(), "gaps": set(), "markets": set()}
    async with page.ws_connect("api/live", params={**MARKET, "timeframe": "5m"}) as socket:
        while not all(seen.values()) or len(seen["candles"]) < 2:
            message = await socket.receive_json()
            for found in message.get("candles", []):
                seen["candles"].add((found["timeframe"], found["close"], found["closed"]))
            seen["gaps"] |= {found["reason"] for found in message.get("gaps", [])}
            seen["markets"] |= {found["symbol"] for found in message.get("markets", [])}
    reached.set()
    await publishing
    assert seen == {
        "candles": {("1m", "21", False), ("5m", "22", True)},
        "gaps": {"seen by a test"},
        "markets": {"BTC/USDT"},
    }


async def test_one_browser_more_than_allowed_is_refused_and_one_that_talks_is_cut_off(
    filled: Config,
) -> None:
    config = replace(filled, page=replace(filled.page, clients_max=1))
    asked = {**MARKET, "timeframe": "1m"}
    async with (
        shown_page(config) as address,
        aiohttp.ClientSession(address) as session,
        session.ws_connect("api/live", params=asked) as socket,
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect("api/live", params=asked)
        assert refusal.value.status == 503
        await socket.send_str("hello")
        while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        assert socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_candles_move_in_a_browser(
    page: aiohttp.ClientSession, filled: Config, tab: Any
) -> None:
    minute_us = await newest_minute_us(page) + MINUTE_US
    address = f"{page._base_url}#exchange=binance&symbol=BTC/USDT&timeframe=1m"
    pictures = []
    await tab.open(address)
    for close in ("21", "27.5"):
        reached = asyncio.Event()
        records: list[tuple[Topic, Candle | Gap]] = [(OPEN_CANDLES, live_candle(minute_us, close))]
        publishing = asyncio.create_task(publish_until(filled, records, reached))
        await tab.until(
            f"document.getElementById('open-candle').dataset.close === '{close}' && "
            "document.querySelectorAll('#chart .boxlayer path.box').length > 60"
        )
        drawn = (
            "[...document.querySelectorAll('#chart .boxlayer path.box')].at(-1).getAttribute('d')"
        )
        pictures.append((await tab.ask(drawn), await tab.picture()))
        reached.set()
        await publishing
    assert pictures[0][0] != pictures[1][0]
    assert pictures[0][1] != pictures[1][1]
    legend = await tab.ask("document.querySelector('#chart .legend').textContent")
    for coverage in ("contiguous", "exchange (1)", "unverified (1)", "partial (1)", "gap (1)"):
        assert coverage in legend
    await tab.until("document.getElementById('connection').textContent === 'live'")
    assert await tab.ask("document.getElementById('gaps').tBodies[0].rows.length") >= 2

    choose = (
        "const s = document.getElementById('timeframe'); s.value = '1h'; s.onchange({target: s})"
    )
    await tab.ask(f"(() => {{ {choose} }})()")
    await tab.until("document.title.includes('1h') && !!document.querySelector('#chart .boxlayer')")
    await tab.until("document.getElementById('open-candle').dataset.close === '27.5'")
    assert tab.errors == []


@pytest.mark.parametrize(("scheme", "back"), [("light", "#ffffff"), ("dark", "#0f1319")])
async def test_the_page_fits_a_telephone_and_is_light_or_dark_as_the_system_is(
    page: aiohttp.ClientSession, tab: Any, scheme: str, back: str
) -> None:
    await tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=844,
        deviceScaleFactor=1,
        mobile=True,
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    await tab.call("Emulation.setEmulatedMedia", features=[feature])
    await tab.open(f"{page._base_url}#exchange=binance&symbol=BTC/USDT&timeframe=1m")
    await tab.until("document.querySelectorAll('#chart .boxlayer path.box').length >= 60")
    assert await tab.ask("document.documentElement.scrollWidth") <= 390
    assert await tab.ask("document.getElementById('chart').layout.paper_bgcolor") == back
    shown = "getComputedStyle(document.body).backgroundColor"
    red, green, blue = (int(back[place : place + 2], 16) for place in (1, 3, 5))
    assert await tab.ask(shown) == f"rgb({red}, {green}, {blue})"
    assert tab.errors == []
