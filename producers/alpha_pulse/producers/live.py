"""The live producer: an exchange's trades and closed candles into the ingest log.

One event loop turn: frames are decoded as they are read from the socket and put into their
symbol's feed; the pump then publishes each feed's events, many at a time.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.topics import DEAD_LETTERS, INGEST
from alpha_pulse.producers.connection.client import make_exchange
from alpha_pulse.producers.connection.limiter import Limiter
from alpha_pulse.producers.connection.listing import Listing
from alpha_pulse.producers.connection.subscriptions import Subscriptions
from alpha_pulse.producers.connection.symbols import SymbolTable, shard_of
from alpha_pulse.producers.connection.tap import Frame, Socket
from alpha_pulse.producers.exchanges.names import exchange_name
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.tick import FrameTime, Refusal, Tick
from alpha_pulse.producers.feed.intake import Intake
from alpha_pulse.producers.feed.new_feed import new_feed
from alpha_pulse.producers.feed.pump import EventPublisher, Gate, Pump
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.healing.candle_healing import ASK_MAX, CandleHealer
from alpha_pulse.producers.healing.catch_up import CatchUp
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.healing.recording_end import RecordingEnd
from alpha_pulse.producers.liveness.heartbeat import SETTLE_US, ExchangeClock
from alpha_pulse.producers.metrics import FeedTotals
from alpha_pulse.producers.watchdog import Watchdog

log = structlog.get_logger()

CANDLES_EVERY_S = 20.0


class LiveProducer:
    """Follows the symbols of one exchange until it is stopped or the recording ends.

    resume: symbol -> (id, time in µs) of the last trade in the log; a symbol that is not in it
    begins with its first frame. The publisher is started and stopped by the caller. on_raw: called
    with each frame as it came (captures). on_delay: called for each batch with the seconds from the
    exchange's time of its newest trade to its handing over to Kafka.
    """

    def __init__(
        self,
        config: ProducerConfig,
        publisher: EventPublisher,
        *,
        namespace: str = "",
        resume: Mapping[str, tuple[str, int]] | None = None,
        on_raw: Callable[[Frame], None] | None = None,
        on_delay: Callable[[float], None] | None = None,
    ) -> None:
        self.config = config
        self.name = exchange_name(config)
        self.feeds: dict[str, SymbolFeed] = {}
        self.quarantined: dict[str, str] = {}  # symbol -> why
        self.gone = FeedTotals()  # what the feeds of removed symbols counted
        self.reconnects = 0
        self.clock = ExchangeClock(event=config.clock == "event")
        self._resume = dict(resume or {})
        self._done = asyncio.Event()
        self.limiter = Limiter(self.name)
        self._gate = Gate(self.name)
        self._pump = Pump(
            publisher,
            self._gate,
            topic=INGEST.full_name(namespace),
            dead_letter_topic=DEAD_LETTERS.full_name(namespace),
            pending_bytes_max=config.publish_pending_bytes_max,
            on_published=self._published,
        )
        # A recording at full speed has no delay to speak of.
        self._on_delay = on_delay if config.clock == "exchange" else None
        client = self._client = make_exchange(config, self._on_frames)
        client.on_tapped = self._on_tapped
        client.gate = self._gate.event
        self.listing = Listing(config, self.name, client, self.limiter)
        self._symbols = SymbolTable(client)
        self.intake = Intake(
            self.name,
            client.id,
            self._symbols,
            on_trades=self._take_trades,
            on_tick=self._take_tick,
            on_letter=self._pump.add_letter,
            on_raw=on_raw,
        )
        self._healer = Healer(self.name, client, self.limiter)
        self._catch_up = CatchUp(
            self._healer,
            seek_us_max=int(config.seek_s_max * 1e6),
            on_progress=self._mark,
            on_done=self._go_live,
        )
        self._watchdog = Watchdog(
            client,
            config,
            self.clock,
            self._gate,
            self._catch_up,
            feeds=self.feeds,
            on_subscribed=self._connected,
            on_progress=self._mark,
        )
        self._candle_healer = CandleHealer(self._healer, on_progress=self._mark)
        self._subscriptions = Subscriptions(
            client,
            self.limiter,
            self,
            candles=config.exchange_candles and exchange_of(client.id).decoder is not None,
            quarantine_s=config.quarantine_s,
            reconnect_wait_s_max=config.reconnect_wait_s_max,
        )

    @property
    def gate_is_open(self) -> bool:
        """Whether the sockets are being read."""
        return self._gate.is_open

    def _on_frames(self, socket: Socket, frames: list[Frame]) -> None:
        self.intake.take(socket, frames)

    def _on_tapped(self, socket: Socket) -> None:
        self._watchdog.add_socket(socket)
        self.intake.add_socket(socket)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set or, with the event clock, `until_us` is reached.

        Everything taken is acknowledged by Kafka when this returns.
        """
        try:
            if await self.listing.load(stop):
                await self._follow(stop)
        finally:
            await self._client.close()

    async def set_symbols(self, symbols: Iterable[str]) -> None:
        """Follow exactly these symbols from now on (its shard of them); the others stay as is."""
        wanted = shard_of(symbols, self.config.shard_index, self.config.shard_count)
        gone = [symbol for symbol in (*self.feeds, *self.quarantined) if symbol not in wanted]
        await self._subscriptions.remove(gone)
        for symbol in gone:
            self.quarantined.pop(symbol, None)
            self._symbols.remove(symbol)
            feed = self.feeds.pop(symbol, None)
            if feed is not None:
                self.gone.add(feed)
                if feed.change_state("disconnected", 0):
                    self._mark(feed)
        new = [symbol for symbol in wanted if symbol not in self.feeds]
        self._subscriptions.add([symbol for symbol in new if self._accept(symbol)])
        log.info("symbols.followed", exchange=self.name, symbols=len(self.feeds))

    async def _follow(self, stop: asyncio.Event) -> None:
        await self.set_symbols(self.config.symbols)
        running = (self._pump.run, self._watchdog.run, self._review_markets)
        loops = [asyncio.create_task(loop()) for loop in running]
        if self.config.exchange_candles and self.config.clock == "exchange":
            loops.append(asyncio.create_task(self._heal_candles()))
        if self.config.clock == "event" and self.config.until_us:
            loops.append(asyncio.create_task(self._finish()))
        ends = [asyncio.create_task(event.wait()) for event in (stop, self._done)]
        try:
            finished, _ = await asyncio.wait([*loops, *ends], return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
        finally:
            for task in (*loops, *ends):
                task.cancel()
            await self._subscriptions.stop()
            await self._watchdog.stop()
            await self._catch_up.stop()
            await asyncio.gather(*loops, *ends, return_exceptions=True)
        if not self._done.is_set():
            for feed in self.feeds.values():
                if feed.state == "live" and feed.change_state("disconnected", 0):
                    self._mark(feed)
        await self._pump.flush()

    def _accept(self, symbol: str) -> bool:
        reason = self._symbols.refusal(symbol)
        if reason is not None:
            self.on_refused(symbol, reason)
            return False
        self.quarantined.pop(symbol, None)
        self._symbols.add(symbol)
        self.feeds[symbol] = new_feed(self.config, self.name, symbol, self._resume.get(symbol))
        return True

    # Ticks in

    def _take_trades(self, trades: Sequence[Trade], now_us: int) -> None:
        place, count = 0, len(trades)
        while place < count:
            trade = trades[place]
            feed = self.feeds.get(trade.symbol)
            if feed is None:
                place += 1  # the last ones of a symbol that was removed
                continue
            if feed.state != "live":
                self._connected(feed, trade.trade_time_us)
            place = feed.take_run(trades, place, now_us)
            self.clock.observe(trades[place - 1].trade_time_us, now_us)
            if feed.tracker.held:
                self._catch_up.start(feed)
                if feed.tracker.held > self.config.hold_back_trades_max // 2:
                    self._gate.close(f"hole:{feed.symbol}")
            self._mark(feed)

    def _take_tick(self, tick: Tick, now_us: int) -> None:
        if isinstance(tick, Refusal):
            self.on_refused(tick.symbol, tick.reason)
            return
        feed = self.feeds.get(tick.symbol)
        if feed is None:
            return
        if isinstance(tick, FrameTime):
            self.clock.observe(tick.time_us, now_us)
            self._heard(feed)
        elif isinstance(tick, Candle):
            feed.take_candle(tick)
            self._mark(feed)

    # What becomes of subscriptions (see subscriptions.Listener)

    def on_subscribing(self, symbols: list[str]) -> None:
        """Note that symbols are being subscribed to."""
        self._watchdog.subscribing(symbols)

    def on_lost(self, symbols: list[str], reason: str) -> None:
        """Say that symbols are disconnected."""
        self.reconnects += 1
        log.warning("stream.lost", exchange=self.name, symbols=len(symbols), reason=reason)
        for symbol in symbols:
            self._watchdog.lost(symbol)
            feed = self.feeds.get(symbol)
            if feed is not None:
                feed.caught_up = False
                if feed.state is not None and feed.change_state("disconnected", 0):
                    self._mark(feed)

    def on_refused(self, symbol: str, reason: str) -> None:
        """Quarantine a symbol; "" when the exchange did not say which."""
        log.error("symbol.quarantined", exchange=self.name, symbol=symbol, reason=reason[:300])
        if not symbol:
            return
        self.quarantined[symbol] = reason
        self._watchdog.lost(symbol)
        feed = self.feeds.get(symbol)
        if feed is not None:
            feed.caught_up = False
            self._subscriptions.quarantine(symbol)
            if feed.change_state("halted", 0):
                self._mark(feed)

    def on_unified(self, rows: list[Any]) -> None:
        """Take trades that ccxt decoded itself."""
        self.intake.take_unified(rows)

    def _heard(self, feed: SymbolFeed) -> None:
        # A frame that is no trade shows that the subscription works; where a symbol begins with
        # its first trade it says nothing yet.
        if feed.state != "live" and not feed.caught_up:
            self._connected(feed)

    def _connected(self, feed: SymbolFeed, time_us: int = 0) -> None:
        """A symbol's subscription works: it is live once REST shows nothing that it missed.

        time_us: of the trade that showed it.
        """
        if feed.symbol in self.quarantined:
            del self.quarantined[feed.symbol]
        if feed.caught_up:
            self._go_live(feed, time_us)
        else:
            self._catch_up.start(feed)

    def _go_live(self, feed: SymbolFeed, complete_until_us: int = 0) -> None:
        now_us = time.monotonic_ns() // 1000
        if self.config.clock == "exchange" and self._gate.is_open:
            heard_us = self._watchdog.heard_us(feed, now_us)
            complete_until_us = max(complete_until_us, heard_us - SETTLE_US)
        feed.silence.heard(now_us)
        if feed.change_state("live", complete_until_us):
            log.info("stream.live", exchange=self.name, symbol=feed.symbol)
        self._mark(feed)

    def _mark(self, feed: SymbolFeed) -> None:
        self._pump.mark(feed)
        if not self._gate.is_open and not feed.tracker.held:
            self._gate.open(f"hole:{feed.symbol}")

    def _published(self, feed: SymbolFeed) -> None:
        newest_us = feed.tracker.last_time_us
        if self._on_delay is not None and newest_us > feed.measured_us:
            feed.measured_us = newest_us
            self._on_delay(time.time() - newest_us / 1e6)

    async def _review_markets(self) -> None:
        """Look at the exchange's list again: what is halted now, what may be followed now."""
        while True:
            await asyncio.sleep(self.config.quarantine_s)
            if not await self.listing.reload():
                continue
            unlisted = [symbol for symbol in self.quarantined if symbol not in self.feeds]
            listed = [symbol for symbol in unlisted if self._symbols.refusal(symbol) is None]
            self._subscriptions.add([symbol for symbol in listed if self._accept(symbol)])
            for symbol, feed in self.feeds.items():
                reason = self._symbols.refusal(symbol)
                # The next trade makes it live again.
                if reason is not None and feed.change_state("halted", 0):
                    log.warning("stream.halted", exchange=self.name, symbol=symbol, reason=reason)
                    self._mark(feed)

    async def _heal_candles(self) -> None:
        """Once a minute: fetch the candles that ended and that the stream did not bring."""
        while True:
            await asyncio.sleep(CANDLES_EVERY_S)
            clock_us = self.clock.now_us(time.monotonic_ns() // 1000)
            await self._candle_healer.heal(list(self.feeds.values()), clock_us)

    async def _finish(self) -> None:
        """End a recording: wait for its last frame, make sure of the last trade, say so."""
        end = RecordingEnd(self.feeds.values(), self.clock, self._healer, self.config.until_us)
        await end.reached(self._catch_up)
        if self.config.exchange_candles:
            for _ in range(ASK_MAX):
                await self._candle_healer.heal(self.feeds.values(), self.config.until_us, 0)
        for feed in self.feeds.values():
            feed.finish(self.config.until_us)
            self._mark(feed)
        self._done.set()
