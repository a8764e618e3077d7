"""Pages of an exchange's past: candles by time, trades by id.

A page says what it covers. An answer that is short is never taken for complete: it is asked again,
then asked on beyond, until two answers agree that there is no more.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from alpha_pulse.contracts.config import HistoryConfig, ProducerConfig
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.market import SECOND_US, Timeframe, get_timeframe
from alpha_pulse.producers.exchange import exchange_name, open_exchange
from alpha_pulse.producers.gaps import first_open, missing_ids, missing_windows
from alpha_pulse.producers.healing import Healer
from alpha_pulse.producers.history.asking import Asker, NotOfferedError
from alpha_pulse.producers.history.candle_requests import Asking, CandleSource, candle_source
from alpha_pulse.producers.history.trade_requests import (
    FIRST_FROM,
    NEWEST_BEFORE,
    RAW_COST,
    Mark,
)
from alpha_pulse.producers.limiter import Limiter
from alpha_pulse.producers.rest_trades import Wanted

# Answers that agree before candles count as absent; and how often a page is asked at all.
AGREEING_ANSWERS = 2
ANSWERS_MAX = 20
# A list of trades that is empty is asked for so often before it is believed.
EMPTY_ANSWERS_MAX = 4
# Milliseconds per request where ccxt is slower than what the exchange allows. Source: OKX, "Get
# candlesticks history": 20 requests in 2 s (ccxt: one in 110 ms).
_PACE_MS = {"okx": 100.0}
# Coinbase pages by time: the first step forward from a trade, and the longest.
STEP_US = 60 * SECOND_US
STEP_US_MAX = 7 * 86_400 * SECOND_US


@dataclass(frozen=True, slots=True)
class CandlePage:
    """The exchange's candles that open within `[start_us, end_us)`, ascending and unique.

    absent: how many of the window's candles the exchange does not have, by agreeing answers.
    offered: False where the exchange does not serve so old candles at all.
    """

    start_us: int
    end_us: int
    candles: list[Candle]
    absent: int = 0
    offered: bool = True


@dataclass(frozen=True, slots=True)
class TradePage:
    """The trades of `[start_us, end_us)`, ascending by id, none twice over all pages.

    missing: runs of ids (first, last) before or inside the page that the exchange does not show.
    """

    start_us: int
    end_us: int
    trades: list[Trade]
    missing: tuple[tuple[int, int], ...] = ()


class History:
    """One exchange's past over REST, under the limiter that everybody shares.

    client: a ccxt.pro exchange of ours (`open_exchange`) whose markets are loaded.
    """

    def __init__(
        self, name: str, client: Any, limiter: Limiter, settings: HistoryConfig | None = None
    ) -> None:
        self.name = name
        self.client = client
        self.settings = settings or HistoryConfig()
        self.healer = Healer(name, client, limiter)
        self.ask = Asker(name, client, limiter, self.settings)
        # The healer takes the limiter's slot itself.
        self._ask_healer = Asker(name, client, _Free(limiter), self.settings)
        self._ask_healer.asked = self.ask.asked

    @property
    def requests(self) -> int:
        """How many requests were sent so far, repeats included."""
        return self.ask.asked.requests

    def source(self, timeframe: str) -> tuple[CandleSource, str]:
        """Return how candles of a timeframe are asked for, and the exchange's name of it.

        Raises: NotOfferedError when the exchange has no candles of that timeframe.
        """
        source = candle_source(self.client)
        if timeframe not in source.names:
            raise NotOfferedError(
                f"expected a timeframe that {self.name} serves, one of {' '.join(source.names)}, "
                f"found {timeframe}; fetch a shorter one: longer ones are built from it"
            )
        return source, source.names[timeframe]

    async def clock_us(self) -> int:
        """Return the exchange's clock. Raises: DataFetchError when it does not answer."""
        return await self._ask_healer("the time", self.healer.clock_us)

    # --- candles ------------------------------------------------------------------------------

    async def candle_pages(
        self, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> AsyncGenerator[CandlePage, None]:
        """Yield the pages of `[start_us, end_us)` in order, as complete as the exchange has them.

        Every candle of the window is asked for, whether earlier pages were empty or not. end_us
        must not lie beyond the last closed candle (`clock_us`): an open one is no candle yet.
        Raises: NotOfferedError, DataFetchError (`Asker`); what was yielded before stands.
        """
        source, name = self.source(timeframe)
        frame = get_timeframe(timeframe)
        start_us, end_us = first_open(frame, start_us), first_open(frame, end_us)
        if source.newest_rows is not None:
            async for page in self._newest_candles(source, name, symbol, frame, start_us, end_us):
                yield page
            return
        rows = min(source.page_rows, self.settings.page_rows_max or source.page_rows)
        step_us = rows * frame.duration_us
        starts = deque(range(start_us, end_us, step_us))
        running: deque[asyncio.Task[CandlePage]] = deque()
        try:
            while starts or running:
                while starts and len(running) < self.settings.pages_ahead_max:
                    first = starts.popleft()
                    page_end = min(first + step_us, end_us)
                    asking = Asking(self.name, self.client, symbol, frame, first, page_end)
                    running.append(asyncio.create_task(self._candle_page(source, name, asking)))
                page = await running[0]
                running.popleft()
                yield page
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _candle_page(self, source: CandleSource, name: str, asking: Asking) -> CandlePage:
        # `asking` shrinks to what is still missing; what came stays.
        found: dict[int, Candle] = {}
        start_us, end_us, frame = asking.start_us, asking.end_us, asking.timeframe
        agreeing = 0
        for _ in range(ANSWERS_MAX):
            before = len(found)
            for candle in await self._ask_candles(source, name, asking):
                if start_us <= candle.open_time_us < end_us:
                    found.setdefault(candle.open_time_us, candle)
            missing = missing_windows(found, frame, start_us, end_us)
            if not missing:
                break
            agreeing = 1 if len(found) > before else agreeing + 1
            if agreeing >= AGREEING_ANSWERS:
                break
            first_us, last_us = missing[0].start_us, missing[-1].end_us
            asking = Asking(self.name, self.client, asking.symbol, frame, first_us, last_us)
        candles = [found[time_us] for time_us in sorted(found)]
        wanted = (end_us - start_us) // frame.duration_us
        return CandlePage(start_us, end_us, candles, wanted - len(candles))

    async def _ask_candles(self, source: CandleSource, name: str, asking: Asking) -> list[Candle]:
        what = f"{asking.timeframe} candles of {asking.symbol} from {asking.start_us} µs on"
        return await self.ask(what, lambda: source.ask(asking, name))

    async def _newest_candles(
        self, source: CandleSource, name: str, symbol: str, frame: Timeframe, start_us: int,
        end_us: int,
    ) -> AsyncIterator[CandlePage]:  # fmt: skip
        # Whatever is asked for, the newest candles come: one request brings all there are.
        asking = Asking(self.name, self.client, symbol, frame, frame.duration_us, end_us)
        found: dict[int, Candle] = {}
        agreeing = 0
        for _ in range(ANSWERS_MAX):
            before = len(found)
            for candle in await self._ask_candles(source, name, asking):
                found.setdefault(candle.open_time_us, candle)
            offered_us = min(found, default=end_us)
            if found and not missing_windows(found, frame, max(start_us, offered_us), end_us):
                break
            agreeing = 1 if len(found) > before else agreeing + 1
            # The newest are what is shown for certain: without them an answer is doubtful.
            has_end = end_us - frame.duration_us in found
            if agreeing >= (AGREEING_ANSWERS if has_end else EMPTY_ANSWERS_MAX):
                break
        if start_us < offered_us:
            yield CandlePage(start_us, min(offered_us, end_us), [], offered=False)
        if offered_us < end_us:
            first_us = max(start_us, offered_us)
            candles = [found[t] for t in sorted(found) if first_us <= t < end_us]
            absent = (end_us - first_us) // frame.duration_us - len(candles)
            yield CandlePage(first_us, end_us, candles, absent)

    async def listed_from_us(self, symbol: str) -> int | None:
        """Return when the symbol's history begins, None where the exchange does not tell."""
        market = self.client.market(symbol)
        created = market.get("created")
        if created:
            return int(created) * 1000
        if self.client.id not in ("binance", "binanceusdm"):
            return None
        ask = self.client.fapiPublicGetKlines if market["contract"] else self.client.publicGetKlines
        request = {"symbol": market["id"], "interval": "1m", "startTime": 0, "limit": 1}
        rows = await self.ask(f"the first candle of {symbol}", lambda: ask(request))
        return int(rows[0][0]) * 1000 if rows else None

    # --- trades -------------------------------------------------------------------------------

    async def first_trade_from(self, symbol: str, from_us: int) -> Mark | None:
        """Return the first trade that is not before a time, None when there is none yet.

        Raises: NotOfferedError where the exchange does not serve old trades by id or time.
        """
        first_from = FIRST_FROM.get(self.client.id)
        if first_from is not None:
            marks = await self._ask_marks(first_from, symbol, from_us)
            return marks[0] if marks else None
        if self.client.id not in NEWEST_BEFORE:
            raise NotOfferedError(
                f"expected trades of {symbol} from {from_us} µs on, found that {self.name} serves "
                "only the last ones; backfill its candles instead"
            )
        return await self._first_by_stepping(symbol, from_us)

    async def _ask_marks(self, request: Any, symbol: str, time_us: int) -> list[Mark]:
        what = f"trades of {symbol} around {time_us} µs"
        found: list[Mark] = []
        for _ in range(EMPTY_ANSWERS_MAX):
            found = await self.ask(what, lambda: request(self.client, symbol, time_us))
            if found:
                break
        return found

    async def _first_by_stepping(self, symbol: str, from_us: int) -> Mark | None:
        newest_before = NEWEST_BEFORE[self.client.id]
        clock_us = await self.clock_us()
        step_us, at_us = SECOND_US, from_us
        while True:
            marks = await self._ask_marks(newest_before, symbol, at_us)
            at_or_after = [mark for mark in marks if mark.time_us >= from_us]
            before = [mark for mark in marks if mark.time_us < from_us]
            if at_or_after:
                first = min(at_or_after, key=lambda mark: mark.trade_id)
                if before:
                    return first
                return await self._oldest_from(symbol, from_us, first)
            if at_us >= clock_us:
                return None
            at_us = min(clock_us, from_us + step_us)
            step_us = min(step_us * 4, STEP_US_MAX)

    async def _oldest_from(self, symbol: str, from_us: int, first: Mark) -> Mark:
        # A page of trades that all are in the window: go back until one is before it.
        while True:
            marks = await self._ask_marks(NEWEST_BEFORE[self.client.id], symbol, first.time_us)
            inside = [mark for mark in marks if mark.time_us >= from_us]
            earliest = min(inside, key=lambda mark: mark.trade_id, default=first)
            if earliest.trade_id >= first.trade_id:
                return first
            first = earliest
            if len(inside) < len(marks):
                return first

    async def trade_pages(
        self, symbol: str, start_us: int, end_us: int, first_id: int | None = None
    ) -> AsyncIterator[TradePage]:
        """Yield the trades of `[start_us, end_us)` in id order.

        first_id: go on with this id (a resumed job) instead of the window's first trade.
        Raises: NotOfferedError where the exchange serves no old trades (without a key);
        DataFetchError when it does not answer; what was yielded before stands.
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
                if self.client.id == "coinbase" and until_us < end_us:
                    step_us = min(step_us * 4, STEP_US_MAX)
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
            cost = RAW_COST.get(self.client.id)
            if cost is not None and self.client.enableRateLimit:
                await self.client.throttle(cost)
            trades = await self._ask_healer(what, lambda: self.healer.fetch(wanted))
            if self.healer.recent_only and (
                not trades or int(trades[0].trade_id) > wanted.first_id
            ):
                raise NotOfferedError(
                    f"expected {what}, found that {self.name} serves them only with an API key; "
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
        """Return whether the exchange printed no trade in `[start_us, end_us)`, by its trade list.

        None: it does not serve old trades, so nothing proves it.
        """
        try:
            first = await self.first_trade_from(symbol, start_us)
        except NotOfferedError:
            return None
        if first is None:
            return None
        return first.time_us >= end_us


@asynccontextmanager
async def open_history(
    producer: ProducerConfig, settings: HistoryConfig | None = None, share: float | None = None
) -> AsyncIterator[History]:
    """Yield the history of the exchange that a configuration names, connected, its markets loaded.

    share: of the exchange's own rate limit (default: `limit_share`); 0 knows no limit, for a replay
    exchange. Raises: ConfigError (`make_exchange`); DataFetchError when markets can't be loaded.
    """
    settings = settings or HistoryConfig()
    share = settings.limit_share if share is None else share
    async with open_exchange(producer, lambda socket, frames: None) as client:
        client.enableRateLimit = share > 0
        if share > 0:
            client.rateLimit = _PACE_MS.get(client.id, client.rateLimit) / share
            client.tokenBucket = None
            client.init_rest_rate_limiter()
        name = exchange_name(producer)
        concurrent_max = max(4, settings.pages_ahead_max)
        history = History(name, client, Limiter(name, concurrent_max=concurrent_max), settings)
        await history.ask("its markets", client.load_markets)
        yield history


class _Free(Limiter):
    """A limiter without slots, for requests that take one further in; bans count all the same."""

    def __init__(self, shared: Limiter) -> None:
        self._shared = shared

    async def __aenter__(self) -> None:
        await self._shared.allowed()

    async def __aexit__(self, *_: object) -> None:
        return None

    def obey(self, error: BaseException, client: Any) -> float:
        return self._shared.obey(error, client)
