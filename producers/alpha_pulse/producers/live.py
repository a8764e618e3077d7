"""The live producer: an exchange's trades and closed candles into the ingest log.

One event loop turn: frames are decoded as they are read from the socket (`feed.intake`), their
ticks go into their symbols' feeds (`streams`), and the pump publishes each feed's events, many at a
time. What a symbol's states are stands in `feed.state`.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.topics import DEAD_LETTERS, INGEST
from alpha_pulse.producers.connection.client import make_exchange
from alpha_pulse.producers.connection.limiter import RETRY_AFTER_S, Limiter
from alpha_pulse.producers.connection.listing import Listing
from alpha_pulse.producers.connection.subscriptions import Subscriptions
from alpha_pulse.producers.connection.symbols import SymbolTable, shard_of
from alpha_pulse.producers.connection.tap import Frame, Socket
from alpha_pulse.producers.exchanges.names import exchange_name
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.tick import SystemStatus
from alpha_pulse.producers.feed.intake import Intake
from alpha_pulse.producers.feed.pump import EventLog, Gate, Pump
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.healing.candle_healing import CandleHealer
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.liveness.heartbeat import ExchangeClock
from alpha_pulse.producers.metrics import ProducerReading
from alpha_pulse.producers.recording_end import RecordingEnd
from alpha_pulse.producers.streams import Streams
from alpha_pulse.producers.watchdog import Watchdog

log = structlog.get_logger()


class LiveProducer:
    """Follows the symbols of one exchange until it is stopped or its recording ends.

    Args:
        config: the producer's settings.
        event_log: where the events go; started and stopped by the caller.
        namespace: of the topics.
        resume: symbol -> (id, time in µs) of the last trade in the log; a symbol that is not in it
            begins with its first frame.
        on_raw: called with each frame as it came (captures).
        on_delay: called for each batch with the seconds from the exchange's time of its newest
            trade to its handing over to the log.
    """

    def __init__(
        self,
        config: ProducerConfig,
        event_log: EventLog,
        *,
        namespace: str = "",
        resume: Mapping[str, tuple[str, int]] | None = None,
        on_raw: Callable[[Frame], None] | None = None,
        on_delay: Callable[[float], None] | None = None,
    ) -> None:
        self.config = config
        self.name = exchange_name(config)
        self._resume = dict(resume or {})
        # A recording at full speed has no delay to speak of.
        self._on_delay = on_delay if config.clock == "exchange" else None
        self._unlisted: dict[str, str] = {}  # symbol -> why it can't be followed now
        self._trades_reviewed: dict[str, int] = {}  # symbol -> how many when it was last reviewed
        self._done = asyncio.Event()
        self._clock = ExchangeClock(event=config.clock == "event")
        self._sockets: dict[str, Socket] = {}
        self._gate = Gate(self.name)
        client = self._client = make_exchange(config, self._receive)
        client.on_tapped = self._add_socket
        client.gate = self._gate.event
        self.limiter = Limiter(self.name)
        self._listing = Listing(config, self.name, client, self.limiter)
        self._symbols = SymbolTable(client)
        self._healer = Healer(self.name, client, self.limiter)
        self._pump = Pump(
            event_log,
            self._gate,
            topic=INGEST.full_name(namespace),
            dead_letter_topic=DEAD_LETTERS.full_name(namespace),
            pending_bytes_max=config.publish_pending_bytes_max,
            on_published=self._measure_delay,
        )
        streams = self.streams = Streams(
            config,
            self.name,
            self._healer,
            clock=self._clock,
            sockets=self._sockets,
            gate=self._gate,
            pump=self._pump,
            quarantine=self._quarantine,
            throttle=self._throttle,
        )
        self.intake = Intake(
            self.name,
            client.id,
            self._symbols,
            on_trades=streams.add_trades,
            on_tick=streams.add_tick,
            on_letter=self._pump.add_letter,
            on_raw=on_raw,
        )
        self._subscriptions = Subscriptions(
            client,
            self.limiter,
            streams,
            on_unified=self.intake.receive_unified,
            candles=config.exchange_candles and exchange_of(client.id).decoder is not None,
            quarantine_s=config.quarantine_s,
            reconnect_wait_s_max=config.reconnect_wait_s_max,
        )
        self._watchdog = Watchdog(client, config, self._clock, self._sockets, self._gate, streams)
        self._candle_healer = CandleHealer(self._healer, on_progress=streams.mark)

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop` is set or, with the event clock, `until_us` is reached.

        Everything received is acknowledged by the log when this returns.

        Args:
            stop: set by the caller.

        Raises:
            KafkaError: a record is refused for good.
        """
        try:
            if await self._listing.load(stop):
                await self._follow(stop)
        finally:
            await self._client.close()

    async def _follow(self, stop: asyncio.Event) -> None:
        await self.set_symbols(self.config.symbols)
        running = [self._pump.run, self._watchdog.run, self._review_listing]
        if self.config.exchange_candles and self.config.clock == "exchange":
            running.append(self._heal_candles)
        if self.config.clock == "event" and self.config.until_us:
            running.append(self._finish)
        loops = [asyncio.create_task(loop()) for loop in running]
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
            await self.streams.catch_up.stop()
            await asyncio.gather(*loops, *ends, return_exceptions=True)
        self.streams.end()
        await self._pump.flush()

    # Which symbols are followed

    async def set_symbols(self, symbols: Iterable[str]) -> None:
        """Follow exactly these symbols from now on; those that stay are not touched.

        Args:
            symbols: of all shards; this producer follows its shard of them.
        """
        wanted = shard_of(symbols, self.config.shard_index, self.config.shard_count)
        known = (*self.streams.feeds, *self._unlisted)
        removed = [symbol for symbol in known if symbol not in wanted]
        await self._subscriptions.remove(removed)
        for symbol in removed:
            self._unlisted.pop(symbol, None)
            self._trades_reviewed.pop(symbol, None)
            self._symbols.remove(symbol)
            self.streams.remove(symbol)
        self._add([symbol for symbol in wanted if symbol not in self.streams.feeds])
        log.info("symbols.followed", exchange=self.name, symbols=len(self.streams.feeds))

    def _add(self, symbols: Iterable[str]) -> None:
        added: list[str] = []
        for symbol in symbols:
            reason = self._listing.refusal(symbol)
            if reason is not None:
                if self._unlisted.get(symbol) != reason:
                    log.error(
                        "symbol.quarantined", exchange=self.name, symbol=symbol, reason=reason
                    )
                self._unlisted[symbol] = reason
                continue
            self._unlisted.pop(symbol, None)
            self._symbols.add(symbol)
            self.streams.add(symbol, self._resume.get(symbol))
            added.append(symbol)
            self._review(symbol)
        self._subscriptions.add(added)

    def _review(self, symbol: str) -> None:
        reason = self._listing.refusal(symbol)
        if reason is None:
            reason = self._listing.halt(symbol)
            # Whatever the list says, what was traded since the last review is not halted.
            count = self.streams.feeds[symbol].trades
            if count != self._trades_reviewed.get(symbol, 0):
                self._trades_reviewed[symbol] = count
                return
        if reason is not None:
            self.streams.on_halted(symbol, reason)

    async def _review_listing(self) -> None:
        """Look at the exchange's list again: what may be followed now, what is halted now."""
        while True:
            await asyncio.sleep(self.config.quarantine_s)
            if not await self._listing.reload():
                continue
            self._add(list(self._unlisted))
            for symbol in list(self.streams.feeds):
                self._review(symbol)
            status = await self._listing.maintenance()
            if status is not None:
                self.streams.add_tick(SystemStatus(not status, status), 0)

    def _quarantine(self, symbol: str) -> None:
        self._subscriptions.quarantine(symbol)

    def _throttle(self, symbols: Sequence[str]) -> None:
        self.limiter.hold(RETRY_AFTER_S)
        for symbol in symbols:
            self._subscriptions.ask_again(symbol, RETRY_AFTER_S)

    @property
    def quarantined(self) -> dict[str, str]:
        """The symbols that the exchange does not list or refuses now, and why."""
        return self._unlisted | self.streams.refused

    # From the sockets, and to the log

    def _receive(self, socket: Socket, frames: list[Frame]) -> None:
        self.intake.receive(socket, frames)

    def _add_socket(self, socket: Socket) -> None:
        self._sockets[socket.url] = socket
        self.intake.add_socket(socket)

    def _measure_delay(self, feed: SymbolFeed) -> None:
        newest_us = feed.tracker.last_time_us
        if self._on_delay is not None and newest_us > feed.measured_us:
            feed.measured_us = newest_us
            self._on_delay(time.time() - newest_us / 1e6)

    async def _heal_candles(self) -> None:
        await self._candle_healer.run(self.streams.feeds, self._clock)

    async def _finish(self) -> None:
        end = RecordingEnd(self.config, self._clock, self._healer, self.streams)
        await end.reach(self._candle_healer)
        self._done.set()

    # What is measured

    @property
    def gate_is_open(self) -> bool:
        """Whether the sockets are being read."""
        return self._gate.is_open

    def reading(self) -> ProducerReading:
        """Return what is counted and measured now."""
        feeds = self.streams.feeds.values()
        totals = self.streams.totals
        states: dict[str, int] = {"quarantined": len(self.quarantined)}
        for feed in feeds:
            said = feed.said or "starting"
            states[said] = states.get(said, 0) + 1
        return ProducerReading(
            is_listed=self._listing.is_loaded,
            is_reading=self._gate.is_open,
            symbols=len(feeds),
            states=states,
            frames=self.intake.frames,
            rejected=self.intake.dead_letters.reasons,
            reconnects=self.streams.reconnects,
            limited=self.limiter.limited,
            rest_calls=self.limiter.calls,
            trades=totals.trades,
            duplicates=totals.duplicates,
            gaps=totals.gaps,
            gap_us=totals.gap_us,
            held_back=sum(feed.tracker.held for feed in feeds),
            last_trade_us=max((feed.tracker.last_time_us for feed in feeds), default=0),
        )
