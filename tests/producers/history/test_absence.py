"""Why candles are absent: by the exchange's trades, else by the candles beside, else unknown."""

from collections.abc import Sequence
from typing import Any

import pytest

from alpha_pulse.contracts.config import HistoryConfig, ProducerConfig
from alpha_pulse.contracts.market import MINUTE_US, TIMEFRAMES
from alpha_pulse.producers.history.absence import learn_why, why_absent
from alpha_pulse.producers.history.missing import Window
from alpha_pulse.producers.history.pages import open_history
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.long_market import LongMarket
from alpha_pulse.replay.markets.synthetic import BEGIN_US

MINUTES = 600
END_US = BEGIN_US + MINUTES * MINUTE_US
ONE = TIMEFRAMES["1m"]


def minutes(first: int, end: int) -> Window:
    return Window(BEGIN_US + first * MINUTE_US, BEGIN_US + end * MINUTE_US)


async def reason(name: str, gone: Window, halt: Window | None, **how: Any) -> tuple[str, int]:
    """Return what is said of a window, and how many requests it took."""
    halts = [] if halt is None else [(halt.start_us, halt.end_us)]
    market = LongMarket("BTC/USDT", 2, begin_us=BEGIN_US, end_us=END_US, halts=halts)
    async with ReplayExchange([market], dialect=name, at_end=True) as exchange:
        config = ProducerConfig(exchange=name, exchange_url=exchange.url)
        async with open_history(config, HistoryConfig(retry_delay_s=0.001), share=0) as history:
            before = history.requests
            symbol = exchange.feeds[0].symbol
            found = await why_absent(history, symbol, ONE, gone, END_US, **how)
            return found, history.requests - before


@pytest.mark.parametrize(
    ("name", "said"), [("binance", "halted"), ("okx", "halted"), ("coinbase", "no_trades")]
)
async def test_the_list_of_trades_proves_it_wherever_there_is_one(name: str, said: str) -> None:
    halt = minutes(100, 220)
    assert (await reason(name, halt, halt))[0] == said
    assert (await reason(name, halt, None))[0] == "unanswered", "it traded: there are candles"


async def test_where_old_trades_are_not_shown_candles_on_both_sides_do() -> None:
    inside, at_start, at_end = minutes(100, 220), minutes(0, 50), minutes(550, MINUTES)
    assert (await reason("bybit", inside, inside))[0] == "halted"
    assert (await reason("bybit", at_start, at_start))[0] == "not_offered"
    assert (await reason("bybit", at_end, at_end))[0] == "unanswered", "it may only be late"


async def test_what_is_known_to_be_beside_is_not_asked_for() -> None:
    halt = minutes(100, 220)
    have = [halt.start_us - MINUTE_US, halt.end_us]
    assert await reason("bybit", halt, halt, have=have) == ("halted", 0)
    assert await reason("binance", halt, halt, have=have, ask_trades=False) == ("halted", 0)


@pytest.mark.parametrize(
    ("halt", "known"), [((100, 220), "halts"), ((0, 600), "offered_from_us"), (None, "")]
)
async def test_what_is_learnt_of_a_window_without_candles(
    halt: Sequence[int] | None, known: str
) -> None:
    window = minutes(100, 220)
    halts = [] if halt is None else [(minutes(*halt).start_us, minutes(*halt).end_us)]
    market = LongMarket("BTC/USDT", 2, begin_us=BEGIN_US, end_us=END_US, halts=halts)
    async with ReplayExchange([market], dialect="bybit", at_end=True) as exchange:
        config = ProducerConfig(exchange="bybit", exchange_url=exchange.url)
        async with open_history(config, HistoryConfig(retry_delay_s=0.001), share=0) as history:
            found = await learn_why(
                history, exchange.feeds[0].symbol, ONE, window.start_us, window.end_us
            )
    proven = {name for name in ("halts", "silent", "offered_from_us") if getattr(found, name)}
    assert proven == ({known} if known else set())
