"""The watchdog: what is due by time, and streams that are open but bring nothing."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import ccxt.pro
import structlog

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.producers.connection.tap import Socket
from alpha_pulse.producers.feed.continuity import ConsecutiveIds
from alpha_pulse.producers.feed.pump import Gate
from alpha_pulse.producers.feed.state import Event, State
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.liveness.heard import REST_LAG_US
from alpha_pulse.producers.liveness.heartbeat import ExchangeClock
from alpha_pulse.producers.streams import Streams

log = structlog.get_logger()

TICK_S = 0.25
# A subscription without a frame for so long works all the same: the market is quiet.
SUBSCRIBED_AFTER_US = 1_000_000
VERIFY_EVERY_US = 10_000_000
# A heartbeat that nothing else allows is asked for over REST this often.
PROVE_EVERY_US = 5_000_000


class Watchdog:
    """Looks at every feed a few times a second.

    Sends heartbeats that are due, gives holes up in time, sees that a quiet symbol is subscribed,
    and compares a silent one with REST.

    Args:
        client: the tapped ccxt exchange.
        config: the producer's settings.
        clock: the exchange's time.
        sockets: the exchange's connections by address.
        gate: whether they are read.
        streams: the symbols' feeds.
    """

    def __init__(
        self,
        client: Any,
        config: ProducerConfig,
        clock: ExchangeClock,
        sockets: Mapping[str, Socket],
        gate: Gate,
        streams: Streams,
    ) -> None:
        self._client = client
        self._config = config
        self._event_clock = config.clock == "event"
        self._clock = clock
        self._sockets = sockets
        self._gate = gate
        self._streams = streams
        self._verified_us: dict[str, int] = {}
        self._proved_us: dict[str, int] = {}
        self._probes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look at the feeds for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += TICK_S
            await asyncio.sleep(max(0.0, due - loop.time()))
            if loop.time() - due > TICK_S:
                # The loop was busy: frames may wait unread, so nothing is complete until now.
                due = loop.time()
                continue
            self._check(_now_us())

    async def stop(self) -> None:
        """End the conversations with REST."""
        for task in self._probes:
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    def _check(self, now_us: int) -> None:
        # After a pause the socket's backlog is read first: its frames are older than the clock.
        opened_us = self._gate.opened_at_us
        reading = self._gate.is_open and now_us - opened_us > SUBSCRIBED_AFTER_US
        for socket in self._sockets.values():
            silence = socket.heard.silence
            silence.sample(socket.heard.frames, now_us) if reading else silence.heard(now_us)
        for feed in self._streams.feeds.values():
            self._give_up_holes(feed, now_us)
            if not reading:
                feed.silence.heard(now_us)
            elif feed.state is State.LIVE:
                self._check_live(feed, now_us)
            elif self._is_subscribed(feed, now_us):
                self._streams.send(feed, Event.SUBSCRIBED)
            self._streams.mark(feed)

    def _give_up_holes(self, feed: SymbolFeed, now_us: int) -> None:
        tracker = feed.tracker
        if isinstance(tracker, ConsecutiveIds) and tracker.must_give_up(now_us):
            reason = f"not filled over REST within {self._config.hold_back_s_max:g} s"
            log.warning("gap.opened", symbol=feed.symbol, reason=reason)
            feed.emit(tracker.give_up(now_us, reason))

    def _check_live(self, feed: SymbolFeed, now_us: int) -> None:
        if not self._event_clock and feed.is_heartbeat_due(self._clock.now_us(now_us)):
            self._beat(feed, now_us)
        tracker = feed.tracker
        feed.silence.sample(feed.trades + tracker.duplicates + tracker.held, now_us)
        if feed.silence.must_ask(now_us) or self._must_verify(feed, now_us):
            self._probe(feed)

    def _beat(self, feed: SymbolFeed, now_us: int) -> None:
        if feed.emit_heartbeat_if_due(self._streams.heard_us(feed, now_us)):
            return
        clock_us = self._clock.now_us(now_us)
        for socket in self._sockets.values():
            payload = socket.heard.ask(clock_us, now_us) if socket.is_open else None
            if payload is not None:
                socket.ping(payload)
        # Who did not answer by now may be stuck, and a minute must not stay open for that.
        last_us = self._proved_us.get(feed.symbol, 0)
        if feed.is_heartbeat_due(clock_us - REST_LAG_US) and now_us - last_us >= PROVE_EVERY_US:
            self._proved_us[feed.symbol] = now_us
            self._probe(feed)

    def _is_subscribed(self, feed: SymbolFeed, now_us: int) -> bool:
        since_us = feed.subscribing_us
        connected_us = [socket.connected_at_us for socket in self._sockets.values()]
        if since_us is None or not connected_us or not all(connected_us):
            return False
        first_start = self._event_clock and feed.caught_up
        return not first_start and now_us - max(since_us, *connected_us) > SUBSCRIBED_AFTER_US

    def _must_verify(self, feed: SymbolFeed, now_us: int) -> bool:
        # Where ids prove nothing, overlap with REST from time to time shows what was lost.
        if isinstance(feed.tracker, ConsecutiveIds) or self._event_clock:
            return False
        last_us = self._verified_us.setdefault(feed.symbol, now_us)
        if now_us - last_us < VERIFY_EVERY_US:
            return False
        self._verified_us[feed.symbol] = now_us
        return True

    def _probe(self, feed: SymbolFeed) -> None:
        task = asyncio.create_task(self._ask_rest(feed))
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _ask_rest(self, feed: SymbolFeed) -> None:
        """Compare a symbol with REST: its stream is dead when it did not bring what REST shows."""
        silent = feed.silence.is_silent(_now_us())
        try:
            dead = await self._streams.catch_up.newest(feed) and silent and self._is_overdue(feed)
            reason = "REST shows trades that the stream did not bring"
        except DataFetchError as error:
            dead = feed.silence.is_improbable(_now_us())
            reason = f"silent for improbably long, and REST fails: {str(error)[:200]}"
        if dead and feed.state is State.LIVE:
            self._reconnect(reason)

    def _is_overdue(self, feed: SymbolFeed) -> bool:
        # What was traded this moment may still be on its way through the socket.
        late_us = self._clock.now_us(_now_us()) - feed.tracker.last_time_us
        return self._event_clock or late_us > SUBSCRIBED_AFTER_US

    def _reconnect(self, reason: str) -> None:
        log.warning("stream.silent", exchange=self._client.id, reason=reason)
        for client in list((self._client.clients or {}).values()):
            client.on_error(ccxt.pro.NetworkError(reason))


def _now_us() -> int:
    return time.monotonic_ns() // 1000
