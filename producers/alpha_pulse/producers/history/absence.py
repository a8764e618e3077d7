"""Why an exchange has no candles of a time: one home for the proof, for backfills and the library.

That answers agree in bringing nothing proves nothing yet. The exchange's own list of trades does;
where it shows no old ones, candles on both sides do.
"""

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.producers.history.missing import Known, Reason, Window
from alpha_pulse.producers.history.pages import History

# So many candles on each side are looked at: had the symbol begun by then, did it go on?
BESIDE_CANDLES = 200


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
        halted or no_trades, proven; not_offered, where nothing earlier is served either;
        unanswered: it traded then, so that there are candles, or nothing proves anything.

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
    return proven if await _has_candle(history, symbol, frame, after, have) else "unanswered"


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
    listed_us = await history.candles.listed_from_us(symbol)
    known = Known(listed_from_us=listed_us, closed_until_us=closed_us)
    end_us = min(end_us, closed_us)
    if listed_us is not None:
        start_us = max(start_us, frame.open_time_us(listed_us))
    if start_us >= end_us:
        return known
    pages = history.candles.pages(symbol, frame.name, start_us, end_us)
    async with aclosing(pages):
        async for page in pages:
            if not page.offered:
                return replace(known, offered_from_us=end_us)
            if page.candles:
                return known  # it has them after all
    reason = await why_absent(history, symbol, frame, Window(start_us, end_us), closed_us)
    if reason == "not_offered":
        return replace(known, offered_from_us=end_us)
    if reason == "halted":
        return replace(known, halts=(window,))
    if reason == "no_trades":
        return replace(known, silent=(window,))
    return known


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
