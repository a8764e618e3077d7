"""One symbol's part of the log: takes ticks, returns the events to publish, in order; pure.

Holds the rules of the log: a heartbeat before anything else of the symbol, which says whether its
ids are consecutive; trades in id order; heartbeats that never pass a trade which is missing or held
back; state changes said once.
"""

from collections import Counter
from collections.abc import Sequence

from alpha_pulse.contracts.codec import encode, encode_many
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, StreamState, Trade
from alpha_pulse.contracts.market import MINUTE_US, message_key
from alpha_pulse.producers.feed.continuity import ConsecutiveIds, Hole, SeenIds
from alpha_pulse.producers.liveness.heartbeat import SETTLE_US, due_heartbeat_us
from alpha_pulse.producers.liveness.silence import SilenceWatch

CANDLES_REMEMBERED = 2_000
CANDLES_SOUGHT = 600

Tracker = ConsecutiveIds | SeenIds


class SymbolFeed:
    """The log of one symbol, up to the bytes that are published.

    `outbox`: encoded events in log order, taken (and emptied) by the publisher's side.
    `caught_up`: whether all trades up to now are known to have reached the tracker; false from a
    lost connection until REST was asked what came meanwhile.
    """

    def __init__(
        self,
        exchange: str,
        symbol: str,
        tracker: Tracker,
        *,
        grace_us: int,
        silence_us_max: int = 8_000_000,
        waiting_max: int = 50_000,
    ) -> None:
        self.exchange = exchange
        self.symbol = symbol
        self.key = message_key(exchange, symbol)
        self.tracker = tracker
        self.silence = SilenceWatch(silence_us_max=silence_us_max)
        self.outbox: list[bytes] = []
        self.state: StreamState | None = None
        # Newest time up to which the log speaks: of a trade or of a heartbeat.
        self.published_until_us = tracker.last_time_us
        self.caught_up = True
        self.checked_at_us = 0  # when REST was asked last and showed nothing newer; monotonic
        self.trades = 0
        # Published gaps and their length, by status.
        self.gaps: Counter[str] = Counter()
        self.gap_us: Counter[str] = Counter()
        self.measured_us = 0  # newest trade whose delay was measured
        self._grace_us = grace_us
        self._has_begun = False  # the first heartbeat is in the log
        self._early: list[bytes] = []  # candles that came before it
        self._candles: dict[int, None] = {}  # open times that were published
        self._begin_us = tracker.last_time_us  # of the first trade
        self._waiting: list[Trade] = []
        self._waiting_max = waiting_max

    def take_run(self, trades: Sequence[Trade], start: int, now_us: int) -> int:
        """Take this symbol's next trades from `start` on; return the place after them.

        The fast way: nothing is held back, ids follow one another. At `start` at least the first
        trade is taken, whatever it is. now_us: our monotonic clock.
        """
        tracker = self.tracker
        symbol = self.symbol
        place, count = start, len(trades)
        if (
            type(tracker) is ConsecutiveIds
            and tracker.last_id is not None
            and not tracker.held
            and self._has_begun
        ):
            last_id, newest_us = tracker.last_id, self.published_until_us
            while place < count:
                trade = trades[place]
                if trade.symbol != symbol or int(trade.trade_id) != last_id + 1:
                    break
                last_id += 1
                if trade.trade_time_us > newest_us:
                    newest_us = trade.trade_time_us
                place += 1
            if place > start:
                self.outbox += encode_many(trades[start:place])
                tracker.last_id = last_id
                tracker.last_time_us = trades[place - 1].trade_time_us
                self.trades += place - start
                self.published_until_us = newest_us
                return place
        self.take_trade(trades[start], now_us)
        return start + 1

    def take_trade(self, trade: Trade, now_us: int) -> None:
        """Take a trade of the stream or of REST. now_us: our monotonic clock."""
        if not self.caught_up and isinstance(self.tracker, SeenIds):
            # Ids do not tell what came before it: it waits for `take_overlap`.
            if len(self._waiting) < self._waiting_max:
                self._waiting.append(trade)
                return
            self.take_overlap([], now_us)
        for event in self.tracker.take(trade, now_us):
            self._add(event)

    def take_overlap(self, recent: Sequence[Trade], now_us: int) -> bool:
        """Take REST's last trades where ids prove nothing; return whether anything was new.

        Where they overlap what is known already, nothing is missing; else a gap is published.
        """
        tracker = self.tracker
        assert isinstance(tracker, SeenIds), "consecutive ids prove more than overlap"
        count = self.trades
        known = [place for place, trade in enumerate(recent) if trade.trade_id in tracker]
        rows = [*recent[known[0] :]] if known else [*recent]
        streamed, self._waiting = self._waiting, []
        rows += streamed
        if not known and rows and tracker.last_time_us:
            gap = Gap(
                exchange=self.exchange,
                symbol=self.symbol,
                first_trade_id=None,
                last_trade_id=None,
                start_time_us=min(tracker.last_time_us, rows[0].trade_time_us),
                end_time_us=rows[0].trade_time_us,
                status="unfillable",
                reason="the connection was lost for longer than REST looks back",
            )
            self._add(gap)
        self.caught_up = True
        for trade in rows:
            for event in tracker.take(trade, now_us):
                self._add(event)
        return self.trades > count

    def take_candle(self, candle: Candle) -> None:
        """Take the exchange's own closed candle; one that was published already is dropped."""
        if candle.open_time_us in self._candles:
            return
        self._candles[candle.open_time_us] = None
        if len(self._candles) > CANDLES_REMEMBERED:
            del self._candles[next(iter(self._candles))]
        # Before the first heartbeat nothing is known, not even the exchange's time.
        (self.outbox if self._has_begun else self._early).append(encode(candle))

    def missing_candles(self, until_us: int) -> list[int]:
        """Return the open times of closed minutes, since this feed began, that have no candle.

        until_us: minutes that end later are not closed yet. At most the last 600 are looked at.
        """
        if not self._begin_us:
            return []
        first_us = self._begin_us - self._begin_us % MINUTE_US
        last_us = until_us - until_us % MINUTE_US
        first_us = max(first_us, last_us - CANDLES_SOUGHT * MINUTE_US)
        return [m for m in range(first_us, last_us, MINUTE_US) if m not in self._candles]

    def take_events(self, events: Sequence[Trade | Gap]) -> None:
        """Take what the tracker released after a hole was given up."""
        for event in events:
            self._add(event)

    def tell_healed(self, hole: Hole, start_us: int) -> None:
        """Tell readers of a hole that was filled before anything after it was published."""
        gap = Gap(
            exchange=self.exchange,
            symbol=self.symbol,
            first_trade_id=str(hole.first),
            last_trade_id=str(hole.last),
            start_time_us=min(start_us or hole.until_us, hole.until_us),
            end_time_us=hole.until_us,
            status="filled",
            reason="the stream lost them; fetched over REST",
        )
        self._add(gap)

    def change_state(self, state: StreamState, complete_until_us: int) -> bool:
        """Say once that the stream is live, disconnected or halted; return whether it is news."""
        if state == self.state:
            return False
        self.state = state
        self._beat(complete_until_us)
        return True

    def is_beat_due(self, clock_us: int, *, settle_us: int = SETTLE_US) -> bool:
        """Return whether a minute ended, by this time, without anything newer."""
        return self._due_us(clock_us, settle_us) is not None

    def beat_if_due(self, heard_us: int, *, settle_us: int = SETTLE_US) -> bool:
        """Publish the heartbeat of a minute that ended without anything newer, when it is due.

        heard_us: the exchange's time before which everything is known to have arrived.
        """
        until_us = self._due_us(heard_us, settle_us)
        if until_us is None:
            return False
        self._beat(until_us)
        return True

    def _due_us(self, time_us: int, settle_us: int) -> int | None:
        if self.state != "live" or not self.is_complete:
            return None
        return due_heartbeat_us(time_us, self.published_until_us, self._grace_us, settle_us)

    def finish(self, until_us: int) -> None:
        """Publish the last heartbeat of a recording: complete until its end."""
        self.state = "live"
        self._beat(until_us)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is known to be missing now: no hole, no unchecked connection loss."""
        return self.caught_up and not self.tracker.held

    @property
    def seeks(self) -> bool:
        """Whether REST is to be asked for trades of gaps that were published already."""
        return isinstance(self.tracker, ConsecutiveIds) and bool(self.tracker.given_up)

    def _begin(self, time_us: int) -> None:
        # A trade or gap, of this time, before the stream was called live: after a restart what the
        # log lacks comes first. Everything up to the last trade of the log is in it.
        if self.state is None:
            self.state = "disconnected"
        self.published_until_us = self.published_until_us or time_us
        self._beat(self.published_until_us)

    def _beat(self, complete_until_us: int) -> None:
        # Behind a hole, complete ends at the last trade before it.
        if not self.is_complete:
            complete_until_us = min(complete_until_us, self.published_until_us)
        complete_until_us = max(complete_until_us, self.published_until_us)
        if not complete_until_us or self.state is None:
            return  # nothing is known yet, not even the exchange's time
        self.published_until_us = complete_until_us
        beat = Heartbeat(
            exchange=self.exchange,
            symbol=self.symbol,
            complete_until_us=complete_until_us,
            state=self.state,
            ids_are_consecutive=isinstance(self.tracker, ConsecutiveIds),
        )
        self.outbox.append(encode(beat))
        if not self._has_begun:
            self._has_begun = True
            self.outbox += self._early
            self._early = []

    def _add(self, event: Trade | Gap) -> None:
        if not self._has_begun:
            self._begin(event.start_time_us if isinstance(event, Gap) else event.trade_time_us)
        self.outbox.append(encode(event))
        if type(event) is Trade:
            self.trades += 1
            if event.trade_time_us > self.published_until_us:
                self.published_until_us = event.trade_time_us
            if not self._begin_us:
                self._begin_us = event.trade_time_us
        elif isinstance(event, Gap):
            self.gaps[event.status] += 1
            self.gap_us[event.status] += event.end_time_us - event.start_time_us
