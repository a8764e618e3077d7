"""The live producer: an exchange's trades and closed candles into the ingest log.

One event loop turn: frames are decoded as they are read from the socket and put into their
symbol's feed; the pump then publishes each feed's events, many at a time.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import ccxt.pro
import structlog

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import DataFetchError, ValidationError
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.market import ids_are_consecutive
from alpha_pulse.contracts.topics import DEAD_LETTERS, INGEST
from alpha_pulse.producers.catch_up import CatchUp
from alpha_pulse.producers.continuity import ConsecutiveIds, SeenIds
from alpha_pulse.producers.dead_letters import DeadLetters
from alpha_pulse.producers.exchange import exchange_name, make_exchange
from alpha_pulse.producers.frames import DECODERS
from alpha_pulse.producers.frames.frame import FrameDecoder, FrameError, FrameTime, Refusal
from alpha_pulse.producers.healing import Healer, unified_trade
from alpha_pulse.producers.heartbeat import SETTLE_US, ExchangeClock
from alpha_pulse.producers.limiter import Limiter, backoff_s
from alpha_pulse.producers.recording_end import RecordingEnd
from alpha_pulse.producers.subscriptions import Subscriptions
from alpha_pulse.producers.symbol_feed import SymbolFeed, Tracker
from alpha_pulse.producers.symbols import SymbolTable, shard_of
from alpha_pulse.producers.tap import Socket

log = structlog.get_logger()

TICK_S = 0.25
# A subscription without a frame for so long works all the same: the market is quiet.
SUBSCRIBED_AFTER_US = 1_000_000
FRAME_CHARACTERS_MAX = 4 * 2**20


class EventPublisher(Protocol):
    """What the live producer needs of `contracts.kafka.publisher.Publisher`."""

    pending_bytes: int

    async def publish(self, topic: str, key: bytes, values: Sequence[bytes]) -> None:
        """Queue values of one key; wait while too much is pending."""
        ...

    async def flush(self) -> None:
        """Wait until everything is acknowledged."""
        ...


class LiveProducer:
    """Follows the symbols of one exchange until it is stopped or the recording ends.

    resume: symbol -> (id, time in µs) of the last trade in the log; a symbol that is not in it
    begins with its first frame. The publisher is started and stopped by the caller. on_raw: called
    with each frame as it came (captures).
    """

    def __init__(
        self,
        config: ProducerConfig,
        publisher: EventPublisher,
        *,
        namespace: str = "",
        resume: Mapping[str, tuple[str, int]] | None = None,
        on_raw: Callable[[str | bytes], None] | None = None,
    ) -> None:
        self.config = config
        self.name = exchange_name(config)
        self.feeds: dict[str, SymbolFeed] = {}
        self.frames = 0
        self.quarantined: dict[str, str] = {}  # symbol -> why
        self.dead_letters = DeadLetters(self.name)
        self.clock = ExchangeClock(event=config.clock == "event")
        self._publisher = publisher
        self._topic = INGEST.full_name(namespace)
        self._dead_letter_topic = DEAD_LETTERS.full_name(namespace)
        self._dead_letter_box: list[tuple[bytes, bytes]] = []
        self._resume = dict(resume or {})
        self._on_raw = on_raw
        self._decoders: dict[str, FrameDecoder] = {}
        self._sockets: dict[str, Socket] = {}
        self._subscribing_us: dict[str, int] = {}
        self._dirty: set[SymbolFeed] = set()
        self._wake = asyncio.Event()
        self._gate = asyncio.Event()
        self._gate.set()
        self._paused_for: set[str] = set()
        self._resumed_at_us = 0
        self._done = asyncio.Event()
        self._limiter = Limiter(self.name)
        self._probes: set[asyncio.Task[None]] = set()
        self._client: Any = make_exchange(config, self._on_frame)
        self._client.on_tapped = self._on_tapped
        self._client.gate = self._gate
        self._symbols = SymbolTable(self._client)
        healer = self._healer = Healer(self.name, self._client, self._limiter)
        self._catch_up = CatchUp(
            healer,
            seek_us_max=int(config.seek_s_max * 1e6),
            on_progress=self._mark,
            on_done=self._go_live,
        )
        self._subscriptions = Subscriptions(
            self._client,
            self._limiter,
            self,
            candles=config.exchange_candles and self._client.id in DECODERS,
            quarantine_s=config.quarantine_s,
            reconnect_wait_s_max=config.reconnect_wait_s_max,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set or, with the event clock, `until_us` is reached.

        Everything taken is acknowledged by Kafka when this returns.
        """
        try:
            if await self._load_markets(stop):
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
            if feed is not None and feed.change_state("disconnected", 0):
                self._mark(feed)
        new = [symbol for symbol in wanted if symbol not in self.feeds]
        self._subscriptions.add([symbol for symbol in new if self._accept(symbol)])
        log.info("symbols.followed", exchange=self.name, symbols=len(self.feeds))

    async def _follow(self, stop: asyncio.Event) -> None:
        await self.set_symbols(self.config.symbols)
        loops = [asyncio.create_task(loop()) for loop in (self._pump, self._tick)]
        if self.config.clock == "event" and self.config.until_us:
            loops.append(asyncio.create_task(self._finish()))
        ends = [asyncio.create_task(event.wait()) for event in (stop, self._done)]
        try:
            finished, _ = await asyncio.wait([*loops, *ends], return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
        finally:
            for task in (*loops, *ends, *self._probes):
                task.cancel()
            await self._subscriptions.stop()
            await self._catch_up.stop()
            await asyncio.gather(*loops, *ends, *self._probes, return_exceptions=True)
        if not self._done.is_set():
            for feed in self.feeds.values():
                if feed.state == "live" and feed.change_state("disconnected", 0):
                    self._mark(feed)
        await self._publish_all()
        await self._publisher.flush()

    async def _load_markets(self, stop: asyncio.Event) -> bool:
        attempt = 0
        while not stop.is_set():
            try:
                async with self._limiter:
                    await self._client.load_markets()
                return True
            except ccxt.pro.BaseError as error:
                attempt += 1
                banned_s = self._limiter.obey(error, self._client)
                wait_s = max(banned_s, backoff_s(attempt, first_s=0.5))
                log.warning(
                    "exchange.unreachable",
                    exchange=self.name,
                    url=self.config.exchange_url or str(self._client.urls.get("www")),
                    error=f"{type(error).__name__}: {str(error)[:200]}",
                    retry_in_s=round(wait_s, 1),
                )
                await _sleep_unless(stop, wait_s)
        return False

    def _accept(self, symbol: str) -> bool:
        reason = self._symbols.refusal(symbol)
        if reason is not None:
            self.on_refused(symbol, reason)
            return False
        self.quarantined.pop(symbol, None)
        self._symbols.add(symbol)
        feed = SymbolFeed(
            self.name,
            symbol,
            self._tracker(symbol),
            grace_us=int(self.config.heartbeat_grace_s * 1e6),
            silence_us_max=int(self.config.silence_s_max * 1e6),
            waiting_max=self.config.hold_back_trades_max,
        )
        feed.caught_up = symbol not in self._resume
        self.feeds[symbol] = feed
        return True

    def _tracker(self, symbol: str) -> Tracker:
        last_id, last_time_us = self._resume.get(symbol, (None, 0))
        if not ids_are_consecutive(self.name):
            return SeenIds(last_id=last_id, last_time_us=last_time_us)
        return ConsecutiveIds(
            last_id=None if last_id is None else int(last_id),
            last_time_us=last_time_us,
            hold_back_trades_max=self.config.hold_back_trades_max,
            hold_back_us_max=int(self.config.hold_back_s_max * 1e6),
        )

    # Frames in

    def _on_tapped(self, socket: Socket) -> None:
        self._sockets[socket.url] = socket
        make = DECODERS.get(self._client.id)
        if make is not None and socket.url not in self._decoders:
            self._decoders[socket.url] = make(self.name, self._symbols.at(socket.url))

    def _on_frame(self, socket: Socket, frame: str | bytes, hand_on: Callable[[Any], None]) -> None:
        now_us = time.monotonic_ns() // 1000
        self.frames += 1
        if self._on_raw is not None:
            self._on_raw(frame)
        try:
            text = frame if isinstance(frame, str) else frame.decode()
            if len(text) > FRAME_CHARACTERS_MAX:
                raise FrameError(
                    f"expected a frame of at most 4 MiB, found {len(text)}", "too_large"
                )
            decode = self._decoders.get(socket.url)
            ticks = decode(text, time.time_ns() // 1000) if decode is not None else None
        except FrameError as error:
            self._dead_letter(frame, error)
            return
        except UnicodeDecodeError as error:
            self._dead_letter(frame, FrameError(f"expected UTF-8 text: {error}"))
            return
        if ticks is None:
            self._hand_on(text, hand_on)
            return
        for tick in ticks:
            if type(tick) is Trade:
                self._take(tick, now_us)
            elif isinstance(tick, Refusal):
                self.on_refused(tick.symbol, tick.reason)
            elif isinstance(tick, FrameTime):
                self.clock.observe(tick.time_us, now_us)
                self._heard(self.feeds[tick.symbol])
            elif isinstance(tick, Candle):
                feed = self.feeds[tick.symbol]
                feed.take_candle(tick)
                self._mark(feed)

    def _take(self, trade: Trade, now_us: int) -> None:
        feed = self.feeds[trade.symbol]
        self.clock.observe(trade.trade_time_us, now_us)
        if feed.state != "live":
            self._connected(feed, trade.trade_time_us)
        feed.take_trade(trade, now_us)
        if feed.tracker.held:
            self._catch_up.start(feed)
            if feed.tracker.held > self.config.hold_back_trades_max // 2:
                self._pause(f"hole:{feed.symbol}")
        if feed.outbox:
            self._mark(feed)

    def _hand_on(self, text: str, hand_on: Callable[[Any], None]) -> None:
        # An exception in here would end ccxt's receive loop, silently and for ever.
        try:
            hand_on(text)
        except Exception as error:
            self._dead_letter(
                text,
                FrameError(f"expected a frame of {self.name}, found one ccxt refused: {error!r}"),
            )

    def _dead_letter(self, frame: str | bytes, error: FrameError) -> None:
        letter = self.dead_letters.make(frame, error, time.time_ns() // 1000)
        if letter is not None:
            log.warning("frame.refused", exchange=self.name, reason=letter.reason)
            self._dead_letter_box.append((letter.identity.encode(), encode(letter)))
            self._wake.set()

    # What becomes of subscriptions (see subscriptions.Listener)

    def on_subscribing(self, symbols: list[str]) -> None:
        """Note that symbols are being subscribed to."""
        now_us = time.monotonic_ns() // 1000
        self._subscribing_us |= dict.fromkeys(symbols, now_us)

    def on_lost(self, symbols: list[str], reason: str) -> None:
        """Say that symbols are disconnected."""
        log.warning("stream.lost", exchange=self.name, symbols=len(symbols), reason=reason)
        for symbol in symbols:
            self._subscribing_us.pop(symbol, None)
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
        self._subscribing_us.pop(symbol, None)
        feed = self.feeds.get(symbol)
        if feed is not None:
            feed.caught_up = False
            self._subscriptions.quarantine(symbol)
            if feed.change_state("halted", 0):
                self._mark(feed)

    def on_unified(self, rows: list[Any]) -> None:
        """Take trades that ccxt decoded itself."""
        now_us = time.monotonic_ns() // 1000
        for row in rows:
            try:
                self._take(unified_trade(self.name, str(row.get("symbol")), row), now_us)
            except (ValidationError, ValueError, KeyError) as error:
                frame = json.dumps(row.get("info") or row, default=str)
                self._dead_letter(frame, FrameError(f"expected a trade of ccxt: {error}"))

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
        if self.config.clock == "exchange" and not self._paused_for:
            complete_until_us = max(0, self.clock.now_us(now_us) - SETTLE_US)
        feed.silence.heard(now_us)
        if feed.change_state("live", complete_until_us):
            log.info("stream.live", exchange=self.name, symbol=feed.symbol)
        self._mark(feed)

    # Events out

    def _mark(self, feed: SymbolFeed) -> None:
        if feed.outbox:
            self._dirty.add(feed)
            self._wake.set()
        if self._paused_for and not feed.tracker.held:
            self._go_on(f"hole:{feed.symbol}")

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._publish_all()

    async def _publish_all(self) -> None:
        while self._dirty or self._dead_letter_box:
            letters, self._dead_letter_box = self._dead_letter_box, []
            for key, value in letters:
                await self._publisher.publish(self._dead_letter_topic, key, [value])
            feeds, self._dirty = self._dirty, set()
            for feed in feeds:
                values, feed.outbox = feed.outbox, []
                if self._publisher.pending_bytes > self.config.publish_pending_bytes_max:
                    self._pause("kafka")
                await self._publisher.publish(self._topic, feed.key, values)
            self._go_on("kafka")

    def _pause(self, reason: str) -> None:
        if not self._paused_for:
            log.warning("reading.paused", exchange=self.name, reason=reason)
        self._paused_for.add(reason)
        self._gate.clear()

    def _go_on(self, reason: str) -> None:
        if reason in self._paused_for:
            self._paused_for.discard(reason)
            if not self._paused_for:
                self._resumed_at_us = time.monotonic_ns() // 1000
                self._gate.set()

    # Time

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += TICK_S
            await asyncio.sleep(max(0.0, due - loop.time()))
            if loop.time() - due > TICK_S:
                # The loop was busy: frames may wait unread, so nothing is complete until now.
                due = loop.time()
                continue
            self._check_feeds(time.monotonic_ns() // 1000)

    def _check_feeds(self, now_us: int) -> None:
        clock_us = self.clock.now_us(now_us)
        # After a pause the socket's backlog is read first: its frames are older than the clock.
        reading = not self._paused_for and now_us - self._resumed_at_us > SUBSCRIBED_AFTER_US
        for feed in self.feeds.values():
            tracker = feed.tracker
            if isinstance(tracker, ConsecutiveIds) and tracker.must_give_up(now_us):
                reason = f"not filled over REST within {self.config.hold_back_s_max:g} s"
                log.warning("gap.opened", symbol=feed.symbol, reason=reason)
                feed.take_events(tracker.give_up(now_us, reason))
            if not reading:
                feed.silence.heard(now_us)
            elif feed.state != "live":
                if self._is_subscribed(feed, now_us):
                    self._connected(feed)
            else:
                if self.config.clock == "exchange":
                    feed.beat_if_due(clock_us)
                feed.silence.sample(feed.trades + tracker.duplicates + tracker.held, now_us)
                if feed.silence.must_ask(now_us):
                    self._probe(feed)
            self._mark(feed)

    def _is_subscribed(self, feed: SymbolFeed, now_us: int) -> bool:
        since_us = self._subscribing_us.get(feed.symbol)
        connected_us = [socket.connected_at_us for socket in self._sockets.values()]
        if since_us is None or not connected_us or not all(connected_us):
            return False
        first_start = self.config.clock == "event" and feed.caught_up
        return not first_start and now_us - max(since_us, *connected_us) > SUBSCRIBED_AFTER_US

    def _probe(self, feed: SymbolFeed) -> None:
        task = asyncio.create_task(self._ask_rest(feed))
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _ask_rest(self, feed: SymbolFeed) -> None:
        """A symbol is silent: quiet where REST shows nothing newer, else its stream is dead."""
        heard = feed.trades
        try:
            dead = await self._catch_up.newest(feed) and feed.trades > heard
            reason = "REST shows trades that the stream did not bring"
        except DataFetchError as error:
            dead = feed.silence.is_improbable(time.monotonic_ns() // 1000)
            reason = f"silent for improbably long, and REST fails: {str(error)[:200]}"
        if dead and feed.state == "live":
            self._reconnect(reason)

    def _reconnect(self, reason: str) -> None:
        log.warning("stream.silent", exchange=self.name, reason=reason)
        for client in list((self._client.clients or {}).values()):
            client.on_error(ccxt.pro.NetworkError(reason))

    async def _finish(self) -> None:
        """End a recording: wait for its last frame, make sure of the last trade, say so."""
        end = RecordingEnd(self.feeds.values(), self.clock, self._healer, self.config.until_us)
        await end.reached(self._catch_up)
        for feed in self.feeds.values():
            feed.finish(self.config.until_us)
            self._mark(feed)
        self._done.set()


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
