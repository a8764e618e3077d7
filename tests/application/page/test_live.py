"""What a browser is handed: bounded, the newest of all, and word of what it missed."""

import asyncio

import msgspec
import pytest

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import MINUTE_US, get_timeframe
from alpha_pulse.contracts.roles.batches import RecordBatch
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.page.chart import Chart, ChartCandle
from alpha_pulse.page.live import RECENT_MAX, LiveMarket, Mailbox
from tests.patience import PATIENCE_S

_EXAMPLE = EXAMPLES[Candle]["contiguous"]
assert isinstance(_EXAMPLE, Candle)
CANDLE = _EXAMPLE


def candle(number: int, **changes: object) -> Candle:
    open_time_us = CANDLE.open_time_us // MINUTE_US * MINUTE_US + number * MINUTE_US
    return msgspec.structs.replace(
        CANDLE,
        timeframe="1m",
        open_time_us=open_time_us,
        **changes,
    )


def mailbox(timeframe: str = "1m", symbol: str = CANDLE.symbol, pending_max: int = 500) -> Mailbox:
    return Mailbox(Chart(CANDLE.exchange, symbol, get_timeframe(timeframe)), pending_max)


async def closes(box: Mailbox) -> list[tuple[str, str]]:
    _, messages = await asyncio.wait_for(box.take(), PATIENCE_S)
    return [(m.timeframe, m.close) for m in messages if isinstance(m, ChartCandle)]


async def test_of_one_candle_only_the_newest_state_is_kept() -> None:
    live, box = LiveMarket(Config()), mailbox()
    live.join(box)
    for close in ("1", "2", "3"):
        live.put_candle(candle(0, close=close), is_open=True)
    live.put_candle(candle(1, close="4"), is_open=True)
    assert await closes(box) == [("1m", "3"), ("1m", "4")]


async def test_a_browser_hears_of_its_own_market_and_timeframe_and_of_minutes() -> None:
    live, box = LiveMarket(Config()), mailbox("5m")
    live.join(box)
    live.put_candle(candle(0, close="1", symbol="OTHER/USDT"), is_open=True)
    live.put_candle(candle(0, close="2"), is_open=True)
    live.put_candle(msgspec.structs.replace(candle(0), timeframe="5m", close="3"), is_open=False)
    live.put_candle(msgspec.structs.replace(candle(0), timeframe="1h", close="4"), is_open=False)
    assert await closes(box) == [("1m", "2"), ("5m", "3")]


async def test_one_that_joins_is_given_what_clickhouse_may_not_have_yet() -> None:
    live = LiveMarket(Config())
    for number in range(RECENT_MAX + 3):
        live.put_candle(candle(number, close=str(number + 1)), is_open=False)
    live.put_candle(candle(9, close="90"), is_open=True)
    box = mailbox()
    live.join(box)
    newest = [("1m", str(number + 1)) for number in range(3, RECENT_MAX + 3)]
    assert sorted(await closes(box)) == sorted([*newest, ("1m", "90")])


async def test_a_browser_that_does_not_keep_up_is_told_to_load_anew() -> None:
    live, box = LiveMarket(Config()), mailbox(pending_max=10)
    live.join(box)
    for number in range(25):
        live.put_candle(candle(number), is_open=False)
    reload, messages = await box.take()
    assert reload
    assert len(messages) <= 10
    live.put_candle(candle(30), is_open=False)
    assert (await box.take())[0] is False


async def test_one_that_left_is_handed_nothing() -> None:
    live, box = LiveMarket(Config()), mailbox()
    live.join(box)
    live.leave(box)
    live.leave(box)
    live.put_candle(candle(0), is_open=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(box.take(), 0.01)


async def test_a_record_that_breaks_the_contract_is_counted_and_the_next_one_shown() -> None:
    live, box = LiveMarket(Config()), mailbox()
    live.join(box)
    values = [b"{", b'{"event":"candle"}', None, encode(candle(0, close="5"))]
    live._take([RecordBatch([0, 1, 2, 3], [b"k"] * 4, values, 4, 0)], is_open=True)
    assert live.ignored == 2
    assert await closes(box) == [("1m", "5")]


async def test_history_jobs_are_not_shown_as_live() -> None:
    live, box = LiveMarket(Config()), mailbox()
    live.join(box)
    values: list[bytes | None] = [encode(candle(0, job="j")), encode(candle(1, close="6"))]
    live._take([RecordBatch([0, 1], [b"k"] * 2, values, 2, 0)], is_open=False)
    assert await closes(box) == [("1m", "6")]
