"""Recordings as markets: one that ends, and one that goes round for ever."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, count

from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.replay.markets.market import Instrument, RecordedCandle, TradeRow
from alpha_pulse.replay.markets.recording import Recording

LAPS_CACHED_MAX = 3


class RecordedMarket:
    """A recording as a market: ends where the recording ends."""

    def __init__(self, recording: Recording) -> None:
        self._rows = recording.trades
        self._ids = [row.trade_id for row in recording.trades]
        # A trade is printed after its predecessors, whatever its clock says.
        self._printed_us = list(accumulate((r.trade_time_us for r in recording.trades), max))
        self._candles = {candle.open_time_us: candle for candle in recording.candles}
        self._native_ids = recording.native_ids
        self._late = _late_minutes(recording.trades, self._printed_us)
        self.instrument = Instrument(
            recording.symbol,
            price_digits=max(_digits(row.price) for row in recording.trades),
            amount_digits=max(_digits(row.amount) for row in recording.trades),
        )
        self.begin_us = recording.begin_us
        self.end_us: int | None = recording.end_us
        self.complete_from_us = min(
            [_next_minute(recording.trades[0].trade_time_us), *list(self._candles)[:1]]
        )

    def position_at(self, time_us: int) -> int:
        """Return how many trades the exchange printed before a time."""
        return bisect_left(self._printed_us, time_us)

    def position_of(self, trade_id: int) -> int:
        """Return the position of a trade id, or of the next higher id."""
        return bisect_left(self._ids, trade_id)

    def rows(self, first: int, end: int) -> Sequence[TradeRow]:
        """Return the trades at positions [first, end)."""
        return self._rows[max(first, 0) : max(end, 0)]

    def settled_us(self, close_us: int) -> int:
        """Return from when on all trades earlier than a minute's close have been printed."""
        return max(close_us, self._late.get(close_us, 0))

    def own_candle(self, open_time_us: int) -> RecordedCandle | None:
        """Return the exchange's own candle where the recording has it."""
        return self._candles.get(open_time_us)

    def native_id(self, row: TradeRow) -> str | None:
        """Return the recorded id where ids are not numbers."""
        if not self._native_ids:
            return None
        return self._native_ids[self.position_of(row.trade_id)]


class LoopedMarket:
    """A recording without end: lap after lap, ids and times running on.

    Every second lap is played backwards in price, so that no seam has a price jump; the time
    between two trades stays the recorded one. Candles come from the trades alone.
    """

    def __init__(self, recording: Recording, begin_us: int | None = None) -> None:
        rows = recording.trades
        printed_us = list(accumulate((row.trade_time_us for row in rows), max))
        self._rows = rows
        self._offsets_us = [time_us - printed_us[0] for time_us in printed_us]
        # One more than the recording spans: the next lap begins a moment later.
        self._lap_us = self._offsets_us[-1] + 1_000
        self._first_id = rows[0].trade_id
        self._laps: dict[int, list[TradeRow]] = {}
        self.instrument = RecordedMarket(recording).instrument
        self.begin_us = printed_us[0] if begin_us is None else begin_us
        self.end_us: int | None = None
        self.complete_from_us = _next_minute(self.begin_us)

    def position_at(self, time_us: int) -> int:
        """Return how many trades the exchange printed before a time."""
        if time_us <= self.begin_us:
            return 0
        lap, offset_us = divmod(time_us - self.begin_us, self._lap_us)
        return lap * len(self._rows) + bisect_left(self._offsets_us, offset_us)

    def position_of(self, trade_id: int) -> int:
        """Return the position of a trade id."""
        return max(0, trade_id - self._first_id)

    def rows(self, first: int, end: int) -> Sequence[TradeRow]:
        """Return the trades at positions [first, end)."""
        first = max(first, 0)
        found: list[TradeRow] = []
        while first < end:
            lap, place = divmod(first, len(self._rows))
            part = self._lap(lap)[place : place + end - first]
            if not found and len(part) == end - first:
                return part
            found.extend(part)
            first += len(part)
        return found

    def _lap(self, lap: int) -> list[TradeRow]:
        made = self._laps.get(lap)
        if made is None:
            begin_us = self.begin_us + lap * self._lap_us
            first_id = self._first_id + lap * len(self._rows)
            rows = self._rows if lap % 2 == 0 else reversed(self._rows)
            made = [
                TradeRow(trade_id, begin_us + offset_us, price, amount, side)
                for trade_id, offset_us, (_, _, price, amount, side) in zip(
                    count(first_id), self._offsets_us, rows, strict=False
                )
            ]
            self._laps[lap] = made
            if len(self._laps) > LAPS_CACHED_MAX:
                self._laps.pop(min(self._laps))
        return made

    def settled_us(self, close_us: int) -> int:
        """Return the close: times never step back here."""
        return close_us

    def own_candle(self, open_time_us: int) -> RecordedCandle | None:
        """Return None: a lap does not begin on a minute."""
        return None

    def native_id(self, row: TradeRow) -> str | None:
        """Return None: ids are numbers here."""
        return None


def _next_minute(time_us: int) -> int:
    return -(-time_us // MINUTE_US) * MINUTE_US


def _digits(text: str) -> int:
    # Recorded text may carry zeros that say nothing about the tick: 61837.63000000.
    return len(re.sub(r"0+\Z", "", text.partition(".")[2]))


def _late_minutes(rows: Sequence[TradeRow], printed_us: Sequence[int]) -> dict[int, int]:
    # close of a minute -> the time after which its last late trade was printed
    late: dict[int, int] = {}
    for row, at_us in zip(rows, printed_us, strict=True):
        close_us = row.trade_time_us - row.trade_time_us % MINUTE_US + MINUTE_US
        if at_us >= close_us:
            late[close_us] = max(late.get(close_us, 0), at_us + 1)
    return late
