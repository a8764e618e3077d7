"""Pages of an exchange's trades by id, and where in them a time is."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.market import DAY_US, SECOND_US
from alpha_pulse.producers.exchanges.adapter import AskMarks
from alpha_pulse.producers.exchanges.registry import exchange_of
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


@dataclass(frozen=True, slots=True)
class TradePage:
    """The trades of `[start_us, end_us)`, ascending by id, none twice over all pages.

    missing: runs of ids (first, last) before or inside the page that the exchange does not show.
    """

    start_us: int
    end_us: int
    trades: list[Trade]
    missing: tuple[tuple[int, int], ...] = ()


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
        clock_us = await self._ask_healer("the time", self._healer.clock_us)
        step_us, at_us = SECOND_US, from_us
        while True:
            marks = await self._ask_marks(newest_before, symbol, at_us)
            at_or_after = [mark for mark in marks if mark.time_us >= from_us]
            before = [mark for mark in marks if mark.time_us < from_us]
            if at_or_after:
                first = min(at_or_after, key=lambda mark: mark.trade_id)
                if before:
                    return first
                return await self._oldest_from(newest_before, symbol, from_us, first)
            if at_us >= clock_us:
                return None
            at_us = min(clock_us, from_us + step_us)
            step_us = min(step_us * 4, STEP_US_MAX)

    async def _oldest_from(
        self, newest_before: AskMarks, symbol: str, from_us: int, first: Mark
    ) -> Mark:
        # A page of trades that all are in the window: go back until one is before it.
        while True:
            marks = await self._ask_marks(newest_before, symbol, first.time_us)
            inside = [mark for mark in marks if mark.time_us >= from_us]
            earliest = min(inside, key=lambda mark: mark.trade_id, default=first)
            if earliest.trade_id >= first.trade_id:
                return first
            first = earliest
            if len(inside) < len(marks):
                return first

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
                # Where an answer ends with its window, later trades may be further on.
                if self._source.span_us_max is not None and until_us < end_us:
                    step_us = min(step_us * 4, self._source.span_us_max)
                    continue
                break
            missing = await self._fill_holes(symbol, next_id, at_us, trades)
            at_us, next_id = trades[-1].trade_time_us, int(trades[-1].trade_id) + 1
            inside = [trade for trade in trades if start_us <= trade.trade_time_us < end_us]
            # Clocks of an exchange's machines differ: ids run on a little beyond the end.
            is_over = at_us >= end_us
            yield TradePage(covered_us, end_us if is_over else at_us, inside, missing)
            covered_us = at_us
            if is_over:
                return
            if len(trades) < 100:
                step_us = min(step_us * 2, STEP_US_MAX)
        yield TradePage(covered_us, end_us, [])

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
        missing = missing_ids((int(t.trade_id) for t in trades), next_id, int(trades[-1].trade_id))
        lost: list[tuple[int, int]] = []
        for first, last in missing:
            at, until_us = first, trades[-1].trade_time_us
            for _ in range(AGREEING_ANSWERS):
                more = await self._ask_trades(Wanted(symbol, at, last, at_us, until_us))
                trades += more
                got = [int(trade.trade_id) for trade in more]
                at = max(got, default=at - 1) + 1
                if at > last:
                    break
            known = {int(trade.trade_id) for trade in trades}
            lost += missing_ids((n for n in known if first <= n <= last), first, last)
        trades.sort(key=lambda trade: int(trade.trade_id))
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
