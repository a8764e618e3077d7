"""The partitions that Kafka's group assigns and revokes: each is read from where the tables say."""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.contracts.config import SinkConfig
from alpha_pulse.sinks.clickhouse.client import PassingFault, RowsRefused, retries
from alpha_pulse.sinks.lanes.announcements import Announcements, PartitionLost
from alpha_pulse.sinks.lanes.inserts import Inserts
from alpha_pulse.sinks.lanes.lane import Lane, LaneOpener
from alpha_pulse.sinks.lanes.offsets import OffsetStore
from alpha_pulse.sinks.lanes.tasks import Tasks

log = structlog.get_logger(__name__)

REVOKE_FLUSH_S_MAX = 3.0
_ANYWHERE = 0


class Assignment:
    """Opens a lane for each partition that is assigned and drains those that are revoked.

    lanes: the lanes that are held; this fills it.
    """

    def __init__(
        self,
        settings: SinkConfig,
        consumer: AIOKafkaConsumer,
        opener: LaneOpener,
        offsets: OffsetStore,
        announcements: Announcements,
        inserts: Inserts,
        lanes: dict[TopicPartition, Lane],
        tasks: Tasks,
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._opener = opener
        self._offsets = offsets
        self._announcements = announcements
        self._inserts = inserts
        self._lanes = lanes
        self._tasks = tasks
        self._number = 0  # grows with each rebalance; work of an older one is dropped

    @property
    def listener(self) -> ConsumerRebalanceListener:
        """What Kafka's group calls."""
        return _Rebalances(self)

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Called by the group: nothing is read before the tables have said where to go on."""
        self._number += 1
        self._consumer.pause(*partitions)
        for where in partitions:
            # Paused it reads nothing there; without a position the consumer would look for one and
            # fail, again and again, as fast as it can, until the tables have answered.
            self._consumer.seek(where, _ANYWHERE)
        if partitions:
            self._tasks.start(self._resume(sorted(partitions), self._number))

    async def revoke(self) -> None:
        """Called before partitions go elsewhere: store what waits, as far as there is time."""
        self._number += 1
        lanes = list(self._lanes.values())
        self._lanes.clear()
        if lanes:
            await self.drain(lanes, REVOKE_FLUSH_S_MAX)

    def start_again(self, out_of_range: dict[TopicPartition, int]) -> None:
        """Kafka has deleted what would have been read next: ask the tables what is lost."""
        for where, offset in out_of_range.items():
            log.warning(
                "offset.out_of_range", topic=where.topic, partition=where.partition, offset=offset
            )
            lane = self._lanes.pop(where, None)
            self._consumer.pause(where)
            self._tasks.start(self._resume_after(lane, where, self._number))

    async def drain(self, lanes: Sequence[Lane], within_s: float) -> None:
        """Store what the lanes hold and record their progress; drop what takes too long."""
        end_s = time.monotonic() + within_s
        if await self._inserts.drain(lanes, within_s):
            await self._report(lanes, max(0.1, end_s - time.monotonic()))

    async def close(self, within_s: float) -> None:
        """Store what waits and hold nothing any more."""
        self._number += 1
        lanes = list(self._lanes.values())
        if lanes:
            await self.drain(lanes, within_s)
        self._lanes.clear()

    async def report_progress(self) -> None:
        """Record how far the lanes are settled."""
        await self._report(list(self._lanes.values()))

    async def _report(self, lanes: Sequence[Lane], within_s: float | None = None) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._save_progress(lanes)
                await self._announcements.write(
                    lane for lane in lanes if self._lanes.get(lane.where) is lane
                )
        except (PassingFault, RowsRefused, PartitionLost, AiokafkaError, TimeoutError) as error:
            # The next report says it again; nothing depends on it but the length of a resume.
            log.warning("progress.postponed", error=str(error)[:300])

    async def _save_progress(self, lanes: Iterable[Lane]) -> None:
        moved = [(lane, lane.settled) for lane in lanes if lane.settled != lane.saved]
        await self._offsets.save_progress(
            (lane.name, lane.where.partition, lane.epoch.generation, settled)
            for lane, settled in moved
        )
        for lane, settled in moved:
            lane.saved = settled

    async def _resume_after(self, lane: Lane | None, where: TopicPartition, number: int) -> None:
        if lane is not None:
            await self.drain([lane], self._settings.drain_s_max)
        await self._resume([where], number)

    async def _resume(self, partitions: Sequence[TopicPartition], number: int) -> None:
        async for attempt in retries(self._settings.retry_wait_s_max):
            if number != self._number:
                return
            with attempt:
                try:
                    announced = await self._announcements.read(partitions)
                    lanes = await self._opener.open(partitions, announced)
                    await self._save_progress(lanes)
                except AiokafkaError as error:
                    raise PassingFault(
                        f"expected Kafka to name its offsets, found {type(error).__name__}: {error}"
                    ) from error
        if number != self._number:
            return
        for lane in lanes:
            self._consumer.seek(lane.where, lane.position)
            self._lanes[lane.where] = lane
            self._consumer.resume(lane.where)
        log.info("partitions.resumed", partitions=len(lanes))


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._assignment.revoke()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._assignment.assign(assigned)
