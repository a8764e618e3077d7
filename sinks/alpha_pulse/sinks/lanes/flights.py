"""Batches on their way into ClickHouse: announced, inserted, landed; the oldest first."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest

import structlog
from aiokafka import TopicPartition

from alpha_pulse.contracts.config import SinkConfig
from alpha_pulse.sinks.clickhouse.client import retries
from alpha_pulse.sinks.lanes.announcements import Announcements, PartitionLost
from alpha_pulse.sinks.lanes.batch import Batch
from alpha_pulse.sinks.lanes.lane import Lane
from alpha_pulse.sinks.lanes.tasks import Tasks, cancelled
from alpha_pulse.sinks.lanes.writer import Writer
from alpha_pulse.sinks.metrics import SinkMetrics

log = structlog.get_logger(__name__)

CANCEL_S_MAX = 2.0


class Flights:
    """One batch of a lane at a time, so many of all lanes together.

    lanes: those that are held, as they are now. on_landed: called when a batch is stored or lost.
    """

    def __init__(
        self,
        settings: SinkConfig,
        announcements: Announcements,
        writer: Writer,
        lanes: Mapping[TopicPartition, Lane],
        tasks: Tasks,
        on_landed: Callable[[], None],
        metrics: SinkMetrics | None,
    ) -> None:
        self._settings = settings
        self._announcements = announcements
        self._writer = writer
        self._lanes = lanes
        self._tasks = tasks
        self._on_landed = on_landed
        self._metrics = metrics
        self._slots = asyncio.Semaphore(settings.inserts_in_flight_max)
        self._flying = 0

    @property
    def free(self) -> int:
        """How many batches may start now."""
        return max(0, self._settings.inserts_in_flight_max - self._flying)

    def start(self) -> None:
        """Let the lanes take off that are due, those that have waited longest first.

        A batch is made when it can go, not when it is due: what comes while others are on their way
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
        self._take_off([lane for _, lane in first], now_s)

    async def land(self, lanes: Sequence[Lane], within_s: float) -> bool:
        """Store what the lanes hold; drop what takes too long. Returns whether all was stored."""
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(self._empty(lane) for lane in lanes))
        except TimeoutError:
            flights = {lane.flight for lane in lanes if lane.flight is not None}
            await cancelled(flights, CANCEL_S_MAX)
            log.warning("batches.dropped", lanes=len(flights), note="they are read again")
            return False
        return True

    async def _empty(self, lane: Lane) -> None:
        while lane.flight is not None or (lane.waiting and lane.waiting.is_whole):
            if lane.is_lost or self._tasks.failure is not None:
                return
            if lane.flight is None:
                self._take_off([lane], time.monotonic())
            flight = lane.flight
            if flight is not None:
                await asyncio.wait([flight])

    def _take_off(self, lanes: Sequence[Lane], now_s: float) -> None:
        if not lanes:
            return
        batches = [lane.take(now_s) for lane in lanes]
        announced = self._tasks.start(self._announce(lanes))
        self._flying += len(lanes)
        for lane, batch in zip(lanes, batches, strict=True):
            lane.flight = self._tasks.start(self._fly(lane, batch, announced))

    async def _announce(self, lanes: Sequence[Lane]) -> bool:
        """Return whether the lanes are still ours and their next inserts known to an heir."""
        async for attempt in retries(self._settings.retry_wait_s_max):
            with attempt:
                try:
                    await self._announcements.write(lanes)
                except PartitionLost as error:
                    log.warning("partitions.lost", partitions=len(lanes), error=str(error)[:300])
                    return False
        return True

    async def _fly(self, lane: Lane, batch: Batch, announced: "asyncio.Task[bool]") -> None:
        try:
            if await asyncio.shield(announced):
                async with self._slots:
                    await self._store(lane, batch)
            else:
                # A rebalance follows: whoever gets the partition reads the rows again.
                lane.is_lost = True
        finally:
            lane.flight = None
            lane.flight_bytes = 0
            self._flying -= 1
            self._on_landed()

    async def _store(self, lane: Lane, batch: Batch) -> None:
        started_s = time.monotonic()
        await self._writer.store(batch, lane.table, lane.where.topic, lane.epoch.generation)
        lane.landed(batch)
        took_s = time.monotonic() - started_s
        if self._metrics is not None:
            self._metrics.stored(batch, lane.table, took_s)
        log.debug(
            "batch.flushed",
            table=lane.table.name,
            topic=lane.where.topic,
            partition=lane.where.partition,
            rows=len(batch.offsets),
            offset_last=batch.offsets[-1],
            took_ms=int(took_s * 1000),
        )
