from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.replay.markets.candles import CandleHistory
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import Market, TradeRow
from alpha_pulse.replay.markets.no_trades import WithNoTrades
from alpha_pulse.replay.markets.recorded import LoopedMarket, RecordedMarket
from alpha_pulse.replay.markets.recording import Recording
from alpha_pulse.replay.markets.synthetic import BLOCK_US, SyntheticMarket
from tests.application.replay.conftest import (
    BEGIN_US,
    MINUTE_US,
    expected_candles,
    make_recording,
)


def tick_of(market: Market) -> Decimal:
    return Decimal(1).scaleb(-market.instrument.price_digits)


@given(seed=st.integers(0, 5), at=st.integers(0, 3_000), size=st.integers(0, 4_000))
@settings(max_examples=25, deadline=None)
def test_a_synthetic_market_is_the_same_wherever_it_is_entered(
    seed: int, at: int, size: int
) -> None:
    whole = SyntheticMarket("BTC/USDT", seed, trades_per_minute=50)
    entered = SyntheticMarket("BTC/USDT", seed, trades_per_minute=50)
    rows = entered.rows(at, at + size)
    assert list(rows) == list(whole.rows(0, at + size))[at:]
    assert [row.trade_id for row in rows] == list(
        range(rows[0].trade_id if rows else 0, (rows[0].trade_id if rows else 0) + size)
    )


def test_a_synthetic_market_looks_like_one() -> None:
    market = SyntheticMarket("BTC/USDT", 3, trades_per_minute=300, quiet_minutes=0.1)
    hours = 2
    rows = market.rows(0, market.position_at(market.begin_us + hours * 60 * MINUTE_US))
    assert len(rows) == hours * 60 * 300
    times_us = [row.trade_time_us for row in rows]
    assert times_us == sorted(times_us)
    shared = sum(a == b for a, b in pairwise(times_us))
    assert shared > len(rows) * 0.4
    counts = [
        market.position_at(open_us + MINUTE_US) - market.position_at(open_us)
        for open_us in range(market.begin_us, market.begin_us + hours * 60 * MINUTE_US, MINUTE_US)
    ]
    assert min(counts) == 0
    assert max(counts) > 600
    steps = [abs(Decimal(b.price) - Decimal(a.price)) for a, b in pairwise(rows)]
    # 1 % between two trades would be a jump; prices stay on the tick grid.
    assert max(steps) < Decimal(rows[0].price) / 100
    assert all(Decimal(row.price) % tick_of(market) == 0 for row in rows)
    assert all(Decimal(row.amount) > 0 for row in rows)
    assert {row.side for row in rows} == {"buy", "sell"}


def test_seeds_and_symbols_make_different_markets() -> None:
    first = {
        tuple(SyntheticMarket(symbol, seed).rows(0, 50))
        for symbol in ("BTC/USDT", "ETH/USDT", "NEW/USDT")
        for seed in (1, 2)
    }
    assert len(first) == 6


def test_a_synthetic_market_keeps_few_blocks_however_long_it_runs() -> None:
    market = SyntheticMarket("BTC/USDT", 1, trades_per_minute=1)
    for number in range(100):
        market.position_at(market.begin_us + number * BLOCK_US + 1)
    assert len(market._blocks) <= 24


def test_a_loop_has_no_seam(recording: Recording) -> None:
    market = LoopedMarket(recording)
    count = len(recording.trades)
    rows = market.rows(0, 3 * count)
    ids = [row.trade_id for row in rows]
    assert ids == list(range(ids[0], ids[0] + 3 * count))
    times_us = [row.trade_time_us for row in rows]
    assert times_us == sorted(times_us)
    assert rows[count - 1].price == rows[count].price
    assert rows[2 * count - 1].price == rows[2 * count].price
    assert list(market.rows(0, count)) == list(recording.trades)


@given(time_us=st.integers(0, 30 * MINUTE_US), part=st.integers(0, 2_000))
def test_a_loops_positions_agree_with_its_times(time_us: int, part: int) -> None:
    market = LoopedMarket(SMALL)
    position = market.position_at(SMALL.begin_us + time_us)
    rows = market.rows(position - 1, position + 1) if position else market.rows(0, 1)
    if position:
        assert rows[0].trade_time_us < SMALL.begin_us + time_us <= rows[1].trade_time_us
    row = market.rows(part, part + 1)[0]
    assert market.position_of(row.trade_id) == part


SMALL = make_recording(minutes=2, trades_per_minute=20)


def row(number: int, seconds: float, price: str, amount: str = "1") -> TradeRow:
    return TradeRow(number, BEGIN_US + int(seconds * 1e6), price, amount, "buy")


def recorded(*rows: TradeRow) -> Feed:
    feed = Feed(RecordedMarket(Recording("binance", "spot", "BTC/USDT", "", rows, ())), "BTC/USDT")
    feed.published = len(rows)
    return feed


def test_candles_of_the_trades_equal_an_independent_sum() -> None:
    market = SyntheticMarket("BTC/USDT", 9, begin_us=BEGIN_US, quiet_minutes=0.3)
    end_us = BEGIN_US + 20 * MINUTE_US
    rows = list(market.rows(0, market.position_at(end_us)))
    history = CandleHistory(market)
    first_us = rows[0].trade_time_us - rows[0].trade_time_us % MINUTE_US
    for expected in expected_candles(rows, end_us):
        found = history.closed_minute(expected.open_time_us)
        assert found is not None
        assert (found.open, found.high, found.low, found.close) == (
            expected.open,
            expected.high,
            expected.low,
            expected.close,
        )
        assert Decimal(found.volume) == Decimal(expected.volume)
        assert found.trade_count == expected.trade_count
        inside = [r for r in rows if 0 <= r.trade_time_us - expected.open_time_us < MINUTE_US]
        assert found.quote_volume == sum(Decimal(r.price) * Decimal(r.amount) for r in inside)
    merged = history.candle(first_us, "5m", len(rows), end_us)
    if first_us % (5 * MINUTE_US) == 0:
        assert merged is not None
        five = [r for r in rows if r.trade_time_us < first_us + 5 * MINUTE_US]
        assert Decimal(merged.volume) == sum(Decimal(r.amount) for r in five)


def test_the_first_minute_is_not_served_when_the_recording_begins_inside_it() -> None:
    feed = recorded(row(1, 15, "10"), row(2, 70, "11"), row(3, 130, "12"))
    assert feed.candles.closed_minute(BEGIN_US) is None
    assert feed.candles.closed_minute(BEGIN_US + MINUTE_US) is not None


def test_an_empty_minute_repeats_the_close() -> None:
    feed = recorded(row(1, 15, "10"), row(2, 70, "11"), row(3, 190, "12"))
    empty = feed.candles.closed_minute(BEGIN_US + 2 * MINUTE_US)
    assert empty is not None
    assert (empty.open, empty.close, empty.trade_count) == ("11", "11", 0)
    assert Decimal(empty.volume) == 0
    assert empty.first_trade_id is None


def test_a_trade_printed_late_is_in_its_own_minute() -> None:
    feed = recorded(
        row(1, 15, "10"),
        row(2, 119, "11"),
        row(3, 120.5, "12"),
        row(4, 119.9, "15"),
        row(5, 200, "9"),
    )
    close_us = BEGIN_US + 2 * MINUTE_US
    assert feed.market.settled_us(close_us) == BEGIN_US + 120_500_001
    assert not feed.candles.is_closed(close_us, close_us)
    candle = feed.candles.closed_minute(BEGIN_US + MINUTE_US)
    assert candle is not None
    assert (candle.high, candle.close, candle.trade_count) == ("15", "15", 2)


def test_recorded_candles_are_served_digit_by_digit(recording: Recording) -> None:
    market = RecordedMarket(recording)
    history = CandleHistory(market)
    for own in recording.candles:
        found = history.closed_minute(own.open_time_us)
        assert found is not None
        assert (found.open, found.high, found.low, found.close, found.volume) == (
            own.open,
            own.high,
            own.low,
            own.close,
            own.volume,
        )


def test_a_shifted_recording_keeps_its_minutes(recording: Recording) -> None:
    shifted = recording.shifted(7 * MINUTE_US)
    assert shifted.candles[0].open_time_us - recording.candles[0].open_time_us == 7 * MINUTE_US
    assert [t.price for t in shifted.trades] == [t.price for t in recording.trades]


@pytest.mark.parametrize("every", [0, 1, 7])
@pytest.mark.parametrize("runs", [{}, {0: 2}, {5: 40, 21: 1}])
def test_ids_of_no_trade_shift_the_trades_behind_them(every: int, runs: dict[int, int]) -> None:
    plain = SyntheticMarket("BTC/USDT", 3, end_us=BEGIN_US + MINUTE_US)
    source = WithNoTrades(plain, every=every, runs=runs)
    rows = source.rows(0, 60)
    assert [row[1:] for row in rows] == [row[1:] for row in plain.rows(0, 60)]
    first_id = plain.rows(0, 1)[0].trade_id
    found = {row.trade_id: place for place, row in enumerate(rows)}
    shown: list[int] = []
    for row in rows:
        before, after = (
            source.no_trades_before(row.trade_id), source.no_trades_after(row.trade_id)
        )  # fmt: skip
        shown += range(row.trade_id - before, row.trade_id + after + 1)
    assert shown == list(range(first_id, shown[-1] + 1)), "every id once and in order"
    for number in range(first_id, rows[-1].trade_id + 1):
        expected = min(place for trade_id, place in found.items() if trade_id >= number)
        assert source.position_of(number) == expected
    assert source.rows(7, 9) == rows[7:9]
