"""What is known about the completeness of one stream: ids, live and down times, unproven times.

`Proof` answers two questions about a window: what coverage its trades have, and whether it is
proven that nothing was traded in it.
"""

from dataclasses import dataclass, field
from typing import Literal

from alpha_pulse.contracts.events import GapStatus, StreamState
from alpha_pulse.processors.candles.missing import Hole, MissingIds
from alpha_pulse.processors.candles.value import CONTIGUOUS, GAP, PARTIAL, UNVERIFIED


@dataclass(slots=True)
class Span:
    """A time `[start_us, end_us)` in which the stream was not live, or trades without ids miss.

    end_us: None while it lasts. keeps: the candles that it overlaps stay in state.
    """

    start_us: int
    end_us: int | None
    kind: Literal["disconnected", "halted", "gap"]
    keeps: bool = False

    def overlaps(self, open_us: int, close_us: int) -> bool:
        """Return whether some of the window `[open_us, close_us)` lies in the span."""
        return self.start_us < close_us and (self.end_us is None or self.end_us > open_us)


@dataclass(slots=True)
class Proof:
    """Completeness of one stream.

    consecutive: the exchange numbers trades without holes. followed_from_us: from here on the
    stream is followed. proven_from_us: up to here ids prove nothing (the first trade has no
    known predecessor). live_from_us: since when heartbeats claim completeness. unproven_from_us:
    minutes since then were closed without a trade and without proof; the next id decides.
    """

    consecutive: bool
    missing: MissingIds = field(default_factory=MissingIds)
    spans: list[Span] = field(default_factory=list)
    state: StreamState | None = None
    followed_from_us: int | None = None
    proven_from_us: int | None = None
    live_from_us: int | None = None
    unproven_from_us: int | None = None

    def coverage(self, open_us: int, close_us: int) -> int:
        """Return the coverage rank of a base window's trades."""
        for missing in self.missing.ranges:
            if missing.overlaps(open_us, close_us):
                return GAP
        for span in self.spans:
            # Ids prove what a disconnected stream did not bring; without ids nothing does.
            counts = span.kind == "gap" or (span.kind == "disconnected" and not self.consecutive)
            if counts and span.overlaps(open_us, close_us):
                return GAP
        if self.followed_from_us is None or open_us < self.followed_from_us:
            return PARTIAL
        if not self.consecutive or self.proven_from_us is None or open_us <= self.proven_from_us:
            return UNVERIFIED
        return CONTIGUOUS

    def is_empty(self, open_us: int, close_us: int, by_ids: bool) -> bool:
        """Return whether a window without trades is proven to have none.

        by_ids: the ids before and after it are known. Never in a halted time: then there was no
        market, which is not the same as no trade.
        """
        if self.proven_from_us is None:
            return False
        for missing in self.missing.ranges:
            if missing.overlaps(open_us, close_us):
                return False
        by_ids = by_ids and self.consecutive
        for span in self.spans:
            if span.overlaps(open_us, close_us) and (span.kind != "disconnected" or not by_ids):
                return False
        return by_ids or (self.live_from_us is not None and self.live_from_us <= open_us)

    @property
    def keeps_something(self) -> bool:
        """Whether `keeps` may be true for any window."""
        return bool(self.missing.ranges or self.spans) or self.unproven_from_us is not None

    def keeps(self, open_us: int, close_us: int) -> bool:
        """Return whether something that may still be proven or filled overlaps the window."""
        return (
            any(r.keeps and r.overlaps(open_us, close_us) for r in self.missing.ranges)
            or any(s.keeps and s.overlaps(open_us, close_us) for s in self.spans)
            or (self.unproven_from_us is not None and self.unproven_from_us < close_us)
        )

    def timed_gap(self, start_us: int, end_us: int, status: GapStatus) -> None:
        """Note what the producer says of a time in which trades without ids are missing."""
        span = next(
            (
                s
                for s in self.spans
                if s.kind == "gap" and (s.start_us, s.end_us) == (start_us, end_us)
            ),
            None,
        )
        if status == "filled":
            if span is not None:
                self.spans.remove(span)
        elif span is None:
            self.spans.append(Span(start_us, end_us, "gap", status == "open"))
        else:
            span.keeps = status == "open"

    def give_up(self, long_ago_us: int) -> list[Hole]:
        """Stop waiting for what is so long missing or unproven; return the holes given up."""
        given_up: list[Hole] = []
        for missing in list(self.missing.ranges):
            if missing.keeps and missing.end_us <= long_ago_us:
                given_up += self.missing.give_up(missing.first, missing.last)
        for span in self.spans:
            if span.keeps and span.end_us is not None and span.end_us <= long_ago_us:
                span.keeps = False
        if self.unproven_from_us is not None and self.unproven_from_us < long_ago_us:
            self.unproven_from_us = long_ago_us
        return given_up

    def drop_spans(self, oldest_us: int) -> None:
        """Forget spans that ended before the oldest window and that nothing is waited for in."""
        self.spans = [
            span
            for span in self.spans
            if span.end_us is None or span.keeps or span.end_us > oldest_us
        ]

    def heartbeat(self, state: StreamState, complete_until_us: int) -> None:
        """Note the state of the stream as of a heartbeat."""
        current = next((span for span in self.spans if span.end_us is None), None)
        if current is not None and state != current.kind:
            current.end_us = max(complete_until_us, current.start_us)
        if state == "live":
            if self.followed_from_us is None:
                self.followed_from_us = complete_until_us
            if self.live_from_us is None:
                # Everything earlier is in the log too, as far as the stream is followed.
                self.live_from_us = min(self.followed_from_us, complete_until_us)
        elif current is None or state != current.kind:
            self.spans.append(Span(complete_until_us, None, state))
        self.state = state
