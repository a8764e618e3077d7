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
    gone_until_us: windows that end by then and are not in the state were let go of by settings that
    kept them for a shorter time than today's.
    """

    rules: Rules
    proof: Proof
    windows: Windows
    versions: Versions
    watermark_us: int = 0
    closed_until_us: int = 0
    close_at_us: int = 0
    gone_until_us: int = 0

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
        for level in {0, self.windows.former_base}:
            for window in self.windows.levels[level].values():
                is_inside = window.open_us <= end_us and window.close_us > start_us
                if window.closed and is_inside and self.windows.holds_trades(level, window):
                    self.versions.touch(level, window)

    def prove_empty(self, from_us: int, until_us: int) -> None:
        """Note that ids prove closed base windows without trades to be empty."""
        from_us = max(from_us, self.closed_until_us - self.rules.missing_keep_us)
        until_us = min(until_us, self.closed_until_us)
        for level, open_us in self.windows.bases(from_us, until_us):
            window = self.windows.levels[level].get(open_us)
            if window is None or (window.trades is None and window.price is None):
                self._mark_empty(level, open_us, True, self._price_before(level, open_us))

    def drop(self, watermark_us: int) -> list[Window]:
        """Let go of what can't change any more; return the base windows that went."""
        keeps = self.proof.keeps if self.proof.keeps_something else None
        gone = self.windows.drop(watermark_us - self.rules.closed_keep_us, keeps)
        if self.proof.spans:
            levels = (self.windows.levels[level] for level in {0, self.windows.former_base})
            oldest_us = (min(level, default=self.closed_until_us) for level in levels)
            self.proof.drop_spans(min(oldest_us))
        return gone

    def resume(self) -> None:
        """Apply today's grace to what a state says."""
        if self.closed_until_us:
            self._closed_until(self.closed_until_us)

    def _closed_until(self, limit_us: int) -> None:
        self.closed_until_us = limit_us
        base = self.rules.timeframes[0]
        self.close_at_us = limit_us + base.duration_us + self.rules.grace_us

    def _close_without_trades(self, from_us: int, limit_us: int, by_trade: bool) -> None:
        # A proof may reach far back; what one record publishes stays bounded.
        from_us = max(from_us, limit_us - self.rules.missing_keep_us)
        for level, open_us in self.windows.bases(from_us, limit_us):
            window = self.windows.levels[level].get(open_us)
            if window is not None and window.trades is not None:
                self.versions.price = window.trades.close
                continue
            is_proven = self._mark_empty(level, open_us, by_trade, self.versions.price)
            if is_proven is None or is_proven or by_trade or not self.proof.consecutive:
                continue
            if self.proof.unproven_from_us is None:
                self.proof.unproven_from_us = open_us

    def _mark_empty(self, level: int, open_us: int, by_ids: bool, price: str | None) -> bool | None:
        """Note a base window that is proven to be empty; None: it is not over yet."""
        close_us = open_us + self.rules.timeframes[level].duration_us
        if level and close_us > min(self.closed_until_us, self.windows.begins_us[0]):
            return None
        if price is None or not self.proof.is_empty(open_us, close_us, by_ids):
            return False
        window = self.windows.ensure(level, open_us, self.closed_until_us)
        window.price = price
        self.versions.touch(level, window)
        return True

    def _price_before(self, level: int, open_us: int) -> str | None:
        windows = self.windows.levels[level]
        before = windows.get(open_us - self.rules.timeframes[level].duration_us)
        if before is None or before.standing is None:
            older = (w for w in reversed(windows.values()) if w.open_us < open_us)
            before = next((w for w in older if w.standing is not None), None)
        if before is None:
            former = None if level else self.versions.price_at_seam()
            return self.versions.price if former is None else former
        if before.price is not None and before.trades is None:
            return before.price
        return self.versions.price if before.standing is None else before.standing.close

    def _may_change(self, open_us: int, close_us: int) -> bool:
        kept_from_us = max(self.watermark_us - self.rules.closed_keep_us, self.gone_until_us)
        return close_us > kept_from_us or self.proof.keeps(open_us, close_us)
