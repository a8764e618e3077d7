"""Many symbols of one exchange come up without one refusal: the real ccxt, the documented limits.

Windows are shorter on both sides by the same factor, so that minutes take seconds; no rule is
weaker for that.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.producers.connection.lanes import Lanes, start_s, symbols_per_lane
from alpha_pulse.producers.connection.pace import Pace
from alpha_pulse.producers.exchanges import registry
from alpha_pulse.producers.exchanges.limits import Rate, SocketLimits
from alpha_pulse.producers.exchanges.registry import ExchangeType, exchange_of
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket

EXCHANGES = tuple(exchange.value for exchange in ExchangeType)
LONG = os.environ.get("ALPHA_PULSE_FAULTS") == "full"
THOUSAND = 1_000


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Options]:
    """Return what scales the limits of producers, and gives the options that scale the dialect."""

    def set_to(factor: float) -> Options:
        room = registry._room

        def scaled(name: str) -> Any:
            return replace(room(name), limits=room(name).limits.scaled(factor))

        monkeypatch.setattr(registry, "_room", scaled)
        return Options(limits_scale=factor)

    return set_to


def exchange_with(name: str, symbols: int, options: Options) -> ReplayExchange:
    end_us = BEGIN_US + 60_000_000
    markets = [
        SyntheticMarket(f"A{n}/USDT", n, end_us=end_us, trades_per_minute=1) for n in range(symbols)
    ]
    return ReplayExchange(markets, dialect=name, options=options)


@pytest.mark.parametrize(
    ("name", "symbols", "factor"),
    [
        ("binance", 300, 0.2),
        ("binance", 600, 0.2),
        ("binanceusdm", 300, 0.2),
        ("okx", 150, 0.1),
        ("bybit", 300, 0.1),
        ("kraken", 150, 0.1),
        ("coinbase", 100, 0.1),
        *(
            pytest.param(name, symbols, factor, marks=pytest.mark.skipif(not LONG, reason="long"))
            for name, symbols, factor in [
                ("binance", 500, 1.0),
                ("binance", THOUSAND, 1.0),
                ("binanceusdm", THOUSAND, 1.0),
                ("okx", THOUSAND, 1.0),
                ("bybit", THOUSAND, 1.0),
                ("kraken", THOUSAND, 1.0),
            ]
        ),
    ],
)
async def test_many_symbols_come_up_without_one_refusal(
    name: str, symbols: int, factor: float, scale: Callable[[float], Options], follow: Any
) -> None:
    async with exchange_with(name, symbols, scale(factor)) as exchange:
        config = ProducerConfig(
            exchange=name,
            symbols=tuple(feed.symbol for feed in exchange.feeds),
            exchange_url=exchange.url,
            clock="event",
            until_us=exchange.end_us or 0,
        )
        following = await follow(config)
        # The stream begins when every symbol's trades and candles are subscribed.
        await following.until(lambda: exchange.conductor.started, 300)
        streams = 2 if exchange.dialect.has_candle_channel else 1
        lanes, _ = start_s(exchange_of(name), symbols, streams)
        # Binance's perpetuals have an address for each kind of stream.
        addresses = {socket["path"] for socket in exchange.state()["sockets"]}
        assert exchange.ledger.report()["sockets_refused"] == {}
        assert exchange.state()["sockets_opened"] == lanes * len(addresses)
        assert following.producer.streams.reconnects == 0
        await following.end()
        assert exchange.ledger.report()["sockets_refused"] == {}


@pytest.mark.parametrize(("name", "symbols"), [("binance", 600), ("okx", 130)])
async def test_a_lost_connection_comes_back_at_the_same_pace(
    name: str, symbols: int, scale: Callable[[float], Options], follow: Any
) -> None:
    async with exchange_with(name, symbols, scale(0.1)) as exchange:
        names = tuple(feed.symbol for feed in exchange.feeds)
        following = await follow(
            ProducerConfig(exchange=name, symbols=names, exchange_url=exchange.url, clock="event")
        )
        sockets = exchange.conductor.sockets
        full = sorted([2 * symbols_of for symbols_of in lanes_of(name, symbols)])

        def channels() -> list[int]:
            return sorted(len(socket.channels) for socket in sockets.values())

        await following.until(lambda: channels() == full, 60)
        for _ in range(2):
            before = set(sockets)
            for socket in list(sockets.values()):
                socket.abort()
            await following.until(lambda b=before: not b & set(sockets) and channels() == full, 60)
        assert exchange.ledger.report()["sockets_refused"] == {}
        await following.end()


def lanes_of(name: str, symbols: int) -> list[int]:
    most = symbols_per_lane(exchange_of(name), 2) or symbols
    return [min(most, symbols - first) for first in range(0, symbols, most)]


async def test_a_symbol_leaves_and_joins_on_the_connection_that_has_room(
    scale: Callable[[float], Options], follow: Any
) -> None:
    async with exchange_with("okx", 130, scale(0.1)) as exchange:
        names = [feed.symbol for feed in exchange.feeds]
        following = await follow(
            ProducerConfig(
                exchange="okx", symbols=tuple(names[:125]), exchange_url=exchange.url, clock="event"
            )
        )
        sockets = exchange.conductor.sockets

        def followed() -> list[set[str]]:
            by_socket = [{c.symbol for c in socket.channels} for socket in sockets.values()]
            return sorted(by_socket, key=len)

        await following.until(lambda: [len(one) for one in followed()] == [5, 120])
        gone = [next(iter(one)) for one in followed()]
        kept = [name for name in names[:125] if name not in gone]
        await following.producer.set_symbols(kept)
        await following.until(lambda: [len(one) for one in followed()] == [4, 119])
        await following.producer.set_symbols([*kept, *names[125:127]])
        await following.until(lambda: [len(one) for one in followed()] == [5, 120])
        assert exchange.ledger.report()["sockets_refused"] == {}
        assert following.producer.streams.reconnects == 0
        await following.end()


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_room_and_its_dialect_have_read_the_same_documents(name: str) -> None:
    limits, rules = exchange_of(name).limits, DIALECTS[name].rules
    for field in ("dials", "messages", "requests", "streams", "topic_chars"):
        assert getattr(limits, field) == getattr(rules, field), field


@pytest.mark.parametrize("name", EXCHANGES)
def test_no_lane_is_fuller_than_a_connection_may_be(name: str) -> None:
    exchange = exchange_of(name)
    most = symbols_per_lane(exchange, 2) or THOUSAND
    lanes, _ = start_s(exchange, THOUSAND, 2)
    assert lanes == -(-THOUSAND // most)
    if exchange.limits.streams:
        assert most * 2 <= exchange.limits.streams


def test_the_start_of_a_thousand_symbols_is_as_long_as_its_slowest_limit() -> None:
    assert start_s(exchange_of("okx"), THOUSAND, 2) == (9, 8.0)
    lanes, seconds = start_s(exchange_of("binance"), THOUSAND, 2)
    # 10 messages of trades and 10 of candles on each of two connections, 2 a second.
    assert lanes == 2
    assert 9 <= seconds <= 10


def test_a_lane_that_lost_a_symbol_is_filled_again() -> None:
    lanes = Lanes(2)
    assert [lanes.assign(1) for _ in range(3)] == [0, 0, 1]
    lanes.release(0)
    assert [lanes.assign(1) for _ in range(3)] == [0, 1, 2]


@given(
    rate=st.tuples(st.integers(2, 10), st.floats(0.5, 5.0)),
    messages=st.lists(st.tuples(st.booleans(), st.floats(0, 2)), min_size=1, max_size=80),
)
def test_no_window_holds_more_than_is_allowed(
    rate: tuple[int, float], messages: list[tuple[bool, float]]
) -> None:
    pace, now_s, sent = Pace(SocketLimits(messages=Rate(*rate))), 0.0, []
    for is_request, later_s in messages:
        now_s += later_s
        now_s += pace.wait_s(now_s, is_request=is_request)
        pace.note(now_s, is_request=is_request)
        sent.append(now_s)
    for first_s, after_s in zip(sent, sent[rate[0] :], strict=False):
        assert after_s - first_s >= rate[1]


def test_a_ping_never_waits_for_the_queue_of_subscribes() -> None:
    pace = Pace(SocketLimits(messages=Rate(5, 1.0)))
    for _ in range(2):
        pace.note(0.0, is_request=True)
    assert pace.wait_s(0.1, is_request=True) > 0.9
    assert pace.wait_s(0.1, is_request=False) == 0
