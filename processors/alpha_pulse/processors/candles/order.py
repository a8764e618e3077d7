"""Which trades of a stream were ingested, in which order, and which ids between them are missing.

Pure. Where the exchange numbers trades without holes, ids tell all of it; elsewhere only which
trades came twice, for as long as their windows may change.
"""

from dataclasses import dataclass, field

from alpha_pulse.contracts.events import Gap
from alpha_pulse.contracts.market import TIME_US_MAX
from alpha_pulse.processors.candles.closing import Closing
from alpha_pulse.processors.candles.missing import Hole
from alpha_pulse.processors.candles.proof import Proof
from alpha_pulse.processors.candles.rules import Job, Publish
from alpha_pulse.processors.candles.value import Rank


@dataclass(slots=True)
class Order:
    """The order of one stream's trades.

    first_id, last_id: where ids are consecutive; first_id None: nothing came yet. last_trade_us,
    last_trade_id: of the newest trade in order; where last_trade_id is None, last_id is its id.
    passed_us: of the newest ids of no trade, where they are newer than that trade, else 0.
    unpriced_until_us: where ids of no trade came first, of the first trade; no minute before has a
    price. recent: elsewhere, ids to the open time of their base window.
    """

    exchange: str
    symbol: str
    proof: Proof
    closing: Closing
    job: Job | None
    first_id: int | None = None
    last_id: int = -1
    last_trade_us: int = 0
    last_trade_id: str | None = None
    recent: dict[str, int] = field(default_factory=dict)
    passed_us: int = 0
    unpriced_until_us: int = 0

    @property
    def newest_trade_id(self) -> str | None:
        """The id of the newest trade in order; None before the first."""
        if self.last_trade_id is None and self.last_trade_us:
            return str(self.last_id)
        return self.last_trade_id

    def knows(self, number: int, trade_id: str) -> bool:
        """Return whether the trade is in the log already, as far as the state tells."""
        if not self.proof.consecutive:
            return trade_id in self.recent
        return (
            self.first_id is not None
            and self.first_id <= number <= self.last_id
            and self.proof.missing.find(number) is None
        )

    def place(self, number: int, trade_id: str, time_us: int, publish: Publish) -> Rank | None:
        """Give a trade its place; return its rank among those of its time, None: a duplicate.

        number: the id's number where ids are consecutive, else ignored. What it shows to be missing
        or no longer missing is published.
        """
        if not self.proof.consecutive:
            return self._place_by_time(trade_id, time_us)
        if self.first_id is None or number > self.last_id:
            self._follow_ids(number, time_us, publish)
            self.last_trade_us, self.last_trade_id, self.passed_us = time_us, None, 0
            self.unpriced_until_us = min(self.unpriced_until_us, time_us)
        elif not self._fill(number, time_us, publish):
            return None
        return number

    def follow(self, last_id: int, last_us: int) -> None:
        """Catch up with trades whose ids follow one another."""
        self.last_id, self.last_trade_us, self.last_trade_id = last_id, last_us, None
        self.passed_us = 0

    def pass_over(self, first: int, last: int, time_us: int, publish: Publish) -> bool:
        """Go on behind ids of no trade; return False when they are not the next ones.

        Args:
            first: the first of the run; ids below that are not known yet are missing.
            last: its last one.
            time_us: when that was.
            publish: for what is missing.
        """
        if self.first_id is not None and last <= self.last_id:
            return False
        newest = self.newest_trade_id
        if self.first_id is None:
            self.unpriced_until_us = TIME_US_MAX
        begin = first if self.first_id is None else max(first, self.last_id + 1)
        self._follow_ids(begin, time_us, publish)
        self.last_id, self.last_trade_id, self.passed_us = last, newest, time_us
        return True

    def explain(self, first: int, last: int, time_us: int, publish: Publish) -> bool:
        """Note that those of the ids `first..last` that are missing belong to no trade.

        Args:
            first: the first of the run.
            last: its last one.
            time_us: when that was.
            publish: for what is missing no longer.

        Returns:
            Whether there were any.
        """
        missing = self.proof.missing
        found = [r for r in missing.ranges if r.first <= last and r.last >= first]
        for part in found:
            self.closing.touch(part.start_us, part.end_us)
            at_us = min(max(time_us, part.start_us), part.end_us)
            missing.fill(part, max(first, part.first), min(last, part.last), at_us)
            if first <= part.first:
                self._prove_empty(part.start_us, at_us)
            if last >= part.last:
                self._prove_empty(at_us, part.end_us)
            if part.hole.remaining == 0:
                part.hole.status = "filled"
                publish(self._gap_of(part.hole))
        return bool(found)

    def gap(self, gap: Gap, first: int, last: int, publish: Publish) -> None:
        """Note that the producer misses, found or gave up the ids `first..last`."""
        if self.first_id is None:
            # What is missing before the first trade that is followed is not waited for here.
            publish(gap)
            return
        if last > self.last_id and gap.status != "filled":
            if self.last_trade_id is None:
                self.last_trade_id = str(self.last_id)
            start_us = min(self.passed_us or self.last_trade_us, gap.start_time_us)
            self._open_hole(
                Hole(
                    self.last_id + 1, last, start_us, max(gap.end_time_us, start_us),
                    last - self.last_id, gap.status, gap.reason,
                ),
                publish,
            )  # fmt: skip
            self.last_id, self.passed_us = last, 0
        ranges = self.proof.missing.ranges
        is_missing = any(r.first <= last and r.last >= first for r in ranges)
        if gap.status == "filled" and last <= self.last_id and not is_missing:
            # Healed before anything after it was published: nothing changes but what is known.
            publish(gap)
        if gap.status == "unfillable":
            for hole in self.proof.missing.give_up(first, last):
                publish(self._gap_of(hole))

    def give_up(self, long_ago_us: int, publish: Publish) -> None:
        """Stop waiting for what is missing since then."""
        for hole in self.proof.give_up(long_ago_us):
            publish(self._gap_of(hole))

    def learn_ids(self, are_consecutive: bool) -> None:
        """Go on by numbers, from the highest id that is known; or by the recent ids."""
        if not are_consecutive:
            self.last_trade_id = self.newest_trade_id
            return
        known = [trade_id for trade_id in (*self.recent, self.newest_trade_id or "")]
        numbers = [int(trade_id) for trade_id in known if _is_number(trade_id)]
        if numbers:
            self.first_id = self.last_id = max(*numbers, self.last_id)
            self.last_trade_id = None

    def _place_by_time(self, trade_id: str, time_us: int) -> Rank | None:
        if trade_id in self.recent or self._had_number(trade_id):
            return None
        if self.proof.proven_from_us is None:
            self.proof.proven_from_us = time_us
        if time_us >= self.last_trade_us:
            self.last_trade_us, self.last_trade_id = time_us, trade_id
        return len(trade_id), trade_id

    def _had_number(self, trade_id: str) -> bool:
        # While the exchange was taken for one that numbers its trades, nobody kept recent ids.
        if self.first_id is None or not _is_number(trade_id):
            return False
        number = int(trade_id)
        is_inside = self.first_id <= number <= self.last_id
        return is_inside and self.proof.missing.find(number) is None

    def _follow_ids(self, number: int, time_us: int, publish: Publish) -> None:
        proof = self.proof
        if self.first_id is None:
            self.first_id = number
            proof.proven_from_us = time_us if self.job is None else self.job.start_us - 1
        elif number > self.last_id + 1:
            start_us, end_us = sorted((self.passed_us or self.last_trade_us, time_us))
            self._open_hole(
                Hole(
                    self.last_id + 1, number - 1, start_us, end_us, number - 1 - self.last_id,
                    "open", "ids jumped and no gap was announced",
                ),
                publish,
            )  # fmt: skip
        elif proof.unproven_from_us is not None:
            self._prove_empty(proof.unproven_from_us, time_us)
        proof.unproven_from_us = None
        self.last_id = number

    def _open_hole(self, hole: Hole, publish: Publish) -> None:
        self.proof.missing.open(hole)
        self.closing.touch(hole.start_us, hole.end_us)
        publish(self._gap_of(hole))
        for lost in self.proof.missing.trim():
            publish(self._gap_of(lost))

    def _fill(self, number: int, time_us: int, publish: Publish) -> bool:
        found = self.proof.missing.find(number)
        if found is None:
            return False
        self.unpriced_until_us = min(self.unpriced_until_us, time_us)
        # Before the range shrinks: what it overlaps may change, even if it is old.
        self.closing.touch(found.start_us, found.end_us)
        level = self.closing.windows.base_at(time_us)
        self.closing.window(level, self.closing.rules.timeframes[level].open_time_us(time_us))
        self.proof.missing.fill(found, number, number, time_us)
        # Minutes that the shrunk range no longer overlaps had no trade, as is proven now.
        if number == found.first:
            self._prove_empty(found.start_us, time_us)
        if number == found.last:
            self._prove_empty(time_us, found.end_us)
        if found.hole.remaining == 0:
            found.hole.status = "filled"
            publish(self._gap_of(found.hole))
        return True

    def _prove_empty(self, from_us: int, until_us: int) -> None:
        self.closing.prove_empty(max(from_us, self.unpriced_until_us), until_us)

    def _gap_of(self, hole: Hole) -> Gap:
        return hole.as_gap(self.exchange, self.symbol, None if self.job is None else self.job.name)


def _is_number(trade_id: str) -> bool:
    return trade_id.isascii() and trade_id.isdigit() and len(trade_id) <= 19
