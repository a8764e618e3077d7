"""A history job that brings the exchange's own candles, in order. Pure.

Lean, because there may be millions: nothing is collected, nothing corrected, so each candle is
published at once and merged into the longer windows above it. Those that the job covers whole are
published when their last part has come, or something later.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, Side
from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.processors.candles.value import (
    GAP,
    Value,
    absorb,
    copy_value,
    to_candle,
    value_of_exchange,
)
from alpha_pulse.processors.history.lines import CandleLines, Form


class Publish(Protocol):
    """Takes what a record causes; `revision` is what that record gives to it."""

    revision: int

    def __call__(self, event: Candle | Gap) -> None:
        """Publish one event."""
        ...


@dataclass(slots=True)
class CandleJob:
    """One job of one symbol: candles that open in `[start_us, end_us)`, ascending.

    timeframes: those that are published, ascending; timeframe: of the job's candles. next_us: what
    opens earlier came before, and is ignored. longer: the open window of each timeframe above.
    begins_us: of those that were turned on while the job ran, when their first candle opens.
    """

    exchange: str
    symbol: str
    timeframes: tuple[Timeframe, ...]
    name: str
    timeframe: str
    start_us: int
    end_us: int
    next_us: int = 0
    longer: dict[int, tuple[int, Value]] = field(default_factory=dict)
    late: int = 0
    is_finished: bool = False
    begins_us: dict[int, int] = field(default_factory=dict)
    _form: Form | None = None

    @property
    def is_touched(self) -> bool:
        """False: everything is published at once."""
        return False

    def settle(self, revision: int, publish: Publish) -> None:
        """Do nothing: everything is published at once."""

    def trade(
        self, number: int, trade_id: str, price: str, price_units: int, amount_units: int,
        side: Side, time_us: int, publish: Publish,
    ) -> bool:  # fmt: skip
        """Return True: a trade in a job of candles belongs to no window of it."""
        return True

    def heartbeat(self, heartbeat: Heartbeat, publish: Publish) -> None:
        """Do nothing: the candles are the job's time."""

    def ids(self, first: int, last: int, time_us: int, publish: Publish) -> bool:
        """Return True: a job of candles knows no ids."""
        return True

    def gap(self, gap: Gap, publish: Publish) -> None:
        """Hand on what the job says is missing, and why."""
        publish(gap)

    def exchange_candle(self, candle: Candle, publish: Publish) -> None:
        """Publish a candle, and the longer ones that it completes."""
        if candle.timeframe != self.timeframe:
            return
        open_us = candle.open_time_us
        level = self._level
        if open_us < self.next_us or level is None:
            self.late += 1
            return
        close_us = open_us + self.timeframes[level].duration_us
        self.next_us = close_us
        if open_us < self.start_us or close_us > self.end_us:
            return
        value = value_of_exchange(candle, close_us, 1)
        publish(self._as_published(candle, publish.revision))
        self._add(level + 1, open_us, close_us, value, publish)

    def finish(self, publish: Publish) -> None:
        """End the job: what is open and lies inside is published with what it has."""
        for level in range(len(self.timeframes)):
            if level in self.longer:
                self._close(level, publish)
        self.is_finished = True

    def _as_published(self, candle: Candle, revision: int) -> Candle:
        # What `to_candle` makes of its value, without going through numbers.
        empty = candle.trade_count in (None, 0) and not candle.volume.strip("0.")
        quote, buy = candle.quote_volume, candle.buy_volume
        return Candle(
            exchange=self.exchange,
            symbol=self.symbol,
            timeframe=self.timeframe,
            open_time_us=candle.open_time_us,
            open=candle.open,
            high=candle.high,
            low=candle.low,
            close=candle.close,
            volume=_shortest(candle.volume),
            quote_volume=_shortest(quote) if quote is not None else "0" if empty else None,
            buy_volume=_shortest(buy) if buy is not None else "0" if empty else None,
            trade_count=0 if empty else candle.trade_count,
            first_trade_id=candle.first_trade_id,
            last_trade_id=candle.last_trade_id,
            revision=revision,
            source="exchange",
            coverage="exchange",
            job=self.name,
        )

    def ingest(self, lines: CandleLines, revisions: Sequence[int], publish: Publish) -> None:
        """Ingest many candles as `exchange_candle` does one by one; publish the longer ones.

        The job's own timeframe is not published here: `CandleLines.our_lines` is that.
        """
        level = self._level
        assert level is not None, "asked `can_ingest` before"
        times_us, duration_us = lines.open_times_us, self.timeframes[level].duration_us
        self.next_us = times_us[-1] + duration_us
        if level + 1 == len(self.timeframes):
            return
        longer = self.timeframes[level + 1]
        parts = longer.duration_us // duration_us
        first, count = 0, len(times_us)
        while first < count:
            end, open_us = first + parts, times_us[first]
            publish.revision = revisions[first]
            is_whole = (
                end <= count
                and longer.is_open_time(open_us)
                and times_us[end - 1] == open_us + longer.duration_us - duration_us
                and not any(map(lines.is_empty, range(first, end)))
            )
            if not is_whole:
                close_us = open_us + duration_us
                value = lines.value(first, first + 1, close_us)
                self._add(level + 1, open_us, close_us, value, publish)
                first += 1
                continue
            if level + 1 in self.longer:
                self._close(level + 1, publish)  # the rest of it never came
            publish.revision = revisions[end - 1]
            self.longer[level + 1] = (
                open_us,
                lines.value(first, end, open_us + longer.duration_us),
            )
            self._close(level + 1, publish)
            first = end

    def can_ingest(self, lines: CandleLines, limit_us: int) -> bool:
        """Return whether all of these candles are new to the job and inside its window.

        limit_us: what closes later is too far ahead.
        """
        times_us, level = lines.open_times_us, self._level
        return (
            level is not None
            and times_us[0] >= max(self.next_us, self.start_us)
            and times_us[-1] + self.timeframes[level].duration_us <= min(self.end_us, limit_us)
        )

    @property
    def form(self) -> Form:
        """How the job's candles stand in the log when they are in canonical form."""
        if self._form is None:
            self._form = Form.of(self.exchange, self.symbol, self.timeframe, self.name)
        return self._form

    @property
    def _level(self) -> int | None:
        for level, timeframe in enumerate(self.timeframes):
            if timeframe.name == self.timeframe:
                return level
        return None

    def _add(self, level: int, open_us: int, close_us: int, value: Value, publish: Publish) -> None:
        if level >= len(self.timeframes):
            return
        timeframe = self.timeframes[level]
        window_us = timeframe.open_time_us(open_us)
        held = self.longer.get(level)
        if held is not None and held[0] != window_us:
            self._close(level, publish)  # the rest of it never came
            held = None
        if held is None:
            self.longer[level] = (window_us, copy_value(value))
        else:
            merged = absorb(held[1], value)
            if merged is not held[1]:
                self.longer[level] = (window_us, merged)
        if close_us == window_us + timeframe.duration_us:
            self._close(level, publish)

    def _close(self, level: int, publish: Publish) -> None:
        open_us, value = self.longer.pop(level)
        timeframe = self.timeframes[level]
        close_us = open_us + timeframe.duration_us
        if open_us < self.start_us or close_us > self.end_us:
            return  # then nothing above it lies inside either
        if open_us >= self.begins_us.get(level, 0):
            base = self.timeframes[self._level or 0]
            if value.parts < timeframe.duration_us // base.duration_us:
                value.coverage = GAP
            self._publish(level, open_us, value, publish)
        self._add(level + 1, open_us, close_us, value, publish)

    def _publish(self, level: int, open_us: int, value: Value, publish: Publish) -> None:
        publish(
            to_candle(
                value, self.exchange, self.symbol, self.timeframes[level].name, open_us,
                publish.revision, self.name,
            )
        )  # fmt: skip


def _shortest(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
