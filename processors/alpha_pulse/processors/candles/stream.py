"""One stream of one symbol (live, or one history job): trades in, versions of candles out.

Pure: time is what the events say. Each record changes what it must; then `settle` judges the
windows that were touched and publishes those whose values changed, each at most once.
"""

from dataclasses import dataclass

from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, Side
from alpha_pulse.contracts.market import ids_are_consecutive
from alpha_pulse.processors.candles.closing import Closing
from alpha_pulse.processors.candles.order import Order
from alpha_pulse.processors.candles.proof import Proof
from alpha_pulse.processors.candles.rules import Job, Publish, Rules
from alpha_pulse.processors.candles.value import (
    Rank,
    Value,
    add_trade,
    value_of_exchange,
    value_of_trade,
)
from alpha_pulse.processors.candles.versions import Versions
from alpha_pulse.processors.candles.windows import Windows
from alpha_pulse.processors.compiled.rows import closed_row
from alpha_pulse.processors.wire.canonical import start_of_trades


@dataclass(slots=True)
class Stream:
    """State of one stream.

    For the hot loop (`hot_trades`), which writes here too: `value` is of the newest base window,
    which ends at `value_close_us` (0: the next trade has to go the long way); `start` is how every
    plain trade begins.
    """

    exchange: str
    symbol: str
    rules: Rules
    proof: Proof
    windows: Windows
    versions: Versions
    closing: Closing
    order: Order
    job: Job | None = None
    late: int = 0
    is_finished: bool = False
    value: Value | None = None
    value_open_us: int = 0
    start: bytes = b""
    value_close_us: int = 0

    @classmethod
    def of(
        cls, exchange: str, symbol: str, rules: Rules, proof: Proof, windows: Windows,
        job: Job | None,
    ) -> "Stream":  # fmt: skip
        """Return a stream of which proof and windows are known."""
        versions = Versions(exchange, symbol, rules, proof, windows, job)
        closing = Closing(rules, proof, windows, versions)
        order = Order(exchange, symbol, proof, closing, job)
        stream = cls(exchange, symbol, rules, proof, windows, versions, closing, order, job)
        stream.start = start_of_trades(exchange, symbol)
        return stream

    @classmethod
    def new(cls, exchange: str, symbol: str, rules: Rules, job: Job | None = None) -> "Stream":
        """Return the stream of a symbol of which nothing is known yet."""
        proof, windows = Proof(ids_are_consecutive(exchange)), Windows(rules.timeframes)
        stream = cls.of(exchange, symbol, rules, proof, windows, job)
        if job is not None:
            # The job promises to bring everything between its start and its end.
            stream.proof.followed_from_us = job.start_us
            stream.proof.live_from_us = job.start_us
            stream.proof.state = "live"
            stream.windows.promised_from_us = job.start_us
            stream.closing.begin(job.start_us)
        return stream

    # --- what arrives -------------------------------------------------------------------------

    def trade(
        self, number: int, trade_id: str, price: str, price_units: int, amount_units: int,
        side: Side, time_us: int, publish: Publish,
    ) -> bool:  # fmt: skip
        """Take in a trade; return False when it is a duplicate, which changes nothing.

        number: the id's number where ids are consecutive, else ignored.
        """
        rank = self.order.take(number, trade_id, time_us, publish)
        if rank is None:
            return False
        self.closing.begin(time_us)
        if self.proof.followed_from_us is None:
            self.proof.followed_from_us = time_us + 1
        self._apply(rank, trade_id, price, price_units, amount_units, side, time_us)
        if self.closing.move(time_us):
            self._close(True, publish)
        return True

    @property
    def is_plain(self) -> bool:
        """Whether the next trade in order only adds to the newest window, or opens the next."""
        return (
            self.proof.consecutive
            and self.proof.unproven_from_us is None
            and self.value is not None
            and self.value_close_us > 0
        )

    @property
    def closes_plainly(self) -> bool:
        """Whether the next base window, if trades end it, is contiguous and stands for itself."""
        proof = self.proof
        return (
            not proof.missing.ranges
            and proof.unproven_from_us is None
            and not any(span.kind == "gap" for span in proof.spans)
            and proof.followed_from_us is not None
            and proof.followed_from_us <= self.closing.closed_until_us
            and proof.proven_from_us is not None
            and proof.proven_from_us < self.closing.closed_until_us
        )

    def take_closed(self, rows: list[bytes], close_at_us: int) -> None:
        """Take over windows that the hot loop closed, in their order."""
        for row in rows:
            level, at_us, open_us, close = closed_row(row)
            if level == 0:
                window = self.windows.ensure(0, open_us, self.closing.closed_until_us)
                self.versions.price, self.versions.price_open_us = close, open_us
            else:
                window = self.windows.levels[level][open_us]
            window.close_as(row)
        self.closing.follow(close_at_us)
        self._drop(at_us)

    def put_newest(self, open_us: int, value: Value) -> None:
        """Take over what plain trades made of the newest window, or of the one that they opened."""
        window = self.windows.ensure(0, open_us, self.closing.closed_until_us)
        window.trades = self.value = value
        self.value_open_us, self.value_close_us = window.open_us, window.close_us

    def follow_plain(self, last_id: int, last_us: int, watermark_us: int) -> None:
        """Take over how far plain trades came."""
        self.order.follow(last_id, last_us)
        self.closing.watermark_us = watermark_us

    def close_by_trade(self, publish: Publish) -> None:
        """Close what the watermark passed, moved by the next trade in order."""
        self._close(True, publish)

    def heartbeat(self, heartbeat: Heartbeat, publish: Publish) -> None:
        """Take in how far the log is complete, and the state of the stream."""
        until_us = heartbeat.complete_until_us
        self.proof.heartbeat(heartbeat.state, until_us)
        self.closing.begin(until_us)
        self.advance(until_us, publish)

    def advance(self, until_us: int, publish: Publish) -> None:
        """Move the watermark without a trade, and close what it passes."""
        if self.closing.move(until_us):
            self._close(False, publish)

    def exchange_candle(self, candle: Candle, publish: Publish) -> None:
        """Take in the exchange's own closed candle; it stands where it is better than ours."""
        names = [timeframe.name for timeframe in self.rules.timeframes]
        if candle.timeframe not in names:
            return
        level = names.index(candle.timeframe)
        open_us = candle.open_time_us
        close_us = open_us + self.rules.timeframes[level].duration_us
        self.closing.begin(open_us)
        window = self.closing.window(level, open_us)
        if window is None:
            self.late += 1
            return
        self.windows.know_from(open_us)
        window.exchange = value_of_exchange(candle, close_us, self.windows.parts_of(level))
        if window.closed:
            self.versions.touch(level, window)
        if self.proof.proven_from_us is None:
            # No trades are collected: the exchange's candles are the event time.
            self.advance(close_us + self.rules.grace_us, publish)

    def gap(self, gap: Gap, publish: Publish) -> None:
        """Take in what the producer says is missing, or has given up."""
        if gap.first_trade_id is None or gap.last_trade_id is None or not self.proof.consecutive:
            self.proof.timed_gap(gap.start_time_us, gap.end_time_us, gap.status)
            self.closing.touch(gap.start_time_us, gap.end_time_us)
            publish(gap)
            return
        self.order.gap(gap, int(gap.first_trade_id), int(gap.last_trade_id), publish)
        # The next trade follows what is missing, not the newest one: it goes the long way.
        self.value_close_us = 0

    def finish(self, publish: Publish) -> None:
        """End a history job: everything inside it is closed."""
        assert self.job is not None
        self.advance(self.job.end_us + self.rules.grace_us, publish)
        self.is_finished = True

    # --- candles ------------------------------------------------------------------------------

    def _apply(
        self, rank: Rank, trade_id: str, price: str, price_units: int, amount_units: int,
        side: Side, time_us: int,
    ) -> None:  # fmt: skip
        open_us = self.rules.timeframes[0].open_time_us(time_us)
        window = self.closing.window(0, open_us)
        if window is None:
            self.late += 1
            return
        self.windows.know_from(open_us)
        if not self.proof.consecutive:
            self.order.recent[trade_id] = open_us
            if window.ids is None:
                window.ids = set()
            window.ids.add(trade_id)
        if window.trades is None:
            window.trades = value_of_trade(
                time_us, rank, trade_id, price, price_units, amount_units, side
            )
        else:
            add_trade(
                window.trades, time_us, rank, trade_id, price, price_units, amount_units, side
            )
        if window.closed:
            self.versions.touch(0, window)
        elif open_us >= self.value_open_us:
            self.value, self.value_open_us = window.trades, open_us
            self.value_close_us = window.close_us

    def _close(self, by_trade: bool, publish: Publish) -> None:
        self.closing.close(by_trade)
        if self.value_close_us <= self.closing.closed_until_us:
            self.value_close_us = 0
        self.order.give_up(self.closing.watermark_us - self.rules.missing_keep_us, publish)

    # --- versions -----------------------------------------------------------------------------

    @property
    def is_touched(self) -> bool:
        """Whether `settle` has something to do."""
        return self.versions.is_touched

    def settle(self, revision: int, publish: Publish) -> None:
        """Publish the windows that changed, and let go of what can't change any more."""
        self.versions.settle(revision, publish)
        self._drop(self.closing.watermark_us)

    def _drop(self, watermark_us: int) -> None:
        for window in self.closing.drop(watermark_us):
            for trade_id in window.ids or ():
                self.order.recent.pop(trade_id, None)

    def open_candle(self, revision: int) -> Candle | None:
        """Return the 1m candle that is open now, with what is known so far."""
        return self.versions.open_candle(self.closing.watermark_us, revision)
