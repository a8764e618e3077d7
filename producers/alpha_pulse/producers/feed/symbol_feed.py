"""One symbol's part of the log: ticks are added, the events to publish come out in order; pure.

Holds the rules of the log: a heartbeat before anything else of the symbol, which says whether its
ids are consecutive; trades in id order; heartbeats that never pass a trade which is missing or held
back; state changes said once.
"""

from collections import Counter
from collections.abc import Sequence
from typing import assert_never, cast

from msgspec.structs import replace

from alpha_pulse.contracts.codec import encode, encode_many
from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, Ids, StreamState, Trade
from alpha_pulse.contracts.market import MINUTE_US, message_key
from alpha_pulse.producers.exchanges.tick import Numbered, time_of
from alpha_pulse.producers.feed.continuity import ConsecutiveIds, Hole, SeenIds
from alpha_pulse.producers.feed.state import Action, Event, State, step
from alpha_pulse.producers.liveness.heartbeat import SETTLE_US, due_heartbeat_us
from alpha_pulse.producers.liveness.silence import SilenceWatch

CANDLES_REMEMBERED = 2_000
CANDLES_SOUGHT = 600

Tracker = ConsecutiveIds | SeenIds


class SymbolFeed:
    """The log of one symbol, up to the bytes that are published.

    `outbox`: encoded events in log order; the pump empties it. `state`: where the symbol stands,
    changed by `step` alone. `said`: what the log says of the stream, None: nothing yet.

    Args:
        exchange: the exchange's name in the log.
        symbol: `BASE/QUOTE`.
        tracker: what is known of the symbol's ids, and of its last trade in the log.
        state: where it begins.
        grace_us: how long after a minute's end its heartbeat comes.
        silence_us_max: after how long a silence REST is asked at the latest.
        waiting_max: how many trades may wait for REST where ids prove nothing.
    """

    def __init__(
        self,
        exchange: str,
        symbol: str,
        tracker: Tracker,
        *,
        state: State = State.STARTING,
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
        self.state = state
        # The state's own; read for each trade, where an attribute of an Enum costs 50 ns.
        self.caught_up = state.caught_up
        self.said: StreamState | None = None
        self.refusal = ""  # why the exchange refused it last
        self.subscribing_us: int | None = None  # since when it is subscribed to; monotonic
        # Newest time up to which the log speaks: of a trade or of a heartbeat.
        self.published_until_us = tracker.last_time_us
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
        self._ids: Ids | None = None  # the newest, which those that follow may still join
        self._waiting: list[Trade] = []
        self._waiting_max = waiting_max

    def step(self, event: Event) -> tuple[Action, ...]:
        """Change the state by an event; return what to do, in this order."""
        self.state, actions = step(self.state, event)
        self.caught_up = self.state.caught_up
        return actions

    def add_run(self, trades: Sequence[Numbered], start: int, now_us: int) -> int:
        """Add this symbol's next trades: the fast way for trades that follow one another.

        Args:
            trades: in the stream's order, of any symbols; ids of no trade may be among them.
            start: the place of one of this symbol; at least this one is added, whatever its id.
            now_us: our monotonic clock.

        Returns:
            The place after the last one added.
        """
        tracker = self.tracker
        if self._has_begun and self._begin_us:
            if isinstance(tracker, SeenIds):
                if self.caught_up:
                    # Ids that prove nothing belong to trades.
                    return self._add_unproven_run(tracker, cast(Sequence[Trade], trades), start)
            elif tracker.last_id is not None and not tracker.held:
                end = self._add_consecutive_run(tracker, tracker.last_id, trades, start)
                if end > start:
                    return end
        self.add_trade(trades[start], now_us)
        return start + 1

    def _add_consecutive_run(
        self, tracker: ConsecutiveIds, last_id: int, trades: Sequence[Numbered], start: int
    ) -> int:
        symbol, newest_us = self.symbol, self.published_until_us
        end = len(trades)
        for place in range(start, end):
            trade = trades[place]
            if (
                trade.__class__ is not Trade
                or trade.symbol != symbol
                or int(trade.trade_id) != last_id + 1
            ):
                end = place
                break
            last_id += 1
            if trade.trade_time_us > newest_us:
                newest_us = trade.trade_time_us
        if end > start:
            if self._ids is not None:
                self._emit_ids()
            self.outbox += encode_many(trades[start:end])
            tracker.last_id = last_id
            tracker.last_time_us = time_of(trades[end - 1])
            self.trades += end - start
            # Ids of no trade that came before them may be newer.
            self.published_until_us = max(self.published_until_us, newest_us)
        return end

    def _add_unproven_run(self, tracker: SeenIds, trades: Sequence[Trade], start: int) -> int:
        symbol = self.symbol
        end = start + 1
        while end < len(trades) and trades[end].symbol == symbol:
            end += 1
        new = tracker.add_run(trades[start:end])
        if new:
            self.outbox += encode_many(new)
            self.trades += len(new)
            newest_us = max([trade.trade_time_us for trade in new])
            self.published_until_us = max(self.published_until_us, newest_us)
        return end

    def add_trade(self, trade: Numbered, now_us: int) -> None:
        """Add a trade, or ids of none, of the stream or of REST.

        Args:
            trade: ids of none only where ids are consecutive.
            now_us: our monotonic clock.
        """
        if isinstance(self.tracker, ConsecutiveIds):
            self.emit(self.tracker.add(trade, now_us))
            return
        assert isinstance(trade, Trade), "ids that prove nothing belong to trades"
        if not self.caught_up:
            # Ids do not show what came before it: it waits for `add_overlap`.
            if len(self._waiting) < self._waiting_max:
                self._waiting.append(trade)
                return
            self.add_overlap([], now_us)
        self.emit(self.tracker.add(trade, now_us))

    def add_overlap(self, recent: Sequence[Trade], now_us: int) -> bool:
        """Add REST's last trades where ids prove nothing.

        Where they overlap what is known already, nothing is missing; else a gap is published.

        Args:
            recent: the trades, oldest first.
            now_us: our monotonic clock.

        Returns:
            Whether anything was new.
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
            self._emit(gap)
        self.step(Event.JOINED)
        for trade in rows:
            self.emit(tracker.add(trade, now_us))
        return self.trades > count

    def add_candle(self, candle: Candle) -> None:
        """Add the exchange's own closed candle; one that was published already is dropped."""
        if candle.open_time_us in self._candles:
            return
        self._candles[candle.open_time_us] = None
        if len(self._candles) > CANDLES_REMEMBERED:
            del self._candles[next(iter(self._candles))]
        # Before the first heartbeat nothing is known, not even the exchange's time.
        (self.outbox if self._has_begun else self._early).append(encode(candle))

    def missing_candles(self, until_us: int) -> list[int]:
        """Return the closed minutes, since this feed began, that have no candle.

        Args:
            until_us: minutes that end later are not closed yet.

        Returns:
            Their open times, ascending, among the last 600 minutes.
        """
        if not self._begin_us:
            return []
        first_us = self._begin_us - self._begin_us % MINUTE_US
        last_us = until_us - until_us % MINUTE_US
        first_us = max(first_us, last_us - CANDLES_SOUGHT * MINUTE_US)
        return [m for m in range(first_us, last_us, MINUTE_US) if m not in self._candles]

    def emit(self, events: Sequence[Numbered | Gap]) -> None:
        """Put what the tracker released into the log, in this order."""
        for event in events:
            self._emit(event)

    def emit_filled(self, hole: Hole, start_us: int) -> None:
        """Publish a gap for a hole that was filled before anything after it was published.

        Args:
            hole: its ids, and the time of the trade after it.
            start_us: the time of the trade before it; 0: unknown.
        """
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
        self._emit(gap)

    def emit_state(self, said: StreamState, complete_until_us: int = 0) -> bool:
        """Say once that the stream is live, disconnected or halted.

        Args:
            said: what the heartbeat says.
            complete_until_us: how far the log is complete; never further than it is.

        Returns:
            Whether it is news.
        """
        if said == self.said:
            return False
        self.said = said
        self._emit_heartbeat(complete_until_us)
        return True

    def is_heartbeat_due(self, clock_us: int, *, settle_us: int = SETTLE_US) -> bool:
        """Return whether a minute ended, by this time, without anything newer."""
        return self._due_us(clock_us, settle_us) is not None

    def emit_heartbeat_if_due(self, heard_us: int, *, settle_us: int = SETTLE_US) -> bool:
        """Publish the heartbeat of a minute that ended without anything newer, when it is due.

        Args:
            heard_us: the exchange's time before which everything is known to have arrived.
            settle_us: how long trades may be on their way.

        Returns:
            Whether it was due.
        """
        until_us = self._due_us(heard_us, settle_us)
        if until_us is None:
            return False
        self._emit_heartbeat(until_us)
        return True

    def _due_us(self, time_us: int, settle_us: int) -> int | None:
        if self.state is not State.LIVE or not self.is_complete:
            return None
        return due_heartbeat_us(time_us, self.published_until_us, self._grace_us, settle_us)

    def emit_end(self, until_us: int) -> None:
        """Publish the last heartbeat of a recording: complete until its end."""
        self.said = "live"
        self._emit_heartbeat(until_us)

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
        if self.said is None:
            self.said = "disconnected"
        self.published_until_us = self.published_until_us or time_us
        self._emit_heartbeat(self.published_until_us)

    def _emit_heartbeat(self, complete_until_us: int) -> None:
        self._emit_ids()
        # Behind a hole, complete ends at the last trade before it.
        if not self.is_complete:
            complete_until_us = min(complete_until_us, self.published_until_us)
        complete_until_us = max(complete_until_us, self.published_until_us)
        if not complete_until_us or self.said is None:
            return  # nothing is known yet, not even the exchange's time
        self.published_until_us = complete_until_us
        beat = Heartbeat(
            exchange=self.exchange,
            symbol=self.symbol,
            complete_until_us=complete_until_us,
            state=self.said,
            ids_are_consecutive=isinstance(self.tracker, ConsecutiveIds),
        )
        self.outbox.append(encode(beat))
        if not self._has_begun:
            self._has_begun = True
            self.outbox += self._early
            self._early = []

    def _emit(self, event: Numbered | Gap) -> None:
        if not self._has_begun:
            self._begin(event.start_time_us if isinstance(event, Gap) else time_of(event))
        if isinstance(event, Ids):
            self._join_ids(event)
            return
        self._emit_ids()
        self.outbox.append(encode(event))
        # Trades come here one by one where ids prove nothing: `match` would cost a tenth of it.
        if isinstance(event, Trade):
            self.trades += 1
            if event.trade_time_us > self.published_until_us:
                self.published_until_us = event.trade_time_us
            if not self._begin_us:
                self._begin_us = event.trade_time_us
        elif isinstance(event, Gap):
            self.gaps[event.status] += 1
            self.gap_us[event.status] += event.end_time_us - event.start_time_us
        else:
            assert_never(event)

    def _join_ids(self, ids: Ids) -> None:
        # Runs that follow one another are one event.
        before = self._ids
        if before is not None and int(before.last_trade_id) + 1 == int(ids.first_trade_id):
            time_us = max(before.time_us, ids.time_us)
            self._ids = replace(before, last_trade_id=ids.last_trade_id, time_us=time_us)
            return
        self._emit_ids()
        self._ids = ids

    def _emit_ids(self) -> None:
        # Before whatever comes next; until then more may join.
        if self._ids is None:
            return
        ids, self._ids = self._ids, None
        self.outbox.append(encode(ids))
        self.published_until_us = max(self.published_until_us, ids.time_us)


def make_feed(
    config: ProducerConfig,
    exchange: str,
    symbol: str,
    last: tuple[str, int] | None,
    *,
    ids_are_consecutive: bool,
) -> SymbolFeed:
    """Return a symbol's feed as the settings want it, going on after its last trade in the log.

    Args:
        config: the producer's settings.
        exchange: the exchange's name in the log.
        symbol: `BASE/QUOTE`.
        last: id and time in µs of the last trade in the log; None: there is none. With one, the
            feed is not caught up until REST was asked what came since.
        ids_are_consecutive: whether the exchange numbers a symbol's trades without holes.
    """
    last_id, last_time_us = last or (None, 0)
    tracker: Tracker
    if ids_are_consecutive:
        tracker = ConsecutiveIds(
            last_id=None if last_id is None else int(last_id),
            last_time_us=last_time_us,
            hold_back_trades_max=config.hold_back_trades_max,
            hold_back_us_max=int(config.hold_back_s_max * 1e6),
        )
    else:
        tracker = SeenIds(last_id=last_id, last_time_us=last_time_us)
    return SymbolFeed(
        exchange,
        symbol,
        tracker,
        state=State.STARTING if last is None else State.RESUMING,
        grace_us=int(config.heartbeat_grace_s * 1e6),
        silence_us_max=int(config.silence_s_max * 1e6),
        waiting_max=config.hold_back_trades_max,
    )
