"""One stream of one symbol (live, or one history job): trades in, versions of candles out.

Pure: time is what the events say. Each record changes what it must; then `settle` judges the
windows that were touched and publishes those whose values changed, each at most once.
"""

from dataclasses import dataclass

from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, Side
from alpha_pulse.processors.candles.closing import Closing
from alpha_pulse.processors.candles.order import Order
from alpha_pulse.processors.candles.packed import open_time_and_close, unpack
from alpha_pulse.processors.candles.progress import Progress
from alpha_pulse.processors.candles.proof import Proof
from alpha_pulse.processors.candles.rules import Job, Publish, Rules
from alpha_pulse.processors.candles.value import (
    Rank,
    add_trade,
    value_of_exchange,
    value_of_trade,
)
from alpha_pulse.processors.candles.versions import Versions
from alpha_pulse.processors.candles.windows import Windows


@dataclass(slots=True)
class Stream:
    """State of one stream."""

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

    @classmethod
    def of(
        cls, exchange: str, symbol: str, rules: Rules, proof: Proof, windows: Windows,
        job: Job | None,
    ) -> "Stream":  # fmt: skip
        """Return a stream of which proof and windows are known."""
        versions = Versions(exchange, symbol, rules, proof, windows, job)
        closing = Closing(rules, proof, windows, versions)
        order = Order(exchange, symbol, proof, closing, job)
        return cls(exchange, symbol, rules, proof, windows, versions, closing, order, job)

    @classmethod
    def new(
        cls, exchange: str, symbol: str, rules: Rules, consecutive: bool, job: Job | None = None
    ) -> "Stream":
        """Return the stream of a symbol of which nothing is known but its ids."""
        proof, windows = Proof(consecutive), Windows(rules.timeframes)
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
        """Ingest a trade; return False when it is a duplicate, which changes nothing.

        number: the id's number where ids are consecutive, else ignored.
        """
        rank = self.order.place(number, trade_id, time_us, publish)
        if rank is None:
            return False
        self.closing.begin(time_us)
        if self.proof.followed_from_us is None:
            self.proof.followed_from_us = time_us + 1
        self._apply(rank, trade_id, price, price_units, amount_units, side, time_us)
        if self.closing.move(time_us):
            self.close(True, publish)
        return True

    def ids(self, first: int, last: int, time_us: int, publish: Publish) -> bool:
        """Ingest ids of no trade; return False when all were known, which changes nothing.

        Args:
            first: the first of the run, where ids are consecutive.
            last: its last one.
            time_us: when that was; it moves the watermark as a trade's does.
            publish: for what they show to be missing, or no longer missing.
        """
        is_new = self.order.explain(first, last, time_us, publish)
        if self.order.pass_over(first, last, time_us, publish):
            self.closing.begin(time_us)
            if self.proof.followed_from_us is None:
                self.proof.followed_from_us = time_us + 1
            if self.closing.move(time_us):
                self.close(True, publish)
            return True
        return is_new

    def explain(self, first: int, last: int, time_us: int, publish: Publish) -> None:
        """Note that those of the ids that are missing belong to no trade, as `ids` does."""
        self.order.explain(first, last, time_us, publish)

    def learn_ids(self, are_consecutive: bool) -> None:
        """Judge the ids of the trades that follow as the log says; what was published stands."""
        if are_consecutive and self.proof.proven_from_us is not None:
            self.proof.proven_from_us = self.closing.watermark_us
        self.proof.consecutive = are_consecutive
        self.proof.unproven_from_us = None
        self.order.learn_ids(are_consecutive)

    def follow(self, progress: Progress) -> None:
        """Catch up with trades that were ingested elsewhere, by the same rules."""
        for timeframe, packed in progress.closed:
            level = self.windows.level_of(timeframe)
            if level is None:
                continue
            open_us, close = open_time_and_close(packed)
            window = self.windows.ensure(level, open_us, self.closing.closed_until_us)
            window.close_as(packed)
            if level == 0:
                self.versions.price, self.versions.price_open_us = close, open_us
        if progress.closed:
            self.closing.follow(progress.close_at_us)
            self._drop(progress.closed_at_us)
        for packed in progress.newest:
            open_us, value = unpack(packed)
            self.windows.ensure(0, open_us, self.closing.closed_until_us).trades = value
            self.order.follow(progress.last_id, value.last_time_us)
            self.closing.watermark_us = progress.watermark_us

    def heartbeat(self, heartbeat: Heartbeat, publish: Publish) -> None:
        """Note how far the log is complete, and the state of the stream."""
        until_us = heartbeat.complete_until_us
        self.proof.heartbeat(heartbeat.state, until_us)
        self.closing.begin(until_us)
        self.advance(until_us, publish)

    def advance(self, until_us: int, publish: Publish) -> None:
        """Move the watermark without a trade, and close what it passes."""
        if self.closing.move(until_us):
            self.close(False, publish)

    def exchange_candle(self, candle: Candle, publish: Publish) -> None:
        """Ingest the exchange's own closed candle; it stands where it is better than ours."""
        level = self.windows.level_of(candle.timeframe)
        if level is None:
            return
        open_us = candle.open_time_us
        if open_us < self.windows.begins_us[level]:
            return
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
        """Note what the producer says is missing, or has given up."""
        if gap.first_trade_id is None or gap.last_trade_id is None or not self.proof.consecutive:
            self.proof.timed_gap(gap.start_time_us, gap.end_time_us, gap.status)
            self.closing.touch(gap.start_time_us, gap.end_time_us)
            publish(gap)
            return
        self.order.gap(gap, int(gap.first_trade_id), int(gap.last_trade_id), publish)

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
        level = self.windows.base_at(time_us)
        open_us = self.rules.timeframes[level].open_time_us(time_us)
        window = self.closing.window(level, open_us)
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
            self.versions.touch(level, window)

    def close(self, by_trade: bool, publish: Publish) -> None:
        """Close what the watermark passed by the grace.

        by_trade: the next trade in order moved it, so that ids prove what lies before.
        """
        self.closing.close(by_trade)
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
