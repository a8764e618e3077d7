"""The streams of the symbols that a producer follows: events in, actions out.

Trades, frames, answers of REST and lost subscriptions become events of the table in `feed.state`;
its actions are carried out here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

import structlog

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.events import Candle, Ids, Trade
from alpha_pulse.producers.connection.tap import Socket
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.tick import (
    FrameTime,
    Numbered,
    Refusal,
    SystemStatus,
    Throttled,
    Tick,
    time_of,
)
from alpha_pulse.producers.feed.pump import Gate, Pump
from alpha_pulse.producers.feed.state import Action, Event, State
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed, make_feed
from alpha_pulse.producers.feed.totals import FeedTotals
from alpha_pulse.producers.healing.catch_up import CatchUp
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.liveness.heard import heard_until_us
from alpha_pulse.producers.liveness.heartbeat import SETTLE_US, ExchangeClock

log = structlog.get_logger()

_LIVE = State.LIVE
# A "too many requests" that names nothing answers a subscribe no older than this.
THROTTLED_WITHIN_US = 5_000_000


class Streams:
    """The feeds of one exchange, by symbol.

    Args:
        config: the producer's settings.
        name: the exchange's name in the log.
        healer: asks the exchange over REST.
        clock: the exchange's time.
        sockets: the exchange's connections by address; filled by the caller.
        gate: whether the sockets are read.
        pump: publishes what the feeds have to say.
        quarantine: leaves a refused symbol's subscription alone for a while.
        throttle: holds back what we send, and subscribes to these symbols again then.
    """

    def __init__(
        self,
        config: ProducerConfig,
        name: str,
        healer: Healer,
        *,
        clock: ExchangeClock,
        sockets: Mapping[str, Socket],
        gate: Gate,
        pump: Pump,
        quarantine: Callable[[str], None],
        throttle: Callable[[Sequence[str]], None],
    ) -> None:
        self.feeds: dict[str, SymbolFeed] = {}
        self.reconnects = 0
        self._halted_with_all: set[str] = set()  # symbols halted because the whole exchange was
        self._removed = FeedTotals()  # what the feeds of removed symbols counted
        self._config = config
        self._name = name
        self._clock = clock
        self._sockets = sockets
        self._gate = gate
        self._pump = pump
        self._quarantine = quarantine
        self._throttle = throttle
        self.catch_up = CatchUp(
            healer,
            seek_us_max=int(config.seek_s_max * 1e6),
            on_progress=self.mark,
            on_caught_up=lambda feed: self.send(feed, Event.CAUGHT_UP),
        )

    # Which symbols there are

    def add(self, symbol: str, last: tuple[str, int] | None) -> None:
        """Begin a symbol's feed.

        Args:
            symbol: one that has none yet.
            last: id and time in µs of its last trade in the log; None: the log has none.
        """
        self.feeds[symbol] = make_feed(
            self._config,
            self._name,
            symbol,
            last,
            ids_are_consecutive=exchange_of(self._name).ids_are_consecutive,
        )

    def remove(self, symbol: str) -> None:
        """End a symbol's feed; nothing happens when there is none."""
        feed = self.feeds.pop(symbol, None)
        if feed is not None:
            self._removed.add(feed)
            self.send(feed, Event.REMOVED)

    def end(self) -> None:
        """Say of each live symbol that it is followed no longer."""
        for feed in self.feeds.values():
            self.send(feed, Event.STOPPED)

    @property
    def refused(self) -> dict[str, str]:
        """The symbols that the exchange refuses now, and why."""
        refused = State.QUARANTINED
        return {s: feed.refusal for s, feed in self.feeds.items() if feed.state is refused}

    @property
    def totals(self) -> FeedTotals:
        """What all feeds counted, removed ones included."""
        return self._removed.plus(self.feeds.values())

    # What the exchange sends

    def add_trades(self, trades: Sequence[Numbered], now_us: int) -> None:
        """Put trades into their feeds.

        Args:
            trades: in the stream's order, of any symbols; ids of none may be among them.
            now_us: our monotonic clock at their receipt.
        """
        place, count = 0, len(trades)
        while place < count:
            trade = trades[place]
            feed = self.feeds.get(trade.symbol)
            if feed is None:
                place += 1  # the last ones of a symbol that was removed
                continue
            if feed.state is not _LIVE:
                self.send(feed, Event.TRADE, time_of(trade))
            place = feed.add_run(trades, place, now_us)
            self._clock.observe(time_of(trades[place - 1]), now_us)
            if feed.tracker.held:
                self.catch_up.start(feed)
                if feed.tracker.held > self._config.hold_back_trades_max // 2:
                    self._gate.close(f"hole:{feed.symbol}")
            self.mark(feed)

    def add_tick(self, tick: Tick, now_us: int) -> None:
        """Put any other tick into its feed.

        Args:
            tick: of any symbol.
            now_us: our monotonic clock at its receipt.
        """
        match tick:
            case Refusal():
                self.on_refused(tick.symbol, tick.reason)
            case Throttled():
                self._on_throttled(tick, now_us)
            case SystemStatus():
                self._on_system_status(tick)
            case FrameTime():
                feed = self.feeds.get(tick.symbol)
                if feed is not None:
                    self._clock.observe(tick.time_us, now_us)
                    if feed.state is not _LIVE:
                        self.send(feed, Event.HEARD)
            case Candle():
                feed = self.feeds.get(tick.symbol)
                if feed is not None:
                    feed.add_candle(tick)
                    self.mark(feed)
            case Trade() | Ids():
                self.add_trades([tick], now_us)
            case _:
                assert_never(tick)

    # What becomes of subscriptions (see connection.subscriptions.Listener)

    def on_subscribing(self, symbols: Sequence[str]) -> None:
        """Note that symbols are being subscribed to."""
        now_us = time.monotonic_ns() // 1000
        for symbol in symbols:
            feed = self.feeds.get(symbol)
            if feed is not None:
                feed.subscribing_us = now_us

    def on_lost(self, symbols: Sequence[str], reason: str) -> None:
        """Note that the subscriptions of symbols were lost."""
        self.reconnects += 1
        log.warning("stream.lost", exchange=self._name, symbols=len(symbols), reason=reason)
        for symbol in symbols:
            feed = self.feeds.get(symbol)
            if feed is not None:
                feed.subscribing_us = None
                self.send(feed, Event.LOST)

    def on_refused(self, symbol: str, reason: str) -> None:
        """Note that the exchange refuses a symbol.

        Args:
            symbol: "" when it did not say which.
            reason: what it said.
        """
        log.error("symbol.quarantined", exchange=self._name, symbol=symbol, reason=reason[:300])
        feed = self.feeds.get(symbol)
        if feed is not None:
            feed.subscribing_us = None
            feed.refusal = reason
            self.send(feed, Event.REFUSED)

    def _on_throttled(self, tick: Throttled, now_us: int) -> None:
        # Which subscribe it was is not always said: then those of the last seconds count. One that
        # was carried out all the same is answered as such, and nothing happens.
        log.warning("subscribe.throttled", exchange=self._name, reason=tick.reason[:300])
        feeds = self.feeds.values()
        symbols = [tick.symbol] if tick.symbol in self.feeds else []
        if not tick.symbol:
            after_us = now_us - THROTTLED_WITHIN_US
            symbols = [f.symbol for f in feeds if (f.subscribing_us or 0) >= after_us]
        for symbol in symbols:
            self.feeds[symbol].subscribing_us = None
        self._throttle(symbols)

    def _on_system_status(self, tick: SystemStatus) -> None:
        if not tick.is_trading:
            for symbol in self.feeds:
                if self.on_halted(symbol, f"the exchange as a whole is in {tick.status}"):
                    self._halted_with_all.add(symbol)
            return
        for symbol in self._halted_with_all & self.feeds.keys():
            feed = self.feeds[symbol]
            if feed.state in (State.HALTED, State.HALTED_BEHIND):
                self.catch_up.start(feed)
        self._halted_with_all.clear()

    def on_halted(self, symbol: str, reason: str) -> bool:
        """Note that a symbol does not trade, as the exchange says.

        Args:
            symbol: the unified symbol.
            reason: what it says.

        Returns:
            Whether it is news.
        """
        feed = self.feeds[symbol]
        said = feed.said
        self.send(feed, Event.HALTED)
        is_news = feed.said != said
        if is_news:
            log.warning("stream.halted", exchange=self._name, symbol=symbol, reason=reason)
        return is_news

    # Events and actions

    def send(self, feed: SymbolFeed, event: Event, time_us: int = 0) -> None:
        """Send an event to a feed and carry out the actions.

        Args:
            feed: the symbol's feed.
            event: what happened.
            time_us: the exchange's time of the trade that caused it; 0: none did.
        """
        for action in feed.step(event):
            self._do(action, feed, time_us)

    def _do(self, action: Action, feed: SymbolFeed, time_us: int) -> None:
        match action:
            case Action.CATCH_UP:
                self.catch_up.start(feed)
            case Action.STOP_CATCHING_UP:
                self.catch_up.cancel(feed)
            case Action.QUARANTINE:
                self._quarantine(feed.symbol)
            case Action.EMIT_LIVE:
                self._emit_live(feed, time_us)
            case Action.EMIT_DISCONNECTED:
                feed.emit_state("disconnected")
            case Action.EMIT_HALTED:
                feed.emit_state("halted")
            case Action.EMIT_FINISHED:
                feed.emit_end(self._config.until_us)
            case _:
                assert_never(action)
        self.mark(feed)

    def _emit_live(self, feed: SymbolFeed, complete_until_us: int) -> None:
        now_us = time.monotonic_ns() // 1000
        if self._config.clock == "exchange" and self._gate.is_open:
            complete_until_us = max(complete_until_us, self.heard_us(feed, now_us) - SETTLE_US)
        feed.silence.heard(now_us)
        if feed.emit_state("live", complete_until_us):
            log.info("stream.live", exchange=self._name, symbol=feed.symbol)

    def mark(self, feed: SymbolFeed) -> None:
        """Have a feed's events published; resume reading once its hole no longer stops it."""
        self._pump.mark(feed)
        if not self._gate.is_open and not feed.tracker.held:
            self._gate.open(f"hole:{feed.symbol}")

    def heard_us(self, feed: SymbolFeed, now_us: int) -> int:
        """Return the exchange's time (µs) before which all trades of a feed have arrived.

        Args:
            feed: the symbol's feed.
            now_us: our monotonic clock.
        """
        # Which of the sockets carries the symbol is not known for every exchange.
        heard = [socket.heard for socket in self._sockets.values() if socket.is_open]
        return heard_until_us(
            heard, feed.silence, feed.checked_at_us, self._clock.now_us(now_us), now_us
        )
