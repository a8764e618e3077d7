"""What feeds counted, together: a symbol that is removed takes no count away."""

from collections import Counter
from collections.abc import Iterable

from alpha_pulse.producers.feed.symbol_feed import SymbolFeed


class FeedTotals:
    """The counters of several feeds: trades, duplicates, gaps and their length (µs) by status."""

    def __init__(self) -> None:
        self.trades = 0
        self.duplicates = 0
        self.gaps: Counter[str] = Counter()
        self.gap_us: Counter[str] = Counter()

    def add(self, feed: SymbolFeed) -> None:
        """Count a feed in."""
        self.trades += feed.trades
        self.duplicates += feed.tracker.duplicates
        self.gaps.update(feed.gaps)
        self.gap_us.update(feed.gap_us)

    def plus(self, feeds: Iterable[SymbolFeed]) -> "FeedTotals":
        """Return these totals and those of more feeds."""
        both = FeedTotals()
        both.trades, both.duplicates = self.trades, self.duplicates
        both.gaps, both.gap_us = self.gaps.copy(), self.gap_us.copy()
        for feed in feeds:
            both.add(feed)
        return both
