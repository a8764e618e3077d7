"""Years of history by formula: candles are exactly the sums of the trades, halts have neither."""

from typing import Any

import pytest

from alpha_pulse.replay.exchange.faults import shortened
from alpha_pulse.replay.markets.candles import CandleHistory
from alpha_pulse.replay.markets.long_market import LongMarket

MINUTE_US = 60_000_000
BEGIN_US = 1_704_067_200_000_000
HALTS = ((BEGIN_US + 40 * MINUTE_US, BEGIN_US + 60 * MINUTE_US),)


class OnlyTrades:
    """The same market without its own candles: they are added up from the trades."""

    def __init__(self, market: LongMarket) -> None:
        self._market = market

    def __getattr__(self, name: str) -> Any:
        if name == "closed_candle":
            raise AttributeError(name)
        return getattr(self._market, name)


@pytest.fixture
def market() -> LongMarket:
    return LongMarket("BTC/USDT", 3, begin_us=BEGIN_US, end_us=BEGIN_US + 5_000 * MINUTE_US,
                      halts=HALTS)  # fmt: skip


def test_a_candle_is_the_sum_of_its_trades(market: LongMarket) -> None:
    added_up = CandleHistory(OnlyTrades(market))
    known = CandleHistory(market)
    for minute in (0, 1, 39, 60, 61, 4_999):
        open_us = BEGIN_US + minute * MINUTE_US
        assert known.closed_minute(open_us) == added_up.closed_minute(open_us), minute


def test_ids_run_on_across_a_halt_that_has_no_trades_and_no_candles(market: LongMarket) -> None:
    start_us, end_us = HALTS[0]
    before, after = market.position_at(start_us), market.position_at(end_us)
    assert before == after == 40 * 4
    rows = market.rows(before - 1, before + 1)
    assert [row.trade_time_us < start_us for row in rows] == [True, False]
    assert rows[1].trade_id == rows[0].trade_id + 1
    assert rows[1].trade_time_us >= end_us
    history = CandleHistory(market)
    assert history.closed_minute(start_us) is None
    assert history.closed_minute(end_us) is not None


def test_positions_and_times_agree_everywhere(market: LongMarket) -> None:
    for first in (0, 3, 157, 160, 163, 4_000):
        for place, row in enumerate(market.rows(first, first + 9)):
            assert market.position_of(row.trade_id) == first + place
            assert market.position_at(row.trade_time_us) == first + place


def test_a_short_answer_keeps_its_form() -> None:
    assert shortened([1, 2, 3], "no-rows") == []
    answer = {"error": [], "result": {"XBTUSD": [[1], [2], [3]], "last": 7}}
    found = shortened(answer, "few-rows")
    assert found == {"error": [], "result": {"XBTUSD": [[1]], "last": 7}}
    assert shortened({"code": "0"}, "no-rows") == {"code": "0"}
