"""What the exchange published and what it sent: the truth that a test compares storage with.

Published: the exchange printed it while it was being watched; REST knows it. Sent: it went out
on a websocket. A dropped frame is published and not sent. Kept as ranges of positions, since the
market can produce the rows again.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import TradeRow

HASH_ROWS = 10_000


class Ranges:
    """Positions as disjoint half-open ranges, ascending; compact when they come in order."""

    def __init__(self) -> None:
        self.ranges: list[list[int]] = []
        self.again = 0

    def add(self, first: int, end: int) -> None:
        """Add [first, end); positions that are there already are counted as sent again."""
        last = self.ranges[-1] if self.ranges else None
        if last is None or first > last[1]:
            self.ranges.append([first, end])
        elif first == last[1]:
            last[1] = end
        else:
            self._add_behind(first, end)

    def _add_behind(self, first: int, end: int) -> None:
        merged: list[list[int]] = []
        for begin, stop in self.ranges:
            if stop < first or begin > end:
                merged.append([begin, stop])
                continue
            self.again += max(0, min(stop, end) - max(begin, first))
            first, end = min(first, begin), max(end, stop)
        merged.append([first, end])
        self.ranges = sorted(merged)

    @property
    def count(self) -> int:
        """Return how many positions are in."""
        return sum(end - first for first, end in self.ranges)

    def missing(self, first: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges within [first, end) that are not in."""
        found = []
        for begin, stop in self.ranges:
            if begin > first:
                found.append((first, min(begin, end)))
            first = max(first, stop)
        if first < end:
            found.append((first, end))
        return [(a, b) for a, b in found if a < b]


class Ledger:
    """Everything published and sent, per symbol."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = {feed.symbol: feed for feed in feeds}
        self._sent = {feed.symbol: Ranges() for feed in feeds}
        self.closed_candles: Counter[str] = Counter()
        self.rest_requests: Counter[str] = Counter()
        self.rest_refused: Counter[int] = Counter()
        self.sockets_refused: Counter[str] = Counter()
        self.garbage_frames: Counter[str] = Counter()

    def add_sent(self, symbol: str, first: int, end: int) -> None:
        """Note that the trades at positions [first, end) went out on at least one socket."""
        self._sent[symbol].add(first, end)

    def published(self, symbol: str) -> Iterator[TradeRow]:
        """Yield the trades published, in the exchange's order."""
        feed = self._feeds[symbol]
        for first in range(feed.begin, feed.published, HASH_ROWS):
            yield from feed.market.rows(first, min(first + HASH_ROWS, feed.published))

    def not_sent(self, symbol: str) -> list[TradeRow]:
        """Return the trades published that went out on no socket."""
        feed = self._feeds[symbol]
        missing = self._sent[symbol].missing(feed.begin, feed.published)
        return [row for first, end in missing for row in feed.market.rows(first, end)]

    def published_sha256(self, symbol: str) -> str:
        """Return a hash over `id,time,price,amount,side` lines of the trades published."""
        digest = hashlib.sha256()
        for row in self.published(symbol):
            digest.update((",".join(map(str, row)) + "\n").encode())
        return digest.hexdigest()

    def report(self, *, with_sha256: bool = False) -> dict[str, Any]:
        """Return the ledger as plain values; with hashes it reads every trade again."""
        symbols: dict[str, dict[str, Any]] = {}
        for symbol, feed in self._feeds.items():
            sent, count = self._sent[symbol], feed.published - feed.begin
            first = feed.market.rows(feed.begin, feed.begin + 1)
            last = feed.market.rows(feed.published - 1, feed.published) if count else ()
            symbols[symbol] = {
                "published": count,
                "first_trade_id": first[0].trade_id if count else None,
                "last_trade_id": last[0].trade_id if count else None,
                "sent": sent.count,
                "sent_again": sent.again,
                "not_sent_ids": [
                    [feed.market.rows(a, a + 1)[0].trade_id, feed.market.rows(b - 1, b)[0].trade_id]
                    for a, b in sent.missing(feed.begin, feed.published)
                ],
                "closed_candles": self.closed_candles[symbol],
            }
            if with_sha256:
                symbols[symbol]["sha256"] = self.published_sha256(symbol)
        return {
            "symbols": symbols,
            "rest_requests": dict(self.rest_requests),
            "sockets_refused": dict(self.sockets_refused),
            "rest_refused": {str(status): n for status, n in self.rest_refused.items()},
            "garbage_frames": dict(self.garbage_frames),
        }
