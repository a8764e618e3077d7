"""One Kafka partition on its way into its table: what waits, what is in flight, what is settled."""

import asyncio
from dataclasses import dataclass

from aiokafka import TopicPartition

from alpha_pulse.contracts.kafka.batches import RecordBatch
from alpha_pulse.sinks.batch import Batch, Waiting, drop_known
from alpha_pulse.sinks.offsets import Epoch
from alpha_pulse.sinks.resume import KnownOffsets
from alpha_pulse.sinks.tables import Table


@dataclass(slots=True)
class Lane:
    """State of one assigned partition.

    position: where reading goes on. settled: every earlier offset is stored or skipped.
    """

    where: TopicPartition
    table: Table
    epoch: Epoch
    waiting: Waiting
    known: KnownOffsets
    position: int
    settled: int
    saved: int = -1
    flight: asyncio.Task[None] | None = None
    flight_bytes: int = 0

    @property
    def name(self) -> str:
        """The topic in `k_topic`: with its epoch where that is not the first."""
        return self.epoch.name_of(self.where.topic)

    @property
    def buffered_bytes(self) -> int:
        """Bytes held for this partition, waiting or in flight."""
        return self.waiting.size_bytes + self.flight_bytes

    def accept(self, batch: RecordBatch, now_s: float) -> None:
        """Take what a fetch brought, but for what is stored already."""
        offsets, values = batch.offsets, batch.values
        # The first fetch after a seek may still bring records from before it.
        if offsets[0] < max(self.position, self.known.end):
            known = [offset < self.position or offset in self.known for offset in offsets]
            offsets, values = drop_known(offsets, values, known)
        self.position = max(self.position, batch.next_offset)
        if offsets:
            self.waiting.add(offsets, values, self.position, batch.timestamp_ms, now_s)
        elif not self.waiting and self.flight is None:
            self.settled = self.position

    def is_due(self, now_s: float) -> bool:
        """Whether an insert should start."""
        due_s = self.waiting.due_s()
        return self.flight is None and due_s is not None and due_s <= now_s

    def landed(self, batch: Batch) -> None:
        """Note that a batch is stored."""
        self.settled = batch.settled_before if self.waiting else self.position
