"""Continuity of one symbol's trades: duplicates, order, holes; pure.

Every trade, from the stream or from REST, is added to a tracker, which returns what may be
published now, in id order. Where ids are consecutive, a jump is a hole: later trades are held back
until the missing ones are added too, or until `give_up` says that they will not come in time.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from alpha_pulse.contracts.events import Gap, Trade

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
        self._held: dict[int, Trade] = {}
        self._held_ids: list[int] = []  # ascending
        self._since_us = 0
        self._suspect: Trade | None = None

    @property
    def held(self) -> int:
        """How many trades wait behind a hole."""
        return len(self._held)

    def add(self, trade: Trade, now_us: int) -> list[Trade | Gap]:
        """Add a trade of the stream or of REST.

        Args:
            trade: any trade of the symbol.
            now_us: the caller's monotonic clock.

        Returns:
            What may be published now, in id order; [] when the trade has to wait.

        Raises:
            ValueError: the id is no integer.
        """
        trade_id = int(trade.trade_id)
        if self.last_id is None or trade_id == self.last_id + 1:
            self.last_id = trade_id
            self.last_time_us = trade.trade_time_us
            if not self._held:
                return [trade]
            return [trade, *self._release()]
        if trade_id <= self.last_id:
            return self._add_late(trade_id, trade)
        if trade_id in self._held:
            self.duplicates += 1
            return []
        if trade_id - self.last_id > ID_JUMP_MAX and not self._confirmed(trade_id, trade):
            return []
        self._hold(trade_id, trade, now_us)
        return []

    def holes(self) -> list[Hole]:
        """Return the missing ranges below the trades that are held back, in id order."""
        found: list[Hole] = []
        if self.last_id is None:
            return found
        expected = self.last_id + 1
        for held_id in self._held_ids:
            if held_id > expected:
                until_us = self._held[held_id].trade_time_us
                found.append(Hole(expected, held_id - 1, self._since_us, until_us))
            expected = held_id + 1
        return found

    def must_give_up(self, now_us: int) -> bool:
        """Return whether the first hole is to be given up.

        Args:
            now_us: the caller's monotonic clock.
        """
        return bool(self._held) and (
            len(self._held) > self._trades_max or now_us - self._since_us >= self._us_max
        )

    def give_up(self, now_us: int, reason: str, *, for_good: bool = False) -> list[Gap | Trade]:
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
            start_time_us=min(self.last_time_us or after.trade_time_us, after.trade_time_us),
            end_time_us=after.trade_time_us,
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

    def _add_late(self, trade_id: int, trade: Trade) -> list[Trade | Gap]:
        for lost in self.given_up:
            if trade_id in lost.missing:
                lost.missing.discard(trade_id)
                if lost.missing:
                    return [trade]
                self.given_up.remove(lost)
                return [trade, _changed(lost.gap, "filled", "the missing trades were found")]
        self.duplicates += 1
        return []

    def _confirmed(self, trade_id: int, trade: Trade) -> bool:
        suspect, self._suspect = self._suspect, trade
        if suspect is None:
            return False
        distance = trade_id - int(suspect.trade_id)
        if distance == 0 or abs(distance) > _CONFIRM_WITHIN:
            return False
        self._suspect = None
        self._hold(int(suspect.trade_id), suspect, self._since_us)
        return True

    def _hold(self, trade_id: int, trade: Trade, now_us: int) -> None:
        if not self._held:
            self._since_us = now_us
        self._held[trade_id] = trade
        if self._held_ids and trade_id < self._held_ids[-1]:
            insort(self._held_ids, trade_id)
        else:
            self._held_ids.append(trade_id)

    def _release(self) -> list[Trade]:
        assert self.last_id is not None
        released: list[Trade] = []
        expected = self.last_id + 1
        for held_id in self._held_ids:
            if held_id != expected:
                break
            released.append(self._held.pop(held_id))
            expected += 1
        if released:
            del self._held_ids[: len(released)]
            self.last_id = expected - 1
            self.last_time_us = released[-1].trade_time_us
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
