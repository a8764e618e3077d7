"""The typed reader for downstream users: events instead of bytes (`docs/read.md`)."""

import logging
import time
from collections.abc import AsyncGenerator, Iterable
from typing import TypeVar

import aiokafka
import msgspec
from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.contracts.codec import EventDecoder
from alpha_pulse.contracts.config import Config, KafkaConfig, load_config
from alpha_pulse.contracts.errors import KafkaError, UnknownKindError, ValidationError
from alpha_pulse.contracts.kafka.causes import connecting, explain
from alpha_pulse.contracts.kafka.connection import consumer_arguments
from alpha_pulse.contracts.topics import TopicOf

log = logging.getLogger(__name__)
EventT = TypeVar("EventT", bound=msgspec.Struct)

COMMIT_INTERVAL_S = 5.0
POLL_MS = 500
FETCH_BYTES_MAX = 512 * 1024


async def read(
    topic: TopicOf[EventT],
    config: Config | None = None,
    *,
    group: str | None = None,
    from_earliest: bool = True,
    until_end: bool = False,
) -> AsyncGenerator[EventT, None]:
    """Yield the committed events of a topic, in order per symbol, for ever or up to its end.

    The same candle may come again with a higher `revision`, which replaces the earlier one:
    `Newest` keeps that straight. An event of a kind that this version does not know is skipped: a
    newer version may add kinds to any topic.

    Args:
        topic: one of `alpha_pulse.contracts.topics`.
        config: where Kafka is; without it, the environment decides (`ALPHA_PULSE_KAFKA`, …).
        group: readers of one group share the partitions and resume where the group stopped. An
            event counts as read once the next one is asked for: after a crash some come again, and
            none is left out.
        from_earliest: start at the topic's beginning, else at its end; a group that has read before
            resumes where it stopped.
        until_end: stop where the topic ended when reading began.

    Yields:
        Events in offset order per partition, hence in order per symbol.

    Raises:
        KafkaError: Kafka can't be reached, refuses, or has no such topic.
        ValidationError: a record breaks the contract.

    >>> async def main():
    ...     async for candle in read(CANDLES["1m"]):
    ...         print(candle.symbol, candle.close, candle.coverage)
    """
    config = config or load_config()
    name = topic.full_name(config.namespace)
    decode: EventDecoder[EventT] = EventDecoder(*topic.events)
    unknown = _UnknownKinds(name)
    consumer = aiokafka.AIOKafkaConsumer(
        **consumer_arguments(
            config.kafka,
            "alpha-pulse-reader",
            fetch_bytes_max=FETCH_BYTES_MAX,
            group_id=group,
            auto_offset_reset="earliest" if from_earliest else "latest",
        )
    )
    position = _Position(consumer, config.kafka, committing=group is not None)
    try:
        async with connecting(config.kafka):
            await consumer.start()
        await _check_topic(consumer, name, config.kafka)
        consumer.subscribe([name], listener=position)
        while not (until_end and await position.at_end()):
            for tp, records in (await _poll(consumer, name, config.kafka)).items():
                for offset, event in _events(name, tp, records, decode, unknown):
                    if tp not in consumer.assignment():
                        break  # another reader of the group has it now
                    if event is not None:
                        yield event
                    await position.reached(tp, offset + 1)
            await position.commit_due()
    finally:
        await position.commit()
        await consumer.stop()


async def _check_topic(consumer: aiokafka.AIOKafkaConsumer, name: str, kafka: KafkaConfig) -> None:
    if name not in await consumer.topics():
        raise KafkaError(
            f"expected the topic {name} at {kafka.bootstrap}, found none that "
            f"{kafka.sasl_username or 'this user'} may read; check the namespace, start the "
            "pipeline once, or grant READ and DESCRIBE on it"
        )


async def _poll(
    consumer: aiokafka.AIOKafkaConsumer, name: str, kafka: KafkaConfig
) -> dict[TopicPartition, list[ConsumerRecord]]:
    try:
        found: dict[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
            timeout_ms=POLL_MS
        )
    except AiokafkaError as error:
        raise KafkaError(f"expected to read {name}, found {explain(kafka, error)}") from error
    return found


def _events(
    name: str,
    tp: TopicPartition,
    records: list[ConsumerRecord],
    decode: EventDecoder[EventT],
    unknown: "_UnknownKinds",
) -> Iterable[tuple[int, EventT | None]]:
    # None: the record is nothing that this reader knows.
    for record in records:
        event: EventT | None = None
        try:
            if record.value is not None:
                event = decode(record.value)
        except UnknownKindError as error:
            unknown.note(error)
        except ValidationError as error:
            raise ValidationError(
                f"{error}, in {name} partition {tp.partition} offset {record.offset}; is this a "
                "newer version's topic? Install that version of alpha-pulse-contracts"
            ) from error
        yield record.offset, event


class _UnknownKinds:
    """Says once that a topic brings kinds that this reader does not know, and skips."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._is_known = False

    def note(self, error: UnknownKindError) -> None:
        if not self._is_known:
            self._is_known = True
            log.warning("kinds.skipped: %s: %s", self._topic, error)


class _Position(ConsumerRebalanceListener):  # type: ignore[misc]
    """How far each partition has been read, committed for a group every few seconds."""

    def __init__(
        self, consumer: aiokafka.AIOKafkaConsumer, kafka: KafkaConfig, *, committing: bool
    ) -> None:
        self._consumer = consumer
        self._kafka = kafka
        self._committing = committing
        self._reached: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._committed_at_s = time.monotonic()

    async def reached(self, tp: TopicPartition, offset: int) -> None:
        if self._committing:
            self._reached[tp] = offset
            await self.commit_due()

    async def commit_due(self) -> None:
        if time.monotonic() - self._committed_at_s > COMMIT_INTERVAL_S:
            await self.commit()

    async def commit(self) -> None:
        self._committed_at_s = time.monotonic()
        held = self._consumer.assignment()
        offsets = {tp: offset for tp, offset in self._reached.items() if tp in held}
        self._reached.clear()
        if not offsets:
            return
        try:
            await self._consumer.commit(offsets)
        except AiokafkaError as error:
            # They come again, to whoever reads on from there: nothing is left out.
            log.warning("offsets.not_committed: %s", explain(self._kafka, error))

    async def at_end(self) -> bool:
        """Return whether everything that stood in the partitions at first has been read."""
        held = self._consumer.assignment()
        new = [tp for tp in held if tp not in self._ends]
        if new:
            self._ends |= await self._consumer.end_offsets(new)
        try:
            positions = {tp: await self._consumer.position(tp) for tp in held}
        except IllegalStateError:
            return False  # a rebalance took one away
        return bool(held) and all(positions[tp] >= self._ends[tp] for tp in held)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self.commit()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        pass
