"""One Kafka partition on its way into its table: what waits, is inserted, is settled."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from alpha_pulse.contracts.config import SinkConfig
from alpha_pulse.contracts.roles.batches import RecordBatch
from alpha_pulse.sinks.batching.batch import Batch, Waiting, drop_known
from alpha_pulse.sinks.batching.resume import KnownOffsets, announced_range, plan
from alpha_pulse.sinks.clickhouse.tables import Table
from alpha_pulse.sinks.lanes.offsets import Epoch, OffsetStore, Stored

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Lane:
    """State of one assigned partition.

    position: where reading goes on. settled: every earlier offset is stored or skipped. announced:
    token of the batch that may be on its way into the table. is_lost: another sink holds the
    partition now.
    """

    where: TopicPartition
    table: Table
    epoch: Epoch
    waiting: Waiting
    known: KnownOffsets
    position: int
    settled: int
    announced: str = ""
    is_lost: bool = False
    saved: int = -1
    insert: asyncio.Task[None] | None = None
    insert_bytes: int = 0

    @property
    def name(self) -> str:
        """The topic in `k_topic`: with its epoch where that is not the first."""
        return self.epoch.name_of(self.where.topic)

    @property
    def buffered_bytes(self) -> int:
        """Bytes held for this partition, waiting or in an insert."""
        return self.waiting.size_bytes + self.insert_bytes

    def accept(self, batch: RecordBatch, now_s: float) -> None:
        """Add what a fetch brought, except what is stored already."""
        offsets, values = batch.offsets, batch.values
        # The first fetch after a seek may still bring records from before it.
        if offsets[0] < max(self.position, self.known.end):
            known = [offset < self.position or offset in self.known for offset in offsets]
            offsets, values = drop_known(offsets, values, known)
        self.position = max(self.position, batch.next_offset)
        if offsets:
            self.waiting.add(offsets, values, self.position, batch.timestamp_ms, now_s)
        elif not self.waiting and self.insert is None:
            self.settled = self.position
        self.waiting.reached(self.position)

    def is_due(self, now_s: float) -> bool:
        """Whether an insert should start."""
        due_s = self.waiting.due_s()
        return self.insert is None and due_s is not None and due_s <= now_s

    def next_batch(self, now_s: float) -> Batch:
        """Remove and return what one insert stores next; its token is to be announced."""
        batch = self.waiting.next_batch(now_s)
        self.announced = batch.token(self.epoch.generation)
        self.insert_bytes = batch.size_bytes
        return batch

    def settle(self, batch: Batch) -> None:
        """Note that a batch is stored."""
        self.settled = batch.settled_before if self.waiting else self.position


class LaneOpener:
    """Asks Kafka what a partition holds and the tables what is stored of it."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        offsets: OffsetStore,
        tables: Mapping[str, Table],
        settings: SinkConfig,
    ) -> None:
        self._consumer = consumer
        self._offsets = offsets
        self._tables = tables
        self._settings = settings

    async def open(
        self, partitions: Sequence[TopicPartition], announced: Mapping[TopicPartition, str]
    ) -> list[Lane]:
        """Return a lane for each partition, at the position where reading goes on.

        announced: tokens of batches that may be on their way into the table.
        Raises: PassingFault, TopicRecreated, and aiokafka's errors.
        """
        starts = await self._consumer.beginning_offsets(partitions)
        epochs = await self._offsets.epochs({where.topic for where in partitions})
        stored = {
            topic: await self._offsets.stored(
                self._tables[topic],
                epoch.name_of(topic),
                epoch.generation,
                [where.partition for where in partitions if where.topic == topic],
            )
            for topic, epoch in sorted(epochs.items())
        }
        # After the tables: who stood still in between, while another sink went on, would find
        # more stored than an end that it asked for before, and call the topic recreated.
        ends = await self._consumer.end_offsets(partitions)
        lanes: list[Lane] = []
        for where in sorted(partitions):
            found = stored[where.topic][where.partition]
            lane = await self._lane(where, epochs[where.topic], found, starts[where], ends[where])
            _expect(lane, announced.get(where, ""), ends[where])
            lanes.append(lane)
        return lanes

    async def _lane(
        self, where: TopicPartition, epoch: Epoch, stored: Stored, log_start: int, log_end: int
    ) -> Lane:
        going_on = plan(
            f"{where.topic} {where.partition}",
            settled_before=stored.settled_before,
            known=stored.known,
            log_start=log_start,
            log_end=log_end,
        )
        name = epoch.name_of(where.topic)
        if going_on.lost is not None:
            await self._offsets.save_skipped(name, where.partition, going_on.lost, "retention")
            log.error(
                "records.lost_to_retention",
                topic=where.topic,
                partition=where.partition,
                first_offset=going_on.lost[0],
                last_offset=going_on.lost[1],
                advice="raise the topic's retention or run more sinks; see skipped_offsets",
            )
        waiting = Waiting(
            name,
            where.partition,
            rows_max=self._settings.batch_rows_max,
            bytes_max=self._settings.batch_bytes_max,
            age_s_max=self._settings.batch_age_s_max,
            history_age_s_max=self._settings.history_age_s_max,
        )
        return Lane(
            where,
            self._tables[where.topic],
            epoch,
            waiting,
            going_on.known,
            position=going_on.start,
            settled=going_on.start,
        )


def _expect(lane: Lane, token: str, log_end: int) -> None:
    # Rows that were announced and are not in the table yet go as the same batch once more.
    found = announced_range(token, lane.name, lane.where.partition, lane.epoch.generation)
    if found is not None and lane.position <= found[1] < log_end:
        lane.announced = token
        lane.waiting.expect(*found)
