"""The pump: what the feeds have to say goes to Kafka; while that is slow, sockets are paused."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.events import DeadLetter
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed

log = structlog.get_logger()


class EventLog(Protocol):
    """Where events go: Kafka, a capture's files, a program's function."""

    pending_bytes: int

    async def publish(self, topic: str, key: bytes, values: Sequence[bytes]) -> None:
        """Queue values; wait while too much is pending.

        Args:
            topic: where they belong.
            key: of all of them.
            values: encoded events, in order.
        """
        ...

    async def flush(self) -> None:
        """Wait until everything is acknowledged."""
        ...


class Gate:
    """Whether the sockets may be read: not while Kafka is behind or a hole holds much back.

    `event` is set while they may; `opened_at_us`: our monotonic clock when that began last.

    Args:
        exchange: the exchange's name, for the log.
    """

    def __init__(self, exchange: str) -> None:
        self.event = asyncio.Event()
        self.event.set()
        self.opened_at_us = 0  # what waits unread is older than this
        self._exchange = exchange
        self._closed_for: set[str] = set()

    @property
    def is_open(self) -> bool:
        """Whether frames are read now."""
        return not self._closed_for

    def close(self, reason: str) -> None:
        """Stop reading until this reason, and every other, is gone."""
        if reason not in self._closed_for:
            log.warning("reading.paused", exchange=self._exchange, reason=reason)
            self._closed_for.add(reason)
            self.event.clear()

    def open(self, reason: str) -> None:
        """Withdraw a reason; read on when none is left."""
        if reason in self._closed_for:
            self._closed_for.discard(reason)
            if not self._closed_for:
                self.opened_at_us = time.monotonic_ns() // 1000
                self.event.set()
                log.info("reading.resumed", exchange=self._exchange)


class Pump:
    """Publishes each feed's events, many at a time, in the order in which a feed gave them.

    Args:
        event_log: where they go.
        gate: closed while too much is pending there.
        topic: of the feeds' events.
        dead_letter_topic: of the dead letters.
        pending_bytes_max: how much may be pending before the gate closes.
        on_published: called with a feed once its events were handed over; one call a batch.
    """

    def __init__(
        self,
        event_log: EventLog,
        gate: Gate,
        *,
        topic: str,
        dead_letter_topic: str,
        pending_bytes_max: int,
        on_published: Callable[[SymbolFeed], None] = lambda feed: None,
    ) -> None:
        self._event_log = event_log
        self._on_published = on_published
        self._gate = gate
        self._topic = topic
        self._dead_letter_topic = dead_letter_topic
        self._pending_bytes_max = pending_bytes_max
        self._dirty: set[SymbolFeed] = set()
        self._letters: list[DeadLetter] = []
        self._wake = asyncio.Event()

    def mark(self, feed: SymbolFeed) -> None:
        """Note that a feed may have something to publish."""
        if feed.outbox:
            self._dirty.add(feed)
            self._wake.set()

    def add_letter(self, letter: DeadLetter) -> None:
        """Queue a dead letter."""
        self._letters.append(letter)
        self._wake.set()

    async def run(self) -> None:
        """Publish for ever.

        Raises:
            KafkaError: a record is refused for good.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.publish_all()

    async def publish_all(self) -> None:
        """Hand everything to the log; waits while too much is pending there.

        Cancelled while it waits, it loses nothing: the next call goes on from there.
        """
        while self._dirty or self._letters:
            while self._letters:
                letter = self._letters[0]
                key = letter.identity.encode()
                await self._event_log.publish(self._dead_letter_topic, key, [encode(letter)])
                del self._letters[0]
            for feed in list(self._dirty):
                await self._publish(feed)
            self._gate.open("kafka")

    async def _publish(self, feed: SymbolFeed) -> None:
        self._dirty.discard(feed)
        values, feed.outbox = feed.outbox, []
        if self._event_log.pending_bytes > self._pending_bytes_max:
            self._gate.close("kafka")
        try:
            await self._event_log.publish(self._topic, feed.key, values)
        except BaseException:
            feed.outbox[:0] = values
            self._dirty.add(feed)
            raise
        self._on_published(feed)

    async def flush(self) -> None:
        """Publish everything and wait until Kafka has acknowledged it."""
        await self.publish_all()
        await self._event_log.flush()
