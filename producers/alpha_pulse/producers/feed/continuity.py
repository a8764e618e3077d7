"""Continuity of one symbol's trades: duplicates, order, holes; pure.

Every trade, from the stream or from REST, is added to a tracker, which returns what may be
published now, in id order. Where ids are consecutive, a jump is a hole: later trades are held back
until the missing ones are added too, or until `give_up` says that they will not come in time.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from alpha_pulse.contracts.events import Gap, Trade
from alpha_pulse.producers.exchanges.tick import Numbered, time_of

# A jump this far is no loss but a wrong id, unless a second trade near it confirms it.
ID_JUMP_MAX = 1_000_000
_CONFIRM_WITHIN = 1_000
GIVEN_UP_MAX = 10_000


@dataclass(slots=True)
class Hole:
    """Missing ids `first` to `last`, seen at `since_us` (the caller's monotonic clock).

    until_us: when the trade after them happened.
    """

    first: int
    last: int
    since_us: int
    until_us: int


@dataclass(slots=True)
class GivenUp:
    """A hole that was published as an open gap; `missing` are the ids still sought."""

    gap: Gap
    missing: set[int] = field(default_factory=set)
    since_us: int = 0


class ConsecutiveIds:
    """Tracks a symbol whose ids are consecutive integers.

    What belongs to no trade (`Ids`) has its place among the trades.

    Args:
        last_id: the last one published already; None: nothing is known, the first trade begins.
        last_time_us: the time of its trade; 0: unknown.
        hold_back_trades_max: a hole is given up when more trades wait behind it.
        hold_back_us_max: and after this long.
    """

    def __init__(
        self,
        *,
        last_id: int | None = None,
        last_time_us: int = 0,
        hold_back_trades_max: int = 50_000,
        hold_back_us_max: int = 30_000_000,
    ) -> None:
        self.last_id = last_id
        self.last_time_us = last_time_us
        self.duplicates = 0
        self.given_up: list[GivenUp] = []
        self._trades_max = hold_back_trades_max
        self._us_max = hold_back_us_max
        self._held: dict[int, Numbered] = {}  # by first id
        self._held_ids: list[int] = []  # ascending
        self._since_us = 0
        self._suspect: Numbered | None = None

    @property
    def held(self) -> int:
        """How many trades, or runs of ids without one, wait behind a hole."""
        return len(self._held)

    def add(self, numbered: Numbered, now_us: int) -> list[Numbered | Gap]:
        """Add a trade, or ids of none, of the stream or of REST.

        Args:
            numbered: any of the symbol.
            now_us: the caller's monotonic clock.

        Returns:
            What may be published now, in id order; [] when it has to wait.

        Raises:
            ValueError: the id is no integer.
        """
        first, last = _run_of(numbered)
        if self.last_id is None or first == self.last_id + 1:
            self.last_id = last
            self.last_time_us = time_of(numbered)
            if not self._held:
                return [numbered]
            return [numbered, *self._release()]
        if first <= self.last_id:
            known = self._add_late(first, min(last, self.last_id), numbered)
            if last <= self.last_id:
                return known
            return [*known, *self.add(_part(numbered, self.last_id + 1, last), now_us)]
        if first in self._held:
            self.duplicates += 1
            return []
        if first - self.last_id > ID_JUMP_MAX and not self._confirmed(first, numbered):
            return []
        self._hold(first, numbered, now_us)
        return []

    def holes(self) -> list[Hole]:
        """Return the missing ranges below the trades that are held back, in id order."""
        found: list[Hole] = []
        if self.last_id is None:
            return found
        expected = self.last_id + 1
        for held_id in self._held_ids:
            held = self._held[held_id]
            if held_id > expected:
                found.append(Hole(expected, held_id - 1, self._since_us, time_of(held)))
            expected = max(expected, _run_of(held)[1] + 1)
        return found

    def must_give_up(self, now_us: int) -> bool:
        """Return whether the first hole is to be given up.

        Args:
            now_us: the caller's monotonic clock.
        """
        return bool(self._held) and (
            len(self._held) > self._trades_max or now_us - self._since_us >= self._us_max
        )

    def give_up(self, now_us: int, reason: str, *, for_good: bool = False) -> list[Numbered | Gap]:
        """Give the first hole up.

        Args:
            now_us: the caller's monotonic clock.
            reason: why, for the gap's readers.
            for_good: the ids do not exist at the exchange either (status unfillable); else they are
                still sought (open), and a trade that comes later is published after all.

        Returns:
            Its gap and the trades behind it, up to the next hole; [] when there is no hole.
        """
        holes = self.holes()
        if not holes:
            return []
        hole = holes[0]
        after = self._held[hole.last + 1]
        gap = Gap(
            exchange=after.exchange,
            symbol=after.symbol,
            first_trade_id=str(hole.first),
            last_trade_id=str(hole.last),
            start_time_us=min(self.last_time_us or hole.until_us, hole.until_us),
            end_time_us=hole.until_us,
            status="unfillable" if for_good else "open",
            reason=reason[:500],
        )
        if not for_good and hole.last - hole.first < ID_JUMP_MAX:
            missing = set(range(hole.first, hole.last + 1))
            self.given_up.append(GivenUp(gap, missing, now_us))
            del self.given_up[:-GIVEN_UP_MAX]
        self.last_id = hole.last
        self._since_us = now_us
        return [gap, *self._release()]

    def abandon(self, lost: GivenUp, reason: str) -> Gap:
        """Stop seeking a hole that was given up.

        Args:
            lost: one of `given_up`.
            reason: why, for the gap's readers.

        Returns:
            Its gap, unfillable.
        """
        self.given_up.remove(lost)
        return _changed(lost.gap, "unfillable", reason)

    def _add_late(self, first: int, last: int, numbered: Numbered) -> list[Numbered | Gap]:
        found: list[Numbered | Gap] = []
        for lost in list(self.given_up):
            late = sorted(number for number in lost.missing if first <= number <= last)
            if late:
                lost.missing.difference_update(late)
                found.append(_part(numbered, late[0], late[-1]))
                if not lost.missing:
                    self.given_up.remove(lost)
                    found.append(_changed(lost.gap, "filled", "the missing trades were found"))
        if not found:
            self.duplicates += 1
        return found

    def _confirmed(self, first: int, numbered: Numbered) -> bool:
        suspect, self._suspect = self._suspect, numbered
        if suspect is None:
            return False
        suspect_id = _run_of(suspect)[0]
        distance = first - suspect_id
        if distance == 0 or abs(distance) > _CONFIRM_WITHIN:
            return False
        self._suspect = None
        self._hold(suspect_id, suspect, self._since_us)
        return True

    def _hold(self, first: int, numbered: Numbered, now_us: int) -> None:
        if not self._held:
            self._since_us = now_us
        self._held[first] = numbered
        if self._held_ids and first < self._held_ids[-1]:
            insort(self._held_ids, first)
        else:
            self._held_ids.append(first)

    def _release(self) -> list[Numbered]:
        assert self.last_id is not None
        released: list[Numbered] = []
        expected = self.last_id + 1
        count = 0
        for held_id in self._held_ids:
            if held_id > expected:
                break
            count += 1
            held = self._held.pop(held_id)
            last = _run_of(held)[1]
            if last < expected:
                self.duplicates += 1  # said to be a trade, and to be none
                continue
            released.append(held if held_id == expected else _part(held, expected, last))
            expected = last + 1
        if released:
            self.last_id = expected - 1
            self.last_time_us = time_of(released[-1])
        del self._held_ids[:count]
        return released


class SeenIds:
    """Tracks a symbol whose ids prove nothing: drops what was seen within a window of event time.

    Holes can't be seen here; only overlap with REST after a reconnect shows one.

    Args:
        last_id: the last one published already; None: nothing is known.
        last_time_us: the time of its trade; 0: unknown.
        window_us: for how long of the trades' own time an id is remembered, at least.
        ids_min: so many are kept whatever their age: REST's last trades may reach back for hours in
            a quiet market.
        ids_max: no more than this are kept, so that half as many are remembered at least.
    """

    def __init__(
        self,
        *,
        last_id: str | None = None,
        last_time_us: int = 0,
        window_us: int = 600_000_000,
        ids_min: int = 2_000,
        ids_max: int = 500_000,
    ) -> None:
        self.last_time_us = last_time_us
        self.duplicates = 0
        self._window_us = window_us
        self._ids_min = ids_min
        self._ids_max = ids_max
        # Two generations, so that nothing has to be taken out one by one: the newer one follows the
        # older one once it holds what must be remembered by itself.
        self._seen: set[str] = set()
        self._seen_before: set[str] = set()
        self._since_us = last_time_us  # the newest time when the newer generation began
        if last_id is not None:
            self._seen.add(last_id)

    def __contains__(self, trade_id: str) -> bool:
        return trade_id in self._seen or trade_id in self._seen_before

    @property
    def held(self) -> int:
        """Nothing is ever held back: 0."""
        return 0

    def add(self, trade: Trade, now_us: int) -> list[Trade]:
        """Add a trade of the stream or of REST.

        Args:
            trade: any trade of the symbol.
            now_us: not needed here.

        Returns:
            The trade; [] when it was seen already.
        """
        del now_us
        return self.add_run([trade])

    def add_run(self, trades: Sequence[Trade]) -> list[Trade]:
        """Return those of some trades that were not seen yet, in their order."""
        seen, before, newest_us = self._seen, self._seen_before, self.last_time_us
        new: list[Trade] = []
        for trade in trades:
            trade_id = trade.trade_id
            if trade_id in seen or trade_id in before:
                self.duplicates += 1
                continue
            new.append(trade)
            seen.add(trade_id)
            if trade.trade_time_us > newest_us:
                newest_us = trade.trade_time_us
            if len(seen) >= self._ids_min and self._is_enough(len(seen), newest_us):
                seen, before = set(), seen
                self._seen, self._seen_before, self._since_us = seen, before, newest_us
        self.last_time_us = newest_us
        return new

    def _is_enough(self, count: int, newest_us: int) -> bool:
        return newest_us - self._since_us >= self._window_us or count >= self._ids_max // 2


def _run_of(numbered: Numbered) -> tuple[int, int]:
    if isinstance(numbered, Trade):
        number = int(numbered.trade_id)
        return number, number
    return int(numbered.first_trade_id), int(numbered.last_trade_id)


def _part(numbered: Numbered, first: int, last: int) -> Numbered:
    # A trade has one id, so that it is its own only part.
    if isinstance(numbered, Trade):
        return numbered
    return replace(numbered, first_trade_id=str(first), last_trade_id=str(last))


def _changed(gap: Gap, status: str, reason: str) -> Gap:
    return Gap(
        exchange=gap.exchange,
        symbol=gap.symbol,
        first_trade_id=gap.first_trade_id,
        last_trade_id=gap.last_trade_id,
        start_time_us=gap.start_time_us,
        end_time_us=gap.end_time_us,
        status=status,  # type: ignore[arg-type]
        reason=reason[:500],
    )
