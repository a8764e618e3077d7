"""Pages of an exchange's trades by id, and where in them a time is."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.market import DAY_US, SECOND_US
from alpha_pulse.producers.exchanges.adapter import AskMarks
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.rows import RefusedRow
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
    """

    start_us: int
    end_us: int
    trades: list[Trade]
    missing: tuple[tuple[int, int], ...] = ()
    refused: tuple[RefusedRow, ...] = ()


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
            trades = await self._ask_trades(wanted)
            if not trades:
                # Where an answer ends with its window, later trades may be further on: the next
                # window begins where this one ended.
                if self._source.span_us_max is not None and until_us < end_us:
                    at_us = until_us - SECOND_US
                    step_us = min(step_us * 4, self._source.span_us_max)
                    continue
                break
            missing = await self._fill_holes(symbol, next_id, at_us, trades)
            at_us, next_id = trades[-1].trade_time_us, int(trades[-1].trade_id) + 1
            inside = [trade for trade in trades if start_us <= trade.trade_time_us < end_us]
            # Clocks of an exchange's machines differ: ids run on a little beyond the end.
            is_over = at_us >= end_us
            refused = self._refused(symbol) if missing else ()
            yield TradePage(covered_us, end_us if is_over else at_us, inside, missing, refused)
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

    async def _ask_trades(self, wanted: Wanted) -> list[Trade]:
        what = f"trades of {wanted.symbol} from id {wanted.first_id} on"
        for _ in range(AGREEING_ANSWERS):
            cost = self._source.by_id_cost
            if cost is not None and self._client.enableRateLimit:
                await self._client.throttle(cost)
            trades = await self._ask_healer(what, lambda: self._healer.fetch(wanted))
            if self._healer.recent_only and (
                not trades or int(trades[0].trade_id) > wanted.first_id
            ):
                raise NotOfferedError(
                    f"expected {what}, found that {self._name} serves them only with an API key; "
                    "set [producer] api_key, or backfill its candles instead"
                )
            if trades:
                return trades
        return []

    async def _fill_holes(
        self, symbol: str, next_id: int, at_us: int, trades: list[Trade]
    ) -> tuple[tuple[int, int], ...]:
        # Ids are consecutive: a hole in a page is a page that was cut, until asking again says no.
        # Each answer either brings new ids or counts towards giving the hole up.
        found = {int(trade.trade_id): trade for trade in trades}
        newest = max(found)
        lost: list[tuple[int, int]] = []
        at_id, agreeing = next_id, 0
        while holes := missing_ids(found, at_id, newest):
            first, last = holes[0]
            wanted = Wanted(symbol, first, last, at_us, found[last + 1].trade_time_us)
            more = {int(trade.trade_id): trade for trade in await self._ask_trades(wanted)}
            agreeing = 0 if more.keys() - found.keys() else agreeing + 1
            found.update(more)
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
