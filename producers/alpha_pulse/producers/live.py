"""The live producer: an exchange's trades and closed candles into the ingest log.

One event loop turn: frames are decoded as they are read from the socket and put into their
symbol's feed; the pump then publishes each feed's events, many at a time.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import ccxt.pro
import structlog

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.market import ids_are_consecutive
from alpha_pulse.contracts.topics import DEAD_LETTERS, INGEST
from alpha_pulse.producers.catch_up import CatchUp
from alpha_pulse.producers.continuity import ConsecutiveIds, SeenIds
from alpha_pulse.producers.dead_letters import DeadLetters
from alpha_pulse.producers.exchange import exchange_name, make_exchange
from alpha_pulse.producers.frames import DECODERS
from alpha_pulse.producers.frames.frame import FrameDecoder, FrameError, FrameTime
from alpha_pulse.producers.healing import Healer
from alpha_pulse.producers.heartbeat import SETTLE_US, ExchangeClock
from alpha_pulse.producers.limiter import Limiter, backoff_s
from alpha_pulse.producers.subscriptions import Subscriptions
from alpha_pulse.producers.symbol_feed import SymbolFeed, Tracker
from alpha_pulse.producers.tap import Socket

log = structlog.get_logger()

TICK_S = 0.25
# A subscription without a frame for so long is live all the same: the market is quiet.
SUBSCRIBED_AFTER_US = 1_000_000


class EventPublisher(Protocol):
    """What the live producer needs of `contracts.kafka.Publisher`."""

    pending_bytes: int

    async def publish(self, topic: str, key: bytes, values: Sequence[bytes]) -> None:
        """Queue values of one key; wait while too much is pending."""
        ...

    async def flush(self) -> None:
        """Wait until everything is acknowledged."""
        ...


class LiveProducer:
    """Follows the symbols of one exchange until it is stopped or the recording ends.

    resume: symbol -> (id, time µs) of the last trade in the log; a symbol that is not in it begins
    with its first frame. The publisher is started and stopped by the caller.
    """

    def __init__(
        self,
        config: ProducerConfig,
        publisher: EventPublisher,
        *,
        namespace: str = "",
        resume: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        self.config = config
        self.name = exchange_name(config)
        self.feeds: dict[str, SymbolFeed] = {}
        self.frames = 0
        self._publisher = publisher
        self._topic = INGEST.full_name(namespace)
        self._dead_letter_topic = DEAD_LETTERS.full_name(namespace)
        self._resume = dict(resume or {})
        self._clock = ExchangeClock(event=config.clock == "event")
        self._dead_letters = DeadLetters(self.name)
        self._dead_letter_box: list[tuple[bytes, bytes]] = []
        self._symbol_of: dict[str, str] = {}
        self._dirty: set[SymbolFeed] = set()
        self._wake = asyncio.Event()
        self._gate = asyncio.Event()
        self._gate.set()
        self._paused_for: set[str] = set()
        self._done = asyncio.Event()
        self._client: Any = None
        self._decode: FrameDecoder
        self._catch_up: CatchUp
        self._limiter = Limiter(self.name)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set or, with the event clock, `until_us` is reached.

        Everything taken is acknowledged by Kafka when this returns.
        """
        self._client = make_exchange(self.config, self._on_frame)
        self._client.gate = self._gate
        try:
            if not await self._load_markets(stop):
                return
            await self._follow(stop)
        finally:
            await self._client.close()

    async def _follow(self, stop: asyncio.Event) -> None:
        self._decode = DECODERS[self._client.id](self.name, self._symbol_of)
        healer = Healer(self.name, self._client, self._limiter)
        self._catch_up = CatchUp(healer, on_progress=self._mark, on_done=self._go_live)
        subscriptions = Subscriptions(
            self._client,
            self._limiter,
            candles=self.config.exchange_candles,
            on_lost=self._on_lost,
            on_refused=self._on_refused,
        )
        subscriptions.add(self._accepted_symbols())
        loops = [asyncio.create_task(loop()) for loop in (self._pump, self._tick)]
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
            await subscriptions.stop()
            await self._catch_up.stop()
            await asyncio.gather(*loops, *ends, return_exceptions=True)
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

    def _accepted_symbols(self) -> list[str]:
        accepted = []
        for symbol in self.config.symbols:
            if symbol not in self._client.markets:
                self._on_refused(symbol, "the exchange does not list it")
                continue
            market = self._client.market(symbol)
            self._symbol_of[market["id"]] = symbol
            feed = SymbolFeed(
                self.name,
                symbol,
                self._tracker(symbol),
                grace_us=int(self.config.heartbeat_grace_s * 1e6),
            )
            feed.caught_up = symbol not in self._resume
            self.feeds[symbol] = feed
            accepted.append(symbol)
        return accepted

    def _tracker(self, symbol: str) -> Tracker:
        if not ids_are_consecutive(self.name):
            return SeenIds()
        last = self._resume.get(symbol)
        return ConsecutiveIds(
            last_id=int(last[0]) if last else None,
            last_time_us=last[1] if last else 0,
            hold_back_trades_max=self.config.hold_back_trades_max,
            hold_back_us_max=int(self.config.hold_back_s_max * 1e6),
        )

    # Frames in

    def _on_frame(self, socket: Socket, frame: str | bytes, hand_on: Callable[[Any], None]) -> None:
        now_us = time.monotonic_ns() // 1000
        socket.frames += 1
        socket.frame_at_us = now_us
        self.frames += 1
        try:
            text = frame if isinstance(frame, str) else frame.decode()
            ticks = self._decode(text, time.time_ns() // 1000)
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
            feed = self.feeds[tick.symbol]
            if type(tick) is Trade:
                self._clock.observe(tick.trade_time_us, now_us)
                if feed.state != "live":
                    self._connected(feed, tick.trade_time_us)
                feed.take_trade(tick, now_us)
                if feed.tracker.held:
                    self._heal(feed)
            elif isinstance(tick, Candle):
                feed.take_candle(tick)
            elif isinstance(tick, FrameTime):
                self._clock.observe(tick.time_us, now_us)
                continue
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
        letter = self._dead_letters.make(frame, error, time.time_ns() // 1000)
        if letter is not None:
            log.warning("frame.refused", exchange=self.name, reason=letter.reason)
            self._dead_letter_box.append((letter.identity.encode(), encode(letter)))
            self._wake.set()

    # States of a symbol

    def _connected(self, feed: SymbolFeed, time_us: int = 0) -> None:
        """A symbol's subscription works: it is live once REST shows nothing that it missed.

        time_us: of the tick that showed it.
        """
        if feed.caught_up:
            self._go_live(feed, time_us)
        else:
            self._catch_up.start(feed)

    def _go_live(self, feed: SymbolFeed, complete_until_us: int = 0) -> None:
        if self.config.clock == "exchange":
            complete_until_us = self._clock.now_us(time.monotonic_ns() // 1000) - SETTLE_US
        if feed.change_state("live", max(complete_until_us, 0)):
            log.info("stream.live", exchange=self.name, symbol=feed.symbol)
        self._mark(feed)

    def _on_lost(self, symbols: list[str], reason: str) -> None:
        log.warning("stream.lost", exchange=self.name, symbols=len(symbols), reason=reason)
        for symbol in symbols:
            feed = self.feeds[symbol]
            feed.caught_up = False
            if feed.state is not None and feed.change_state("disconnected", 0):
                self._mark(feed)

    def _on_refused(self, symbol: str, reason: str) -> None:
        log.error("symbol.quarantined", exchange=self.name, symbol=symbol, reason=reason)

    def _heal(self, feed: SymbolFeed) -> None:
        self._catch_up.start(feed)
        if feed.tracker.held > self.config.hold_back_trades_max // 2:
            self._pause(f"hole:{feed.symbol}")

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
        self._paused_for.add(reason)
        self._gate.clear()

    def _go_on(self, reason: str) -> None:
        self._paused_for.discard(reason)
        if not self._paused_for:
            self._gate.set()

    # Time

    async def _tick(self) -> None:
        due = asyncio.get_running_loop().time()
        while True:
            due += TICK_S
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, due - now))
            late_s = asyncio.get_running_loop().time() - due
            if late_s > TICK_S:
                # The loop was busy: frames may wait unread, so nothing is complete until now.
                due = asyncio.get_running_loop().time()
                continue
            self._check_feeds()

    def _check_feeds(self) -> None:
        now_us = time.monotonic_ns() // 1000
        clock_us = self._clock.now_us(now_us)
        for feed in self.feeds.values():
            tracker = feed.tracker
            if isinstance(tracker, ConsecutiveIds) and tracker.must_give_up(now_us):
                reason = f"not filled over REST within {self.config.hold_back_s_max:g} s"
                feed.take_events(tracker.give_up(now_us, reason))
            elif self.config.clock == "exchange" and not self._paused_for:
                feed.beat_if_due(clock_us)
            if feed.outbox:
                self._mark(feed)

    async def _finish(self) -> None:
        """End a recording: wait for its last frame, make sure of the last trade, say so."""
        while self._clock.frame_us < self.config.until_us or not self._all_complete():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        while True:
            try:
                newer = [await self._catch_up.newest(feed) for feed in self.feeds.values()]
            except Exception as error:
                log.warning("recording.unchecked", error=str(error)[:300])
                await asyncio.sleep(0.2)
                continue
            if not any(newer) and self._all_complete():
                break
        for feed in self.feeds.values():
            feed.finish(self.config.until_us)
            self._mark(feed)
        self._done.set()

    def _all_complete(self) -> bool:
        return all(feed.is_complete and feed.state == "live" for feed in self.feeds.values())


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
