"""Pages of an exchange's trades by id, and where in them a time is."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from alpha_pulse.contracts.events import Ids, Trade
from alpha_pulse.contracts.market import DAY_US, SECOND_US
from alpha_pulse.producers.exchanges.adapter import AskMarks
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.rows import RefusedRow
from alpha_pulse.producers.exchanges.tick import Numbered
from alpha_pulse.producers.exchanges.trades import Mark, Wanted
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.history.asking import Asker, NotOfferedError
from alpha_pulse.producers.history.candle_pages import AGREEING_ANSWERS
from alpha_pulse.producers.history.missing import missing_ids

# A list of trades that is empty is asked for so often before it is believed.
EMPTY_ANSWERS_MAX = 4
# The first step forward in time from a trade, and the longest.
STEP_US = 60 * SECOND_US
STEP_US_MAX = 7 * DAY_US
# A stretch with the first trade in it is halved until it is so short.
HALVED_US_MIN = SECOND_US


@dataclass(frozen=True, slots=True)
class TradePage:
    """The trades of `[start_us, end_us)`, ascending by id, none twice over all pages.

    missing: runs of ids (first, last) before or inside the page that the exchange does not show.
    refused: rows that are no trades; their ids are among the missing ones.
    no_trades: ids before or inside it that the exchange proves to belong to no trade, ascending.
    """

    start_us: int
    end_us: int
    trades: list[Trade]
    missing: tuple[tuple[int, int], ...] = ()
    refused: tuple[RefusedRow, ...] = ()
    no_trades: tuple[Ids, ...] = ()


def in_id_order(page: TradePage) -> list[Numbered]:
    """Return a page's trades and ids of none, ascending."""
    if not page.no_trades:
        return [*page.trades]
    return sorted([*page.trades, *page.no_trades], key=_first_id)


class TradePages:
    """One exchange's trades. ask: under the limiter; ask_healer: for the healer's own requests."""

    def __init__(self, ask: Asker, ask_healer: Asker, healer: Healer) -> None:
        self._ask = ask
        self._ask_healer = ask_healer
        self._healer = healer
        self._name, self._client = ask.name, ask.client
        self._source = exchange_of(ask.client.id).trades

    async def first_trade_from(self, symbol: str, from_us: int) -> Mark | None:
        """Return the first trade that is not before a time, None when there is none yet.

        Args:
            symbol: the unified symbol.
            from_us: the time, Unix µs.

        Raises:
            NotOfferedError: the exchange does not serve old trades by id or time.
            DataFetchError: it does not answer.
        """
        first_from, newest_before = self._source.first_from, self._source.newest_before
        if first_from is not None:
            marks = await self._ask_marks(first_from, symbol, from_us)
            return marks[0] if marks else None
        if newest_before is None:
            raise NotOfferedError(
                f"expected trades of {symbol} from {from_us} µs on, found that {self._name} serves "
                "only the last ones; backfill its candles instead"
            )
        return await self._first_by_stepping(newest_before, symbol, from_us)

    async def _ask_marks(self, request: AskMarks, symbol: str, time_us: int) -> list[Mark]:
        what = f"trades of {symbol} around {time_us} µs"
        found: list[Mark] = []
        for _ in range(EMPTY_ANSWERS_MAX):
            found = await self._ask(what, lambda: request(self._client, symbol, time_us))
            if found:
                break
        return found

    async def _first_by_stepping(
        self, newest_before: AskMarks, symbol: str, from_us: int
    ) -> Mark | None:
        # Steps forward until a page holds a trade that is not before the time. No step is longer
        # than what a page looks back, so that the pages leave nothing out between them.
        clock_us = await self._ask_healer("the time", self._healer.clock_us)
        step_us_max = min(self._source.look_back_us or STEP_US_MAX, STEP_US_MAX)
        step_us, at_us, empty_us = SECOND_US, from_us, from_us
        while True:
            marks = await self._ask_marks(newest_before, symbol, at_us)
            first = _first_from(marks, from_us)
            if first is not None:
                if _holds_before(marks, from_us):
                    return first
                return await self._oldest_from(newest_before, symbol, from_us, empty_us, first)
            if at_us >= clock_us:
                return None
            empty_us, at_us = at_us, min(clock_us, at_us + step_us)
            step_us = min(step_us * 16, step_us_max)

    async def _oldest_from(
        self, newest_before: AskMarks, symbol: str, from_us: int, empty_us: int, first: Mark
    ) -> Mark:
        # A page of trades that all are in the window: the first one is between `empty_us`, before
        # which there is none, and the page's oldest. One answer goes back a page, the next one
        # halves the stretch, until no id is lower.
        while True:
            # Trades of the same moment may have lower ids yet.
            marks = await self._ask_marks(newest_before, symbol, first.time_us + 1)
            earlier = _first_from(marks, from_us)
            if earlier is None or earlier.trade_id >= first.trade_id:
                return first
            first = earlier
            if _holds_before(marks, from_us):
                return first
            if first.time_us - empty_us <= HALVED_US_MIN:
                continue
            middle_us = (empty_us + first.time_us) // 2
            marks = await self._ask_marks(newest_before, symbol, middle_us)
            earlier = _first_from(marks, from_us)
            if earlier is None or earlier.trade_id >= first.trade_id:
                empty_us = middle_us
            elif _holds_before(marks, from_us):
                return earlier
            else:
                first = earlier

    async def pages(
        self, symbol: str, start_us: int, end_us: int, first_id: int | None = None
    ) -> AsyncIterator[TradePage]:
        """Yield the trades of `[start_us, end_us)` in id order.

        Args:
            symbol: the unified symbol.
            start_us: the window's beginning, Unix µs.
            end_us: its end, excluded.
            first_id: go on with this id (a resumed job) instead of the window's first trade.

        Raises:
            NotOfferedError: the exchange serves no old trades, or none without a key.
            DataFetchError: it does not answer; what was yielded before stands.
        """
        first = await self.first_trade_from(symbol, start_us)
        if first is None or first.time_us >= end_us:
            yield TradePage(start_us, end_us, [])
            return
        next_id, at_us = max(first.trade_id, first_id or 0), first.time_us
        covered_us, step_us = start_us, STEP_US
        while True:
            until_us = min(at_us + step_us, end_us + SECOND_US)
            wanted = Wanted(symbol, next_id, None, at_us, until_us)
            found = await self._ask_trades(wanted)
            trades = [one for one in found if isinstance(one, Trade)]
            if not trades:
                # Where an answer ends with its window, later trades may be further on: the next
                # window begins where this one ended.
                if self._source.span_us_max is not None and until_us < end_us:
                    at_us = until_us - SECOND_US
                    step_us = min(step_us * 4, self._source.span_us_max)
                    continue
                break
            none = [one for one in found if isinstance(one, Ids)]
            missing = await self._fill_holes(symbol, next_id, at_us, trades, none)
            no_trades = _no_trades_until(end_us, sorted([*trades, *none], key=_first_id))
            at_us, next_id = trades[-1].trade_time_us, int(trades[-1].trade_id) + 1
            inside = [trade for trade in trades if start_us <= trade.trade_time_us < end_us]
            # Clocks of an exchange's machines differ: ids run on a little beyond the end.
            is_over = at_us >= end_us
            refused = self._refused(symbol) if missing else ()
            covers_us = end_us if is_over else at_us
            yield TradePage(covered_us, covers_us, inside, missing, refused, no_trades)
            covered_us = at_us
            if is_over:
                return
            if len(trades) < 100:
                step_us = min(step_us * 2, STEP_US_MAX)
        yield TradePage(covered_us, end_us, [])

    def _refused(self, symbol: str) -> tuple[RefusedRow, ...]:
        # Rows are asked for more than once: each is told once.
        mine = [row for row in self._healer.refused if row.error.symbol == symbol]
        for row in mine:
            self._healer.refused.remove(row)
        return tuple({row.payload: row for row in mine}.values())

    async def _ask_trades(self, wanted: Wanted) -> list[Numbered]:
        what = f"trades of {wanted.symbol} from id {wanted.first_id} on"
        for _ in range(AGREEING_ANSWERS):
            cost = self._source.by_id_cost
            if cost is not None and self._client.enableRateLimit:
                await self._client.throttle(cost)
            trades = await self._ask_healer(what, lambda: self._healer.fetch(wanted))
            if self._healer.recent_only and (not trades or _first_id(trades[0]) > wanted.first_id):
                raise NotOfferedError(
                    f"expected {what}, found that {self._name} serves them only with an API key; "
                    "set [producer] api_key, or backfill its candles instead"
                )
            if trades:
                return trades
        return []

    async def _fill_holes(
        self, symbol: str, next_id: int, at_us: int, trades: list[Trade], none: list[Ids]
    ) -> tuple[tuple[int, int], ...]:
        # Ids are consecutive: a hole in a page is a page that was cut, until asking again says no.
        # Each answer either brings new ids or counts towards giving the hole up.
        found = {int(trade.trade_id): trade for trade in trades}
        newest = max(found)
        lost: list[tuple[int, int]] = []
        at_id, agreeing = next_id, 0
        known = {*found, *_ids_of(none)}
        while holes := missing_ids(known, at_id, newest):
            first, last = holes[0]
            after = found[min(number for number in found if number > last)]
            count = len(known)
            for one in await self._ask_trades(
                Wanted(symbol, first, last, at_us, after.trade_time_us)
            ):
                if isinstance(one, Trade):
                    found[int(one.trade_id)] = one
                else:
                    none.append(one)
            known.update(found, _ids_of(none))
            agreeing = 0 if len(known) > count else agreeing + 1
            if agreeing >= AGREEING_ANSWERS:
                lost.append((first, last))
                at_id, agreeing = last + 1, 0
        trades[:] = [found[trade_id] for trade_id in sorted(found)]
        return tuple(lost)

    async def no_trade_in(self, symbol: str, start_us: int, end_us: int) -> bool | None:
        """Return whether the exchange printed no trade in a window, by its list of trades.

        Args:
            symbol: the unified symbol.
            start_us: the window's beginning, Unix µs.
            end_us: its end, excluded.

        Returns:
            None where it does not serve old trades, so that nothing proves it.

        Raises:
            DataFetchError: the exchange does not answer.
        """
        try:
            first = await self.first_trade_from(symbol, start_us)
        except NotOfferedError:
            return None
        if first is None:
            return None
        return first.time_us >= end_us


def _first_from(marks: Iterable[Mark], from_us: int) -> Mark | None:
    inside = (mark for mark in marks if mark.time_us >= from_us)
    return min(inside, key=lambda mark: mark.trade_id, default=None)


def _holds_before(marks: Iterable[Mark], from_us: int) -> bool:
    # A page reaches back over the time: nothing between is left out.
    return any(mark.time_us < from_us for mark in marks)


def _ids_of(runs: Iterable[Ids]) -> set[int]:
    return {
        number
        for run in runs
        for number in range(int(run.first_trade_id), int(run.last_trade_id) + 1)
    }


def _first_id(numbered: Numbered) -> int:
    return int(numbered.trade_id if isinstance(numbered, Trade) else numbered.first_trade_id)


def _no_trades_until(end_us: int, found: list[Numbered]) -> tuple[Ids, ...]:
    # Those behind the first trade after the window are not this window's; those right before it
    # have its time.
    kept: list[Ids] = []
    for one in found:
        if isinstance(one, Ids):
            kept.append(replace(one, time_us=min(one.time_us, end_us - 1)))
        elif one.trade_time_us >= end_us:
            break
    return tuple(kept)
