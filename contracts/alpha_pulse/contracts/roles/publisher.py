"""The publisher: batches to Kafka, in order per partition, bounded, and never dropped.

One batch per partition is in flight, so order holds through every retry. While Kafka is away the
idempotent producer tries again by itself, for ever. Where it gives up (its session is refused), the
batch is sent again by a fresh one: nobody knows then whether it was written, so a record may stand
twice in the log, and its deterministic identity makes that harmless. Source: KIP-98 (idempotence
is per producer session).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import aiokafka
from aiokafka.errors import (
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.partitioner import DefaultPartitioner

from alpha_pulse.contracts.config import KafkaConfig
from alpha_pulse.contracts.errors import KafkaError
from alpha_pulse.contracts.kafka.causes import connecting
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.roles.batches import Record, fill_batch
from alpha_pulse.contracts.roles.closing import close_within

_FATAL = (InvalidTopicError, TopicAuthorizationFailedError)
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
_RECORD_OVERHEAD_BYTES = 64
# Keys whose partition is remembered; a dead letter has a key of its own.
KEYS_MAX = 10_000
RETRY_WAIT_S_MIN = 0.05
DISCARD_S_MAX = 1.0


class Publisher:
    """Publishes records with acks=all, zstd and back-pressure.

    Args:
        kafka: where Kafka is.
        client_id: the name of the client in the broker's logs.
        batch_bytes_max: how large a batch may become, before it is compressed.
        pending_bytes_max: `publish` waits while more is not acknowledged yet.
        retry_wait_s_max: the longest wait between two attempts.
        interval_s: what comes so soon after a partition's last batch is gathered, at most for so
            long; a full batch goes at once.
        on_retry: called with the error of each attempt that failed, for logs and metrics.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        client_id: str,
        *,
        batch_bytes_max: int = 900_000,
        pending_bytes_max: int = 64 * 2**20,
        retry_wait_s_max: float = 5.0,
        interval_s: float = 0.0,
        on_retry: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self._kafka = kafka
        self._client_id = client_id
        self._batch_bytes_max = batch_bytes_max
        self._pending_bytes_max = pending_bytes_max
        self._retry_wait_s_max = retry_wait_s_max
        self._interval_s = interval_s
        self._on_retry = on_retry
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self._renewal = asyncio.Lock()
        self._queues: dict[tuple[str, int], _PartitionQueue] = {}
        self._partitions: dict[str, list[int]] = {}
        self._partition_of: dict[tuple[str, bytes], int] = {}
        self._partitioner = DefaultPartitioner()
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self.pending_bytes = 0
        self.acknowledged = 0
        self.retries = 0

    async def start(self) -> None:
        """Connect. Raises KafkaError when Kafka can't be reached or refuses the credentials."""
        self._producer = await self._connect()

    async def publish(self, topic: str, key: bytes, values: Sequence[bytes]) -> None:
        """Queue values of one key, to be sent in this order.

        Waits while too much is pending, and with the first key of a topic until Kafka answers.

        Args:
            topic: its full name.
            key: decides the partition.
            values: one record each.

        Raises:
            KafkaError: an earlier record was refused for good (too large), the topic is, or Kafka
                has no such topic.
        """
        while self.pending_bytes > self._pending_bytes_max and self._failure is None:
            self._room.clear()
            await self._room.wait()
        self._check()
        queue = await self._queue(topic, key)
        size = sum(map(len, values)) + len(values) * (len(key) + _RECORD_OVERHEAD_BYTES)
        self.pending_bytes += size
        queue.add([(key, value) for value in values], size)

    async def flush(self) -> None:
        """Wait until everything queued so far is acknowledged; raises as `publish` does."""
        for queue in list(self._queues.values()):
            await queue.drained()
        self._check()

    async def stop(self) -> None:
        """Flush and close. What could not be sent raises KafkaError."""
        try:
            await self.flush()
        finally:
            for queue in self._queues.values():
                await queue.stop()
            if self._producer is not None:
                await self._producer.stop()

    def _check(self) -> None:
        if self._failure is not None:
            raise _refused(self._failure) from self._failure

    async def _queue(self, topic: str, key: bytes) -> "_PartitionQueue":
        partition = self._partition_of.get((topic, key))
        if partition is None:
            partitions = self._partitions.get(topic) or await self._find_partitions(topic)
            partition = self._partitioner(key, partitions, partitions)
            if len(self._partition_of) >= KEYS_MAX:
                self._partition_of.clear()  # symbols come back at once, dead letters never
            self._partition_of[topic, key] = partition
        queue = self._queues.get((topic, partition))
        if queue is None:
            queue = self._queues[topic, partition] = _PartitionQueue(self, topic, partition)
        return queue

    async def _find_partitions(self, topic: str) -> list[int]:
        # Asked once a topic: its number of partitions never changes (`kafka.admin`), so that a new
        # key needs no Kafka. For a new topic this waits until Kafka answers.
        wait_s = RETRY_WAIT_S_MIN
        while True:
            try:
                if self._producer is None:
                    await self._renew(None)
                    continue
                found = await _partitions_of(self._producer, topic)
            except _FATAL as error:
                self._fail(error)
                raise _refused(error) from error
            except _TopicAbsent as error:
                raise KafkaError(
                    f"expected the topic {topic} at {self._kafka.bootstrap}, found none; check the "
                    "namespace and start the pipeline once, which creates its topics"
                ) from error
            except Exception as error:
                self._retried(error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, self._retry_wait_s_max)
            else:
                self._partitions[topic] = found
                return found

    async def _connect(self) -> aiokafka.AIOKafkaProducer:
        producer = aiokafka.AIOKafkaProducer(
            **client_arguments(self._kafka, self._client_id),
            enable_idempotence=True,
            acks="all",
            compression_type="zstd",
            max_batch_size=self._batch_bytes_max,
            max_request_size=self._batch_bytes_max + 100_000,
            linger_ms=0,
        )
        try:
            async with connecting(self._kafka):
                await producer.start()
        except BaseException:
            await _discard(producer)
            raise
        return producer

    async def _renew(self, failed: aiokafka.AIOKafkaProducer | None) -> None:
        # The first queue that failed replaces the producer; the others find it replaced.
        async with self._renewal:
            if self._producer is not failed:
                return
            self._producer = None
            if failed is not None:
                await _discard(failed)
            self._producer = await self._connect()

    def _acknowledge(self, count: int, size: int) -> None:
        self.acknowledged += count
        self.pending_bytes -= size
        if self.pending_bytes <= self._pending_bytes_max:
            self._room.set()

    def _retried(self, error: BaseException) -> None:
        self.retries += 1
        self._on_retry(error)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._room.set()


class _TopicAbsent(Exception):
    """Kafka answers and does not have the topic."""


async def _partitions_of(producer: aiokafka.AIOKafkaProducer, topic: str) -> list[int]:
    try:
        return sorted(await producer.partitions_for(topic))
    except UnknownTopicOrPartitionError as error:
        # Also what aiokafka raises where no broker answered in time.
        if await producer.client.force_metadata_update():
            raise _TopicAbsent(topic) from error
        raise


class _PartitionQueue:
    """The records of one partition: a queue, and one batch in flight."""

    def __init__(self, publisher: Publisher, topic: str, partition: int) -> None:
        self._publisher = publisher
        self._topic = topic
        self._partition = partition
        self._queue: deque[Record] = deque()
        self._queued_bytes = 0
        self._sent_at_s = -1e9
        self._hurry = asyncio.Event()  # a batch is full, or somebody waits until all is sent
        self._waiting = 0
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task = asyncio.create_task(self._run())

    def add(self, records: list[Record], size: int) -> None:
        self._queue.extend(records)
        self._queued_bytes += size
        if self._queued_bytes >= self._publisher._batch_bytes_max:
            self._hurry.set()
        self._empty.clear()
        self._wake.set()

    async def drained(self) -> None:
        self._waiting += 1
        self._hurry.set()
        try:
            await self._empty.wait()
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                try:
                    await self._gather()
                    await self._send_some()
                except (*_FATAL, *_TOO_LARGE) as error:
                    self._publisher._fail(error)
                    self._empty.set()
                    return
            self._empty.set()

    async def _gather(self) -> None:
        # What each frame brings, sent at once, would cost Kafka and every reader a request each.
        # All partitions wait for the same beat, so that their batches travel together.
        interval_s = self._publisher._interval_s
        now_s = asyncio.get_running_loop().time()
        if now_s - self._sent_at_s < interval_s and not self._hurry.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s - now_s % interval_s):
                    await self._hurry.wait()
        self._sent_at_s = asyncio.get_running_loop().time()

    async def _send_some(self) -> None:
        """Send one batch from the queue's head and wait until it is acknowledged."""
        publisher = self._publisher
        wait_s = RETRY_WAIT_S_MIN
        while True:
            producer = publisher._producer
            try:
                if producer is None:
                    await publisher._renew(None)
                    continue
                batch, count = fill_batch(producer, self._queue)
                if count == 0:
                    raise MessageSizeTooLargeError(
                        f"a record of {len(self._queue[0][1])} bytes for {self._topic}"
                    )
                future = await producer.send_batch(batch, self._topic, partition=self._partition)
                await future
            except (*_FATAL, *_TOO_LARGE):
                raise
            except Exception as error:
                publisher._retried(error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, publisher._retry_wait_s_max)
                await self._renew_quietly(producer)
                continue
            size = 0
            for _ in range(count):
                key, value = self._queue.popleft()
                size += len(key) + len(value) + _RECORD_OVERHEAD_BYTES
            self._queued_bytes -= size
            if self._queued_bytes < publisher._batch_bytes_max and not self._waiting:
                self._hurry.clear()
            publisher._acknowledge(count, size)
            return

    async def _renew_quietly(self, failed: aiokafka.AIOKafkaProducer | None) -> None:
        try:
            await self._publisher._renew(failed)
        except Exception as error:
            # Still away: the loop in `_send_some` tries again after its wait.
            self._publisher._retried(error)


async def _discard(producer: aiokafka.AIOKafkaProducer) -> None:
    # It would flush what can't be sent: the next one sends all of it from the queues.
    await close_within(DISCARD_S_MAX, producer.stop(), expected=(Exception,))


def _refused(failure: BaseException) -> KafkaError:
    return KafkaError(
        f"expected Kafka to take every record, found one refused for good: "
        f"{type(failure).__name__}: {failure}; check the topic's max.message.bytes and the "
        "permissions of this user"
    )
