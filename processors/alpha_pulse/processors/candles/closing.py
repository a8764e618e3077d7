"""How far a stream's windows are closed, and what that says of minutes without trades. Pure."""

from dataclasses import dataclass

from alpha_pulse.processors.candles.proof import Proof
from alpha_pulse.processors.candles.rules import Rules
from alpha_pulse.processors.candles.versions import Versions
from alpha_pulse.processors.candles.windows import Window, Windows


@dataclass(slots=True)
class Closing:
    """Closes the windows that the watermark passed by the grace, and knows which may still change.

    watermark_us: the newest time of an event. closed_until_us: base windows that end by then are
    closed; 0 before the first event. close_at_us: the watermark that closes the next one.
    """

    rules: Rules
    proof: Proof
    windows: Windows
    versions: Versions
    watermark_us: int = 0
    closed_until_us: int = 0
    close_at_us: int = 0

    def begin(self, time_us: int) -> None:
        """Let what ended before the first event count as closed."""
        if not self.closed_until_us:
            self._closed_until(self.rules.timeframes[0].open_time_us(time_us))

    def move(self, time_us: int) -> bool:
        """Move the watermark, never back; return whether there is something to `close`."""
        if time_us <= self.watermark_us:
            return False
        self.watermark_us = time_us
        return time_us >= self.close_at_us

    def follow(self, close_at_us: int) -> None:
        """Catch up with closing that was done elsewhere; `close_at_us` is where it stands."""
        base = self.rules.timeframes[0]
        self._closed_until(close_at_us - self.rules.grace_us - base.duration_us)

    def close(self, by_trade: bool) -> None:
        """Close every window that the watermark passed by the grace.

        by_trade: the next trade in order moved it, so that ids prove what lies before.
        """
        from_us = self.closed_until_us
        limit_us = self.rules.timeframes[0].open_time_us(self.watermark_us - self.rules.grace_us)
        self._closed_until(limit_us)
        for level, timeframe in enumerate(self.rules.timeframes):
            if timeframe.open_time_us(limit_us) <= from_us:
                break  # nothing of this length ended, and nothing longer
            for window in self.windows.levels[level].values():
                if not window.closed and window.close_us <= limit_us:
                    window.closed = True
                    self.versions.touch(level, window)
        if self.proof.proven_from_us is not None:
            self._close_without_trades(from_us, limit_us, by_trade)

    def window(self, level: int, open_us: int) -> Window | None:
        """Return a window, made when it is missing; None when it is too late to change it."""
        found = self.windows.levels[level].get(open_us)
        if found is None:
            close_us = open_us + self.rules.timeframes[level].duration_us
            if close_us <= self.closed_until_us and not self._may_change(open_us, close_us):
                return None
            found = self.windows.ensure(level, open_us, self.closed_until_us)
        return found

    def touch(self, start_us: int, end_us: int) -> None:
        """Note that closed base windows may have changed, both ends included."""
        if start_us >= self.closed_until_us:
            return
        for window in self.windows.levels[0].values():
            if window.closed and window.open_us <= end_us and window.close_us > start_us:
                self.versions.touch(0, window)

    def prove_empty(self, from_us: int, until_us: int) -> None:
        """Note that ids prove closed base windows without trades to be empty."""
        timeframe = self.rules.timeframes[0]
        from_us = max(from_us, self.closed_until_us - self.rules.missing_keep_us)
        until_us = min(until_us, self.closed_until_us)
        for open_us in range(timeframe.open_time_us(from_us), until_us, timeframe.duration_us):
            window = self.windows.levels[0].get(open_us)
            if window is None or (window.trades is None and window.price is None):
                self._mark_empty(open_us, True, self._price_before(open_us))

    def drop(self, watermark_us: int) -> list[Window]:
        """Let go of what can't change any more; return the base windows that went."""
        keeps = self.proof.keeps if self.proof.keeps_something else None
        gone = self.windows.drop(watermark_us - self.rules.closed_keep_us, keeps)
        if self.proof.spans:
            self.proof.drop_spans(min(self.windows.levels[0], default=self.closed_until_us))
        return gone

    def _closed_until(self, limit_us: int) -> None:
        self.closed_until_us = limit_us
        base = self.rules.timeframes[0]
        self.close_at_us = limit_us + base.duration_us + self.rules.grace_us

    def _close_without_trades(self, from_us: int, limit_us: int, by_trade: bool) -> None:
        base = self.rules.timeframes[0]
        level = self.windows.levels[0]
        # A proof may reach far back; what one record publishes stays bounded.
        from_us = max(from_us, limit_us - self.rules.missing_keep_us)
        for open_us in range(base.open_time_us(from_us), limit_us, base.duration_us):
            window = level.get(open_us)
            if window is not None and window.trades is not None:
                self.versions.price = window.trades.close
                continue
            is_proven = self._mark_empty(open_us, by_trade, self.versions.price)
            if is_proven or by_trade or not self.proof.consecutive:
                continue
            if self.proof.unproven_from_us is None:
                self.proof.unproven_from_us = open_us

    def _mark_empty(self, open_us: int, by_ids: bool, price: str | None) -> bool:
        close_us = open_us + self.rules.timeframes[0].duration_us
        if price is None or not self.proof.is_empty(open_us, close_us, by_ids):
            return False
        window = self.windows.ensure(0, open_us, self.closed_until_us)
        window.price = price
        self.versions.touch(0, window)
        return True

    def _price_before(self, open_us: int) -> str | None:
        windows = self.windows.levels[0]
        before = windows.get(open_us - self.rules.timeframes[0].duration_us)
        if before is None or before.standing is None:
            priced = [w for w in windows if w < open_us and windows[w].standing is not None]
            before = windows[max(priced)] if priced else None
        if before is None:
            return self.versions.price
        if before.price is not None and before.trades is None:
            return before.price
        return self.versions.price if before.standing is None else before.standing.close

    def _may_change(self, open_us: int, close_us: int) -> bool:
        return close_us > self.watermark_us - self.rules.closed_keep_us or self.proof.keeps(
            open_us, close_us
        )
