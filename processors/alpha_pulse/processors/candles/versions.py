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
                if level == 0 and moved:
                    self._carry_price(window, value.close, touched, queue)
            touched.clear()

    def _judge(self, level: int, window: Window) -> Value | None:
        if level:
            return self.windows.judge_rollup(level, window)
        ours: Value | None = None
        if window.trades is not None:
            coverage = self.proof.coverage(window.open_us, window.close_us)
            ours = copy_value(window.trades)
            ours.coverage = coverage
        elif window.price is not None:
            ours = empty_value(window.open_us, window.close_us, window.price)
            ours.coverage = self.proof.coverage(window.open_us, window.close_us)
        return better(ours, window.exchange)

    def _carry_price(
        self, window: Window, price: str, touched: dict[int, Window], queue: list[int]
    ) -> None:
        # An empty candle repeats the close before it: when that moves, it moves too.
        if window.open_us >= self.price_open_us:
            self.price, self.price_open_us = price, window.open_us
        following = self.windows.levels[0].get(window.close_us)
        if following is not None and following.trades is None and following.price is not None:
            following.price, following.encoded = price, None
            if following.open_us not in touched:
                touched[following.open_us] = following
                heappush(queue, following.open_us)

    def _publish(
        self, level: int, window: Window, value: Value, revision: int, publish: Publish
    ) -> None:
        job = self.job
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
        for part in (window,) if level == 0 else self.windows.children(level, window):
            if part.trades is not None:
                found = copy_value(part.trades)
                found.coverage = self.proof.coverage(part.open_us, part.close_us)
                value = found if value is None else merge(value, found)
        if value is None:
            return None
        return to_candle(value, self.exchange, self.symbol, "1m", window.open_us, revision)
