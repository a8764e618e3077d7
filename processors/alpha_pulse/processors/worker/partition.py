"""One partition of the trade path: its kernel, its transactional producer, its last state.

Everything that a stretch of the log causes goes into one Kafka transaction: valid trades, candles,
gaps, status, dead letters, the new state and the input offset. The transactional.id belongs to the
partition, so whoever takes the partition over fences whoever still thinks to hold it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiokafka
import structlog
from aiokafka import TopicPartition

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import KafkaError
from alpha_pulse.contracts.kafka.connection import client_arguments, consumer_arguments
from alpha_pulse.contracts.roles.batches import EncodedBatch, Record
from alpha_pulse.contracts.roles.closing import close_within
from alpha_pulse.contracts.topics import INGEST, PROCESSOR_STATE
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.kernel.outputs import BATCH_BYTES_MAX
from alpha_pulse.processors.state.partition_state import HEAD_KEY, StateWriter, position_of, restore
from alpha_pulse.processors.wire.ready_batch import ReadyBatch
from alpha_pulse.processors.wire.records import EncodedRecords, RecordsWriter
from alpha_pulse.processors.worker.metrics import ProcessorMetrics

log = structlog.get_logger()

STATE_TAIL_RECORDS = 64
DISCARD_S_MAX = 1.0


class Partition:
    """Kernel, producer and state of one partition that this worker holds.

    open_candles: takes the open candles, which travel outside transactions; None: off.
    `committed`: the input offset of the last transaction that Kafka acknowledged; `begun`: of the
    last one that was begun.
    """

    def __init__(
        self,
        config: Config,
        number: int,
        open_candles: Callable[[int, list[Record]], None] | None = None,
        metrics: ProcessorMetrics | None = None,
    ) -> None:
        self.number = number
        self.ingest = TopicPartition(INGEST.full_name(config.namespace), number)
        self.committed = self.begun = 0
        self.committed_at_s = 0.0
        self.commit: asyncio.Task[None] | None = None
        self._config = config
        self._open_candles = open_candles
        self._metrics = metrics
        self._newest_ms = 0  # Kafka's time of the newest record taken in
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self.kernel = self._new_kernel()
        self._writer = StateWriter(config.processor.state_record_bytes_max)

    async def open(self) -> None:
        """Fence whoever held the partition, then read the state that it left."""
        config = self._config
        producer = aiokafka.AIOKafkaProducer(
            **client_arguments(config.kafka, "alpha-pulse-processor"),
            transactional_id=config.named(f"{config.processor.group}-{self.number}"),
            transaction_timeout_ms=round(config.processor.transaction_timeout_s * 1000),
            compression_type="zstd",
            max_batch_size=BATCH_BYTES_MAX,
            max_request_size=BATCH_BYTES_MAX + 200_000,
            linger_ms=0,
        )
        try:
            await producer.start()
        except BaseException:
            await _discard(producer)
            raise
        self._producer = producer
        records = await read_state(config, self.number)
        self.kernel = self._new_kernel()
        self._writer = StateWriter(config.processor.state_record_bytes_max)
        if records:
            writer = self._writer = restore(self.kernel, records)
            if writer.dropped or writer.begun:
                log.info(
                    "state.opened_with_other_settings",
                    partition=self.number,
                    dropped=writer.dropped,
                    begun=writer.begun,
                )
        self.committed = self.begun = self.kernel.position
        if self._metrics is not None:
            self._metrics.opened(self.number, self.kernel)

    async def close(self) -> None:
        """Let go of the producer; what was not committed is read again by the next holder."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _discard(producer)

    def process(self, batch: EncodedBatch) -> int:
        """Take in the records of a batch that were not taken in yet; return how many.

        Raises: KafkaError when the batch has the right checksum and holds something else.
        """
        kernel = self.kernel
        if batch.next_offset <= kernel.position:
            return 0
        try:
            records = EncodedRecords.read(batch.records, batch.count, batch.base_offset)
        except ValueError as error:
            raise KafkaError(
                f"{error}, in the batch at offset {batch.base_offset} of {self.ingest.topic} "
                f"partition {self.number}; look at what wrote it: no other worker can read it "
                f"either before retention, or a delete-records up to {batch.next_offset}, takes it"
            ) from error
        records = records.since(max(kernel.position, batch.first_offset))
        self._newest_ms = batch.timestamp_ms
        kernel.process(records, batch.timestamp_ms, batch.next_offset)
        return len(records)

    @property
    def is_open(self) -> bool:
        """Whether it has a producer; without one nothing can be committed."""
        return self._producer is not None

    @property
    def is_behind(self) -> bool:
        """Whether something was taken in that no transaction holds yet."""
        return self.kernel.position > self.committed

    def begin_commit(self) -> "asyncio.Task[None]":
        """Start the transaction of all that was taken in so far; more may be taken in meanwhile."""
        assert self.commit is None or self.commit.done(), "one transaction at a time"
        position = self.begun = self.kernel.position
        if self._open_candles is not None:
            self._open_candles(self.number, self.kernel.open_candles())
        outputs = self.kernel.drain_outputs()
        state = RecordsWriter(BATCH_BYTES_MAX)
        state.extend(self._writer.snapshot(self.kernel))
        self.commit = asyncio.create_task(self._commit(position, outputs, state, self._newest_ms))
        return self.commit

    async def _commit(
        self,
        position: int,
        outputs: dict[str, RecordsWriter],
        state: RecordsWriter,
        newest_ms: int,
    ) -> None:
        started_s = time.monotonic()
        producer = self._producer
        if producer is None:
            raise KafkaError(f"expected an open producer of partition {self.number}, found none")
        timeout_s = self._config.processor.transaction_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await producer.begin_transaction()
                sent: list[asyncio.Future[Any]] = []
                for name, records in outputs.items():
                    sent += await self._send(producer, name, records)
                sent += await self._send(producer, PROCESSOR_STATE.name, state)
                await producer.send_offsets_to_transaction(
                    {self.ingest: position}, self._config.named(self._config.processor.group)
                )
                await asyncio.gather(*sent)
                await producer.commit_transaction()
        except Exception as error:
            cause = _cause_of_end(producer)
            if cause is None or cause is error:
                raise
            raise cause from error
        self.committed = position
        if self._metrics is not None:
            self._metrics.committed(outputs, newest_ms, time.monotonic() - started_s)

    async def _send(
        self, producer: aiokafka.AIOKafkaProducer, name: str, records: RecordsWriter
    ) -> list[asyncio.Future[Any]]:
        topic = self._config.named(name)
        now_ms = int(time.time() * 1000)
        return [
            await producer.send_batch(
                ReadyBatch(encoded, count, now_ms), topic, partition=self.number
            )
            for encoded, count in records.batches()
        ]

    def _new_kernel(self) -> Kernel:
        return Kernel(self._config.processor, self.ingest.topic, self.number)


def _cause_of_end(producer: aiokafka.AIOKafkaProducer) -> BaseException | None:
    # aiokafka's sender runs in the background. When it is the first to see the fencing, it ends,
    # and whatever is called next only says that there is no transaction: a zombie would look like a
    # mistake of ours. This leans on aiokafka 0.14; tests/processors/test_partition.py holds it.
    ended = producer._txn_manager.wait_for_transaction_end()
    if ended is not None and ended.done() and not ended.cancelled():
        ended.exception()  # seen; else Python complains that nobody looked
    task = producer._sender.sender_task
    if task is None or not task.done() or task.cancelled():
        return None
    cause: BaseException | None = task.exception()
    return cause


async def _discard(producer: aiokafka.AIOKafkaProducer) -> None:
    # It waits for what can't be sent any more: the next holder reads and sends that again.
    await close_within(DISCARD_S_MAX, producer.stop(), expected=(Exception,))


async def read_state(config: Config, number: int) -> dict[bytes, bytes]:
    """Return the newest committed state record of each key; nothing when there is no state."""
    consumer = aiokafka.AIOKafkaConsumer(
        **consumer_arguments(config.kafka, "alpha-pulse-state", fetch_bytes_max=4 * 2**20)
    )
    await consumer.start()
    try:
        tp = TopicPartition(PROCESSOR_STATE.full_name(config.namespace), number)
        consumer.assign([tp])
        start = (await consumer.beginning_offsets([tp]))[tp]
        end = (await consumer.end_offsets([tp]))[tp]
        tail = STATE_TAIL_RECORDS
        while True:
            first = max(start, end - tail)
            records = await _read(consumer, tp, first, end)
            head = records.get(HEAD_KEY)
            if first == start or (head is not None and not position_of(head)[1]):
                return records
            # No head yet, or a state that is spread over the records of many symbols.
            tail = tail * 8 if head is None else end - start
    finally:
        await consumer.stop()


async def _read(
    consumer: aiokafka.AIOKafkaConsumer, tp: TopicPartition, first: int, end: int
) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    consumer.seek(tp, first)
    while await consumer.position(tp) < end:
        for found in (await consumer.getmany(tp, timeout_ms=200)).get(tp, []):
            if found.offset < end and found.key is not None and found.value is not None:
                records[found.key] = found.value
    return records
