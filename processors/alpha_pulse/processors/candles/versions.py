"""Which values stand in each window of a stream, and what is published of them. Pure."""

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from alpha_pulse.contracts.events import Candle
from alpha_pulse.processors.candles.proof import Proof
from alpha_pulse.processors.candles.rules import Job, Publish, Rules
from alpha_pulse.processors.candles.value import Value, copy_value, empty_value, merge, to_candle
from alpha_pulse.processors.candles.windows import Window, Windows, better


@dataclass(slots=True)
class Versions:
    """Judges the windows that a record touched, and publishes those whose values changed.

    touched: per timeframe from base to week, by open time. price: the close of the newest base
    window that has one (from `price_open_us` on), which an empty candle repeats.
    """

    exchange: str
    symbol: str
    rules: Rules
    proof: Proof
    windows: Windows
    job: Job | None
    price: str | None = None
    price_open_us: int = 0
    touched: list[dict[int, Window]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.touched = [{} for _ in self.rules.timeframes]

    def touch(self, level: int, window: Window) -> None:
        """Note that a window may have changed."""
        window.encoded = None
        self.touched[level][window.open_us] = window

    @property
    def is_touched(self) -> bool:
        """Whether `settle` has something to do."""
        return any(self.touched)

    def settle(self, revision: int, publish: Publish) -> None:
        """Judge what the record touched; publish each window that changed, from base to week."""
        if self.touched[self.windows.former_base] and self.windows.begins_us[0]:
            self._carry_over_seam()
        for level, touched in enumerate(self.touched):
            if not touched:
                continue
            queue = list(touched)
            heapify(queue)
            while queue:
                window = touched[heappop(queue)]
                if not window.closed:
                    continue
                value = self._judge(level, window)
                if value is None or value == window.standing:
                    continue
                moved = window.standing is None or window.standing.close != value.close
                window.standing = value
                self.windows.changes += 1
                self._publish(level, window, value, revision, publish)
                if level + 1 < len(self.touched):
                    above = self.windows.get(level + 1, window.open_us)
                    if above is not None and above.closed:
                        self.touch(level + 1, above)
                if moved and self.windows.holds_trades(level, window):
                    self._carry_price(level, window, value.close, touched, queue)
            touched.clear()

    def _judge(self, level: int, window: Window) -> Value | None:
        if level:
            own = self._before_seam(window) if self.windows.holds_trades(level, window) else None
            return self.windows.judge_rollup(level, window, own)
        return better(self._of_trades(window, window.close_us), window.exchange)

    def _of_trades(self, window: Window, until_us: int) -> Value | None:
        ours: Value | None = None
        if window.trades is not None:
            coverage = self.proof.coverage(window.open_us, until_us)
            ours = copy_value(window.trades)
            ours.coverage = coverage
        elif window.price is not None:
            ours = empty_value(window.open_us, window.close_us, window.price)
            ours.coverage = self.proof.coverage(window.open_us, until_us)
        return ours

    def _before_seam(self, window: Window) -> Value | None:
        """Return what trades say of a window up to where a new base timeframe begins."""
        until_us = min(window.close_us, self.windows.begins_us[0])
        own = self._of_trades(window, until_us)
        if own is None and window.close_us > until_us:
            # No trade yet, as ids or heartbeats will prove of the whole window.
            first = next(self.windows.children(self.windows.former_base, window), None)
            if first is None or first.standing is None:
                return None
            own = empty_value(window.open_us, until_us, first.standing.open)
            own.coverage = self.proof.coverage(window.open_us, until_us)
        if own is not None:
            own.parts = (until_us - window.open_us) // self.rules.timeframes[0].duration_us
        return own

    def price_at_seam(self) -> str | None:
        """Return the last price before the base timeframe began, as far as the state knows it."""
        windows, seam_us = self.windows.levels[self.windows.former_base], self.windows.begins_us[0]
        price = None
        for window in windows.values():
            if window.open_us >= seam_us:
                break
            if window.trades is not None:
                price = window.trades.close
            elif window.close_us <= seam_us and window.standing is not None:
                price = window.standing.close
        return price

    def _carry_over_seam(self) -> None:
        # The same where the base timeframe began: what follows is of another level.
        price, seam_us = self.price_at_seam(), self.windows.begins_us[0]
        following = self.windows.levels[0].get(seam_us)
        if price is None:
            return
        if self.price_open_us < seam_us:
            self.price = price
        if following is not None and following.trades is None and following.price is not None:
            following.price = price
            self.touch(0, following)

    def _carry_price(
        self, level: int, window: Window, price: str, touched: dict[int, Window], queue: list[int]
    ) -> None:
        # An empty candle repeats the close before it: when that moves, it moves too.
        is_over = level == 0 or window.close_us <= self.windows.begins_us[0]
        if is_over and window.open_us >= self.price_open_us:
            self.price, self.price_open_us = price, window.open_us
        following = self.windows.levels[level].get(window.close_us)
        if following is not None and following.trades is None and following.price is not None:
            following.price, following.encoded = price, None
            if following.open_us not in touched:
                touched[following.open_us] = following
                heappush(queue, following.open_us)

    def _publish(
        self, level: int, window: Window, value: Value, revision: int, publish: Publish
    ) -> None:
        job = self.job
        if window.open_us < self.windows.begins_us[level]:
            return
        if job is not None and (window.open_us < job.start_us or window.close_us > job.end_us):
            return
        publish(
            to_candle(
                value,
                self.exchange,
                self.symbol,
                self.rules.timeframes[level].name,
                window.open_us,
                revision,
                None if job is None else job.name,
            )
        )

    def open_candle(self, watermark_us: int, revision: int) -> Candle | None:
        """Return the 1m candle that is open now, with what is known so far."""
        level = self.windows.level_of("1m")
        window = None if level is None else self.windows.get(level, watermark_us)
        if level is None or window is None or window.closed:
            return None
        value: Value | None = None
        parts = [window] if self.windows.holds_trades(level, window) else []
        if level:
            parts += self.windows.children(level, window)
        for part in parts:
            if part.trades is not None:
                found = copy_value(part.trades)
                found.coverage = self.proof.coverage(part.open_us, part.close_us)
                value = found if value is None else merge(value, found)
        if value is None:
            return None
        return to_candle(value, self.exchange, self.symbol, "1m", window.open_us, revision)
