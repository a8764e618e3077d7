"""Why an exchange has no candles of a time: one home for the proof, for backfills and the library.

That answers agree in bringing nothing proves nothing yet. The exchange's own list of trades does;
where it shows no old ones, candles on both sides do.
"""

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from alpha_pulse.contracts.market import DAY_US, TIMEFRAMES, Timeframe
from alpha_pulse.producers.history.missing import Known, Reason, Window
from alpha_pulse.producers.history.pages import LOOK_BEFORE_US, History

# So many candles on each side are looked at: had the symbol begun by then, did it go on?
BESIDE_CANDLES = 200
# A symbol that is listed as trading has ended only after so long a silence.
ENDED_AFTER_US = 7 * DAY_US
# So many other symbols are asked whether the exchange itself goes on.
OTHERS_MAX = 3


async def why_absent(
    history: History, symbol: str, frame: Timeframe, gone: Window, closed_us: int,
    have: Sequence[int] = (), *, ask_trades: bool = True,
) -> Reason:  # fmt: skip
    """Return why candles are absent of which agreeing answers brought none (`candle_pages`).

    Args:
        history: of the exchange.
        symbol: the unified symbol.
        frame: the candles' timeframe.
        gone: the window without candles.
        closed_us: until when candles are closed, Unix µs.
        have: open times that are there, ascending, Unix µs, so that they need not be asked for.
        ask_trades: whether to ask for trades; without, requests are spared, and the better proof.

    Returns:
        halted or no_trades, proven; ended, where it is traded no more; not_offered, where nothing
        earlier is served either; unanswered: it traded then, so that there are candles, or nothing
        proves anything.

    Raises:
        DataFetchError: the exchange does not answer.
    """
    source, _ = history.candles.source(frame.name)
    proven: Reason = "no_trades" if source.empty_left_out else "halted"
    silent: bool | None = None
    if ask_trades:
        silent = await history.trades.no_trade_in(symbol, gone.start_us, gone.end_us)
    if silent is not None:
        return proven if silent else "unanswered"
    reach_us = BESIDE_CANDLES * frame.duration_us
    before = Window(gone.start_us - reach_us, gone.start_us)
    after = Window(gone.end_us, min(gone.end_us + reach_us, closed_us))
    if not await _has_candle(history, symbol, frame, before, have):
        return "not_offered"
    if await _has_candle(history, symbol, frame, after, have):
        return proven
    # Not by `closed_us`: a window may end before the symbol goes on.
    ended_us = await ended_from_us(history, symbol, gone.start_us)
    if ended_us is None:
        return "unanswered"
    rest = Window(gone.end_us, ended_us)
    return "unanswered" if await _has_candle(history, symbol, frame, rest, have) else "ended"


async def ended_from_us(history: History, symbol: str, from_us: int) -> int | None:
    """Return since when a symbol is traded no more: candles before, none since, others go on.

    Args:
        history: of the exchange.
        symbol: the unified symbol.
        from_us: since when it is of interest, Unix µs.

    Returns:
        The end of its last day with a candle, Unix µs; None where that proves nothing: it is
        traded, it is listed as trading and has been silent for less than a week, or nobody shows
        that the exchange itself goes on.

    Raises:
        DataFetchError: the exchange does not answer.
    """
    minute = TIMEFRAMES["1m"]
    closed_us = minute.open_time_us(await history.clock_us())
    days = await history.candles.days(symbol, from_us - LOOK_BEFORE_US, closed_us)
    if not days:
        return None
    ended_us = days[-1].end_us
    market = history.client.markets[symbol]
    if market.get("active") is not False and closed_us - ended_us < ENDED_AFTER_US:
        return None
    today = Window(max(ended_us, closed_us - DAY_US), closed_us)
    if minute.name not in history.candles.timeframes:
        return None
    if await _has_candle(history, symbol, minute, today, ()):
        return None
    recent = Window(closed_us - BESIDE_CANDLES * minute.duration_us, closed_us)
    for other in _others(history, symbol):
        if await _has_candle(history, other, minute, recent, ()):
            return ended_us
    return None


def _others(history: History, symbol: str) -> list[str]:
    # The symbols most likely to be traded at any moment, of the same kind of market.
    markets = history.client.markets
    mine = markets[symbol]
    alike = [
        name
        for name, market in markets.items()
        if name != symbol
        and market.get("active") is not False
        and market.get("type") == mine.get("type")
    ]
    rank = {base: place for place, base in enumerate(("BTC", "ETH", "SOL"))}
    alike.sort(
        key=lambda name: (
            rank.get(markets[name].get("base"), len(rank)),
            markets[name].get("quote") != mine.get("quote"),
        )
    )
    return alike[:OTHERS_MAX]


async def learn_why(
    history: History, symbol: str, frame: Timeframe, start_us: int, end_us: int
) -> Known:
    """Return what explains that a window has no candle at all, by asking no more than is needed.

    Args:
        history: of the exchange.
        symbol: the unified symbol.
        frame: the candles' timeframe.
        start_us: the window's beginning, Unix µs.
        end_us: its end, excluded.

    Raises:
        DataFetchError: the exchange does not answer.
    """
    window = Window(start_us, end_us)
    closed_us = frame.open_time_us(await history.clock_us())
    listed_us = await history.listed_from_us(symbol, start_us, closed_us)
    known = Known(listed_from_us=listed_us, closed_until_us=closed_us)
    end_us = min(end_us, closed_us)
    if listed_us is not None:
        start_us = max(start_us, frame.open_time_us(listed_us))
    if start_us >= end_us:
        return known
    refused: list[Window] = []
    pages = history.candles.pages(symbol, frame.name, start_us, end_us)
    async with aclosing(pages):
        async for page in pages:
            if not page.offered:
                return replace(known, offered_from_us=end_us)
            if page.candles:
                return known  # it has them after all
            opens = page.refused_us(frame)
            refused += [Window(open_us, open_us + frame.duration_us) for open_us in opens]
    if refused:
        return replace(known, refused=refused)
    reason = await why_absent(history, symbol, frame, Window(start_us, end_us), closed_us)
    if reason == "not_offered":
        return replace(known, offered_from_us=end_us)
    if reason == "halted":
        return replace(known, halts=(window,))
    if reason == "no_trades":
        return replace(known, silent=(window,))
    return replace(known, ended=(window,)) if reason == "ended" else known


async def _has_candle(
    history: History, symbol: str, frame: Timeframe, window: Window, have: Sequence[int]
) -> bool:
    place = bisect_left(have, window.start_us)
    if place < len(have) and have[place] < window.end_us:
        return True
    if window.start_us >= window.end_us:
        return False
    pages = history.candles.pages(symbol, frame.name, window.start_us, window.end_us)
    async with aclosing(pages):
        async for page in pages:
            if page.candles:
                return True
    return False
