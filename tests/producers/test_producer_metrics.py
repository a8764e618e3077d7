"""A producer's counters never go back: not when a symbol is removed either."""

from typing import Any

from alpha_pulse.contracts.events import Gap
from alpha_pulse.producers.feed.continuity import ConsecutiveIds
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.feed.totals import FeedTotals

START_US = 1_763_942_400_000_000


def feed(symbol: str) -> SymbolFeed:
    return SymbolFeed("binance", symbol, ConsecutiveIds(), grace_us=2_000_000)


def gap(status: Any, seconds: int) -> Gap:
    return Gap(
        exchange="binance",
        symbol="BTC/USDT",
        first_trade_id="1",
        last_trade_id="2",
        start_time_us=START_US,
        end_time_us=START_US + seconds * 1_000_000,
        status=status,
        reason="lost",
    )


def test_what_a_removed_symbol_counted_stays() -> None:
    gone, there = feed("BTC/USDT"), feed("ETH/USDT")
    gone.trades, there.trades = 10, 3
    gone.tracker.duplicates = 2
    feeds = {"BTC/USDT": gone, "ETH/USDT": there}
    totals = FeedTotals()
    before = totals.plus(feeds.values())
    totals.add(feeds.pop("BTC/USDT"))
    after = totals.plus(feeds.values())
    assert (before.trades, before.duplicates) == (after.trades, after.duplicates) == (13, 2)
    # Reading changes nothing.
    assert totals.plus(feeds.values()).trades == 13


def test_gaps_are_counted_by_status_with_their_length() -> None:
    one = feed("BTC/USDT")
    one.emit([gap("open", 30), gap("open", 10), gap("filled", 30)])
    totals = FeedTotals().plus([one])
    assert totals.gaps == {"open": 2, "filled": 1}
    assert totals.gap_us == {"open": 40_000_000, "filled": 30_000_000}
