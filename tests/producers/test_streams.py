"""Events in, actions out: what a producer does about its symbols' streams, without an exchange."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.events import Trade
from alpha_pulse.producers.connection.limiter import Limiter
from alpha_pulse.producers.exchanges.tick import FrameTime, Numbered, Refusal
from alpha_pulse.producers.feed.pump import Gate, Pump
from alpha_pulse.producers.feed.state import Event, State
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.liveness.heartbeat import ExchangeClock
from alpha_pulse.producers.streams import Streams
from tests.producers.conftest import MemoryPublisher

SYMBOL = "BTC/USDT"
TIME_US = 1_700_000_040_000_000
LAST = ("10", TIME_US)


def trade(trade_id: int, symbol: str = SYMBOL) -> Trade:
    return Trade(
        exchange="binance",
        symbol=symbol,
        trade_id=str(trade_id),
        price="1.5",
        amount="2",
        side="buy",
        trade_time_us=TIME_US + trade_id,
        receive_time_us=TIME_US,
    )


class Exchange:
    """A REST side that answers when a test lets it."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.found: list[Numbered] = []

    async def fetch(self, wanted: Any) -> list[Numbered]:
        self.asked += 1
        await self.may_answer.wait()
        return [
            t for t in self.found if isinstance(t, Trade) and int(t.trade_id) >= wanted.first_id
        ]


class Produced:
    """Streams whose log, quarantine and REST side a test looks at."""

    def __init__(self) -> None:
        self.log = MemoryPublisher()
        self.rest = Exchange()
        self.quarantined: list[str] = []
        self.throttled: list[str] = []
        gate = Gate("binance")
        self.pump = Pump(
            self.log,
            gate,
            topic="ingest.events.v1",
            dead_letter_topic="market.deadletters.v1",
            pending_bytes_max=1_000,
        )
        healer = Healer("binance", SimpleNamespace(id="binance"), Limiter("binance"))
        healer.fetch = self.rest.fetch  # type: ignore[method-assign]
        self.streams = Streams(
            ProducerConfig(clock="event"),
            "binance",
            healer,
            clock=ExchangeClock(event=True),
            sockets={},
            gate=gate,
            pump=self.pump,
            quarantine=self.quarantined.append,
            throttle=self.throttled.extend,
        )

    def state(self) -> State:
        return self.streams.feeds[SYMBOL].state

    async def said(self) -> list[str]:
        for _ in range(20):  # what waits for nothing is done by then
            await asyncio.sleep(0)
        await self.pump.flush()
        return [beat.state for beat in self.log.heartbeats(SYMBOL)]


@pytest.fixture
async def produced() -> Any:
    found = Produced()
    yield found
    await found.streams.catch_up.stop()


async def test_a_lost_stream_is_live_again_once_rest_has_answered(produced: Produced) -> None:
    streams = produced.streams
    streams.add(SYMBOL, None)
    streams.add_trades([trade(11), trade(12)], 0)
    streams.on_lost([SYMBOL], "closed")
    assert produced.state() is State.DISCONNECTED
    streams.add_tick(FrameTime(SYMBOL, TIME_US + 14), 1)
    assert produced.state() is State.CATCHING_UP
    produced.rest.found = [trade(13)]
    assert await produced.said() == ["live", "disconnected"]
    produced.rest.may_answer.set()
    assert await produced.said() == ["live", "disconnected", "live"]
    assert [t.trade_id for t in produced.log.trades()] == ["11", "12", "13"]
    assert streams.reconnects == 1


async def test_a_removed_symbol_says_nothing_when_rest_answers_at_last(produced: Produced) -> None:
    streams = produced.streams
    streams.add(SYMBOL, LAST)
    streams.add_tick(FrameTime(SYMBOL, TIME_US + 20), 0)
    await produced.said()
    assert produced.rest.asked == 1
    streams.remove(SYMBOL)
    produced.rest.may_answer.set()
    assert await produced.said() == ["disconnected"]
    assert produced.rest.asked == 1
    streams.add_trades([trade(11)], 0)
    assert produced.log.trades() == []


async def test_a_refused_symbol_is_not_live_when_rest_answers_at_last(produced: Produced) -> None:
    streams = produced.streams
    streams.add(SYMBOL, LAST)
    streams.add_tick(FrameTime(SYMBOL, TIME_US + 20), 0)
    await produced.said()
    streams.add_tick(Refusal(SYMBOL, "no such market"), 0)
    produced.rest.may_answer.set()
    assert await produced.said() == ["halted"]
    assert streams.refused == {SYMBOL: "no such market"}
    assert produced.quarantined == [SYMBOL]
    # Subscribed again: what came meanwhile is asked for, beside the conversation that was ended.
    streams.add_tick(FrameTime(SYMBOL, TIME_US + 30), 0)
    assert await produced.said() == ["halted", "live"]
    assert streams.refused == {}


async def test_a_conversation_begins_again_at_once_after_one_that_was_ended(
    produced: Produced,
) -> None:
    streams = produced.streams
    streams.add(SYMBOL, LAST)
    streams.add_tick(FrameTime(SYMBOL, TIME_US + 20), 0)
    await produced.said()
    streams.on_refused(SYMBOL, "busy")
    streams.add_tick(FrameTime(SYMBOL, TIME_US + 30), 0)  # before the first one has ended
    await produced.said()
    assert produced.rest.asked == 2
    produced.rest.may_answer.set()
    assert (await produced.said())[-1] == "live"


async def test_a_symbol_that_is_refused_after_it_was_removed_stays_removed(
    produced: Produced,
) -> None:
    streams = produced.streams
    streams.add(SYMBOL, None)
    streams.remove(SYMBOL)
    streams.on_refused(SYMBOL, "no such market")
    assert streams.feeds == {}
    assert streams.refused == {}
    assert produced.quarantined == []


async def test_a_halted_symbol_goes_on_with_its_next_trade(produced: Produced) -> None:
    streams = produced.streams
    streams.add(SYMBOL, None)
    streams.add_trades([trade(11)], 0)
    streams.on_halted(SYMBOL, "not trading")
    streams.on_halted(SYMBOL, "not trading")
    streams.add_tick(FrameTime(SYMBOL, TIME_US + 20), 0)
    assert produced.state() is State.HALTED
    streams.add_trades([trade(12)], 0)
    assert await produced.said() == ["live", "halted", "live"]


async def test_what_rest_does_not_answer_is_asked_again_and_never_claimed(
    produced: Produced, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_answer(wanted: Any) -> list[Trade]:
        produced.rest.asked += 1
        raise DataFetchError("expected trades, found none")

    monkeypatch.setattr(produced.streams.catch_up._healer, "fetch", no_answer)
    produced.streams.add(SYMBOL, LAST)
    produced.streams.add_trades([trade(20)], 0)
    assert await produced.said() == []
    assert produced.rest.asked >= 1
    assert not produced.streams.feeds[SYMBOL].is_complete


async def test_a_stop_is_said_of_live_symbols_alone(produced: Produced) -> None:
    streams = produced.streams
    streams.add(SYMBOL, None)
    streams.add("ETH/USDT", LAST)
    streams.add_trades([trade(11)], 0)
    streams.end()
    assert await produced.said() == ["live", "disconnected"]
    assert produced.log.heartbeats("ETH/USDT") == []
    streams.send(streams.feeds[SYMBOL], Event.CAUGHT_UP)
    assert await produced.said() == ["live", "disconnected"]
