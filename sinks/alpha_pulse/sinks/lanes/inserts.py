"""Inserts: each batch is announced, then stored; those that waited longest go first."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest

import structlog
from aiokafka import TopicPartition

from alpha_pulse.contracts.config import SinkConfig
from alpha_pulse.contracts.roles.closing import CANCEL_S_MAX, cancel_within
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.client import retries
from alpha_pulse.sinks.clickhouse.tables import Table
from alpha_pulse.sinks.lanes.announcements import Announcements, PartitionLost
from alpha_pulse.sinks.lanes.lane import Lane
from alpha_pulse.sinks.lanes.tasks import Tasks
from alpha_pulse.sinks.lanes.writer import Writer

log = structlog.get_logger(__name__)

OnStored = Callable[[Batch, Table, float], None]  # took_s: seconds


class Inserts:
    """One insert of a lane at a time, `inserts_in_flight_max` of all lanes together.

    lanes: those that are held, as they are now. on_end: called when an insert has ended, stored or
    not. on_stored: called after each batch that is stored.
    """

    def __init__(
        self,
        settings: SinkConfig,
        announcements: Announcements,
        writer: Writer,
        lanes: Mapping[TopicPartition, Lane],
        tasks: Tasks,
        on_end: Callable[[], None],
        on_stored: OnStored | None,
    ) -> None:
        self._settings = settings
        self._announcements = announcements
        self._writer = writer
        self._lanes = lanes
        self._tasks = tasks
        self._on_end = on_end
        self._on_stored = on_stored
        self._slots = asyncio.Semaphore(settings.inserts_in_flight_max)
        self._running = 0

    @property
    def free(self) -> int:
        """How many inserts may start now."""
        return max(0, self._settings.inserts_in_flight_max - self._running)

    def start(self) -> None:
        """Start the inserts that are due, of those lanes first that have waited longest.

        A batch is made when it can go, not when it is due: what comes while others are inserted
        goes with it, in fewer and larger inserts the slower ClickHouse is.
        """
        if self.free == 0:
            return
        now_s = time.monotonic()
        due = [
            (lane.waiting.due_s(), lane)
            for lane in self._lanes.values()
            if lane.is_due(now_s) and not lane.is_lost
        ]
        first = nsmallest(self.free, due, key=lambda one: one[0] or 0.0)
        self._start([lane for _, lane in first], now_s)

    async def drain(self, lanes: Sequence[Lane], within_s: float) -> bool:
        """Store what the lanes hold; drop what takes too long. Returns whether all was stored."""
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(self._empty(lane) for lane in lanes))
        except TimeoutError:
            inserts = {lane.insert for lane in lanes if lane.insert is not None}
            await cancel_within(CANCEL_S_MAX, inserts)
            log.warning("batches.dropped", lanes=len(inserts), note="they are read again")
            return False
        return True

    async def _empty(self, lane: Lane) -> None:
        while lane.insert is not None or (lane.waiting and lane.waiting.is_whole):
            if lane.is_lost or self._tasks.failure is not None:
                return
            if lane.insert is None:
                self._start([lane], time.monotonic())
            insert = lane.insert
            if insert is not None:
                await asyncio.wait([insert])

    def _start(self, lanes: Sequence[Lane], now_s: float) -> None:
        if not lanes:
            return
        batches = [lane.next_batch(now_s) for lane in lanes]
        announced = self._tasks.start(self._announce(lanes))
        self._running += len(lanes)
        for lane, batch in zip(lanes, batches, strict=True):
            lane.insert = self._tasks.start(self._insert(lane, batch, announced))

    async def _announce(self, lanes: Sequence[Lane]) -> bool:
        """Return whether the lanes are still ours, their next inserts known to the next owner."""
        async for attempt in retries(self._settings.retry_wait_s_max):
            with attempt:
                try:
                    await self._announcements.write(lanes)
                except PartitionLost as error:
                    log.warning("partitions.lost", partitions=len(lanes), error=str(error)[:300])
                    return False
        return True

    async def _insert(self, lane: Lane, batch: Batch, announced: "asyncio.Task[bool]") -> None:
        try:
            if await asyncio.shield(announced):
                async with self._slots:
                    await self._store(lane, batch)
            else:
                # A rebalance follows: whoever gets the partition reads the rows again.
                lane.is_lost = True
        finally:
            lane.insert = None
            lane.insert_bytes = 0
            self._running -= 1
            self._on_end()

    async def _store(self, lane: Lane, batch: Batch) -> None:
        started_s = time.monotonic()
        await self._writer.store(batch, lane.table, lane.where.topic, lane.epoch.generation)
        lane.settle(batch)
        took_s = time.monotonic() - started_s
        if self._on_stored is not None:
            self._on_stored(batch, lane.table, took_s)
        log.debug(
            "batch.flushed",
            table=lane.table.name,
            topic=lane.where.topic,
            partition=lane.where.partition,
            rows=len(batch.offsets),
            offset_last=batch.offsets[-1],
            took_ms=int(took_s * 1000),
        )
