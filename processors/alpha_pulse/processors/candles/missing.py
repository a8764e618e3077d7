"""Which trade ids of a symbol are missing: the last id, and ranges that later trades fill.

For exchanges that number a symbol's trades without holes. A range knows the times of its
neighbours, so that what is missing has a place in time; filling an id inside splits the range, and
what is left does not depend on the order in which the ids came.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from alpha_pulse.contracts.events import Gap, GapStatus


@dataclass(slots=True)
class Hole:
    """A gap as it is published: what was missing at first, and how many ids still are."""

    first: int
    last: int
    start_us: int
    end_us: int
    remaining: int
    status: GapStatus
    reason: str

    def as_gap(self, exchange: str, symbol: str, job: str | None) -> Gap:
        """Return it as the event that says so."""
        return Gap(
            exchange=exchange,
            symbol=symbol,
            first_trade_id=str(self.first),
            last_trade_id=str(self.last),
            start_time_us=self.start_us,
            end_time_us=self.end_us,
            status=self.status,
            reason=self.reason,
            job=job,
        )


@dataclass(slots=True)
class Range:
    """Missing ids `first..last`; their times lie in `[start_us, end_us]`, both ends included.

    keeps: the candles that it overlaps stay in state, because it may still be filled.
    """

    first: int
    last: int
    start_us: int
    end_us: int
    keeps: bool
    hole: Hole

    def overlaps(self, open_us: int, close_us: int) -> bool:
        """Return whether a missing trade may belong to the window `[open_us, close_us)`."""
        return self.start_us < close_us and self.end_us >= open_us


@dataclass(slots=True)
class MissingIds:
    """The missing ranges of one symbol, ascending by id.

    ranges_max: beyond so many the oldest is given up, then forgotten; a trade inside a forgotten
    range counts as a duplicate.
    """

    ranges: list[Range] = field(default_factory=list)
    ranges_max: int = 1000

    def open(self, hole: Hole) -> None:
        """Note all ids of a hole as missing."""
        new = Range(hole.first, hole.last, hole.start_us, hole.end_us, hole.status == "open", hole)
        self.ranges.insert(self._index(hole.first) + 1, new)

    def find(self, number: int) -> Range | None:
        """Return the range that the id is missing from."""
        index = self._index(number)
        if index >= 0 and number <= self.ranges[index].last:
            return self.ranges[index]
        return None

    def fill(self, found: Range, first: int, last: int, time_us: int) -> None:
        """Take the ids `first..last` out of their range; the neighbours' bounds in time tighten.

        time_us: when they were; of ids without a trade, when the last of them was.
        """
        index = self.ranges.index(found)
        found.hole.remaining -= last - first + 1
        left = Range(found.first, first - 1, found.start_us, time_us, found.keeps, found.hole)
        right = Range(last + 1, found.last, time_us, found.end_us, found.keeps, found.hole)
        self.ranges[index : index + 1] = [part for part in (left, right) if part.first <= part.last]

    def give_up(self, first: int, last: int) -> list[Hole]:
        """Stop waiting for the ids `first..last`; return the holes that are now unfillable."""
        changed: list[Hole] = []
        for found in self.ranges:
            if found.keeps and found.first <= last and found.last >= first:
                found.keeps = False
                if not any(other.keeps for other in self.ranges if other.hole is found.hole):
                    found.hole.status = "unfillable"
                    changed.append(found.hole)
        return changed

    def trim(self) -> list[Hole]:
        """Keep the number of ranges bounded; return the holes that were given up by that."""
        changed: list[Hole] = []
        while len(self.ranges) > self.ranges_max:
            oldest = self.ranges[0]
            changed += self.give_up(oldest.first, oldest.last)
            del self.ranges[0]
        return changed

    def _index(self, number: int) -> int:
        return bisect_right(self.ranges, number, key=lambda found: found.first) - 1
