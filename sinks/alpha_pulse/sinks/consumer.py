"""The sink: poll, batch, flush. Where to go on is read from the tables, not Kafka's commits."""

import asyncio
import time
from collections.abc import Collection, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.kafka.batches import RecordBatch
from alpha_pulse.sinks.announcements import Announcements, PartitionLost
from alpha_pulse.sinks.batch import Batch
from alpha_pulse.sinks.clickhouse import ClickHouse, PassingFault, retries
from alpha_pulse.sinks.connections import DeadLetterPublisher, start_consumer
from alpha_pulse.sinks.lane import Lane, LaneOpener
from alpha_pulse.sinks.metrics import SinkMetrics
from alpha_pulse.sinks.migrate import migrate
from alpha_pulse.sinks.offsets import OffsetStore
from alpha_pulse.sinks.tables import stored_tables
from alpha_pulse.sinks.writer import Writer

log = structlog.get_logger(__name__)

# Kafka batches per poll: each is at most about 1 MB, so that one poll stays small in memory.
POLL_BATCHES_MAX = 32
POLL_S_MAX = 0.1
REVOKE_FLUSH_S_MAX = 3.0
REPORT_INTERVAL_S = 60.0

ResultT = TypeVar("ResultT")


class Sink:
    """Stores every topic of the contracts; several in one group share the partitions.

    metrics: told of each batch, and reads this sink when somebody asks.
    """

    def __init__(self, config: Config, metrics: SinkMetrics | None = None) -> None:
        self._config = config
        self._metrics = metrics
        if metrics is not None:
            metrics.sink = self
        self.writer: Writer | None = None
        self._settings = config.sink
        self._tables = stored_tables(config.namespace)
        self._lanes: dict[TopicPartition, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._slots = asyncio.Semaphore(config.sink.inserts_in_flight_max)
        self._letters = DeadLetterPublisher(config)
        self._consumer: AIOKafkaConsumer | None = None
        self._clickhouse: ClickHouse | None = None
        self._assignment = 0  # grows with each rebalance; work of an older one is dropped

    async def run(self, stop: asyncio.Event) -> None:
        """Store until `stop` is set, then store what was read and return.

        Raises: TopicRecreated, TooManyRefused, StorageError for a schema that does not fit.
        """
        config = self._config
        clickhouse = self._clickhouse = await _unless(
            stop, ClickHouse.connect(config.clickhouse, wait_s_max=self._settings.retry_wait_s_max)
        )
        if clickhouse is None:
            return
        try:
            if await _unless(stop, self._migrate(clickhouse)) is None:
                return
            self._offsets = OffsetStore(clickhouse, config.database)
            self._writer = self.writer = Writer(
                clickhouse,
                self._offsets,
                config.database,
                self._letters.publish,
                retry_wait_s_max=self._settings.retry_wait_s_max,
                refused_run_max=self._settings.dead_letter_run_max,
                refused_ratio_max=self._settings.dead_letter_ratio_max,
            )
            consumer = self._consumer = await _unless(stop, start_consumer(config))
            if consumer is None:
                return
            self._announcements = Announcements(config, consumer)
            self._opener = LaneOpener(consumer, self._offsets, self._tables, self._settings)
            consumer.subscribe(sorted(self._tables), listener=_Rebalances(self))
            log.info("sink.started", topics=len(self._tables), database=config.database)
            progress = asyncio.create_task(self._keep_progress())
            self._watch(progress)
            try:
                await self._poll(stop)
            finally:
                progress.cancel()
                await self._drain()
        finally:
            await self._close()

    async def _migrate(self, clickhouse: ClickHouse) -> bool:
        async for attempt in retries(self._settings.retry_wait_s_max):
            with attempt:
                await migrate(self._config, clickhouse)
        return True

    @property
    def rows_stored(self) -> int:
        """Rows stored since the start."""
        return self._writer.rows_stored

    @property
    def lanes(self) -> Collection[Lane]:
        """The partitions that are held and resumed."""
        return self._lanes.values()

    @property
    def paused(self) -> int:
        """How many partitions are not read, because ClickHouse is behind."""
        return len(self._consumer.paused() & self._lanes.keys()) if self._consumer else 0

    def lag_by_partition(self) -> dict[TopicPartition, int]:
        """Return how many offsets are not settled yet, as far as is known."""
        lag: dict[TopicPartition, int] = {}
        if self._consumer is None:
            return lag
        for where, lane in self._lanes.items():
            try:
                end = self._consumer.highwater(where) or lane.settled
            except IllegalStateError:
                continue  # revoked a moment ago
            lag[where] = max(0, end - lane.settled)
        return lag

    def problem(self) -> str:
        """Return why this sink is not ready, "" when it is."""
        if self._consumer is None or self.writer is None:
            return "waiting for ClickHouse and Kafka"
        if self.writer.last_fault:
            return self.writer.last_fault[:300]
        return ""

    # -- poll, batch, flush ---------------------------------------------------------------------

    async def _poll(self, stop: asyncio.Event) -> None:
        assert self._consumer is not None
        while not stop.is_set():
            self._raise_failure()
            for where, batches in (await self._fetch()).items():
                self._accept(where, batches)
            self._start_flights()
            self._apply_back_pressure()
        self._raise_failure()

    async def _fetch(self) -> dict[TopicPartition, list[RecordBatch]]:
        assert self._consumer is not None
        try:
            fetched: dict[TopicPartition, list[RecordBatch]] = await self._consumer.getmany(
                timeout_ms=int(self._poll_wait_s() * 1000), max_records=POLL_BATCHES_MAX
            )
        except NoOffsetForPartitionError:
            return {}  # just assigned: the seek follows
        except OffsetOutOfRangeError as error:
            self._start_again(error.args[0])
            return {}
        return fetched

    def _poll_wait_s(self) -> float:
        now_s = time.monotonic()
        due = [lane.waiting.due_s() for lane in self._lanes.values() if lane.flight is None]
        waits = [due_s - now_s for due_s in due if due_s is not None]
        return max(0.001, min([POLL_S_MAX, *waits]))

    def _accept(self, where: TopicPartition, batches: Iterable[RecordBatch]) -> None:
        lane = self._lanes.get(where)
        if lane is None:
            return  # not ours any more, or not resumed yet: it is read again after the seek
        now_s = time.monotonic()
        for batch in batches:
            lane.accept(batch, now_s)

    def _start_flights(self) -> None:
        now_s = time.monotonic()
        self._take_off([lane for lane in self._lanes.values() if lane.is_due(now_s)], now_s)

    def _take_off(self, lanes: Sequence[Lane], now_s: float) -> None:
        if not lanes:
            return
        batches = [lane.take(now_s) for lane in lanes]
        announced = asyncio.create_task(self._announce(lanes))
        self._watch(announced)
        for lane, batch in zip(lanes, batches, strict=True):
            lane.flight = asyncio.create_task(self._fly(lane, batch, announced))
            self._watch(lane.flight)

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
            if not await asyncio.shield(announced):
                # A rebalance follows: whoever gets the partition reads the rows again.
                lane.is_lost = True
                if self._lanes.get(lane.where) is lane:
                    del self._lanes[lane.where]
                return
            async with self._slots:
                started_s = time.monotonic()
                await self._writer.store(batch, lane.table, lane.where.topic, lane.epoch.generation)
            lane.landed(batch)
            if self._metrics is not None:
                self._metrics.stored(batch, lane.table, time.monotonic() - started_s)
            log.debug(
                "batch.flushed",
                table=lane.table.name,
                topic=lane.where.topic,
                partition=lane.where.partition,
                rows=len(batch.offsets),
                offset_last=batch.offsets[-1],
                took_ms=int((time.monotonic() - started_s) * 1000),
            )
        finally:
            lane.flight = None
            lane.flight_bytes = 0

    def _apply_back_pressure(self) -> None:
        """Pause partitions that are read faster than ClickHouse takes their rows."""
        assert self._consumer is not None
        total = sum(lane.buffered_bytes for lane in self._lanes.values())
        too_much = total >= self._settings.buffered_bytes_max
        paused = self._consumer.paused()
        for where, lane in self._lanes.items():
            # What is expected must be read whole before any of it can be stored.
            wait = lane.waiting.is_full or (
                too_much and lane.waiting.is_whole and len(lane.waiting) > 0
            )
            try:
                if wait and where not in paused:
                    self._consumer.pause(where)
                elif not wait and where in paused and not too_much:
                    self._consumer.resume(where)
            except IllegalStateError:
                continue  # revoked a moment ago

    # -- assignment -----------------------------------------------------------------------------

    def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Called by Kafka's group: nothing is read before the tables have said where to go on."""
        assert self._consumer is not None
        self._assignment += 1
        self._consumer.pause(*partitions)
        if partitions:
            self._watch(asyncio.create_task(self._resume(sorted(partitions), self._assignment)))

    async def revoked(self) -> None:
        """Called before partitions go elsewhere: store what waits, as far as there is time."""
        self._assignment += 1
        lanes = list(self._lanes.values())
        self._lanes = {}
        if lanes:
            await self._land(lanes, REVOKE_FLUSH_S_MAX)

    def _start_again(self, out_of_range: dict[TopicPartition, int]) -> None:
        """Kafka has deleted what would have been read next: ask the tables what is lost."""
        assert self._consumer is not None
        for where, offset in out_of_range.items():
            log.warning(
                "offset.out_of_range", topic=where.topic, partition=where.partition, offset=offset
            )
            lane = self._lanes.pop(where, None)
            self._consumer.pause(where)
            task = self._resume_after(lane, where, self._assignment)
            self._watch(asyncio.create_task(task))

    async def _resume_after(
        self, lane: Lane | None, where: TopicPartition, assignment: int
    ) -> None:
        if lane is not None:
            await self._land([lane], self._settings.drain_s_max)
        await self._resume([where], assignment)

    async def _resume(self, partitions: Sequence[TopicPartition], assignment: int) -> None:
        async for attempt in retries(self._settings.retry_wait_s_max):
            if assignment != self._assignment:
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
        if assignment != self._assignment:
            return
        assert self._consumer is not None
        for lane in lanes:
            self._consumer.seek(lane.where, lane.position)
            self._lanes[lane.where] = lane
            self._consumer.resume(lane.where)
        log.info("partitions.resumed", partitions=len(lanes))

    # -- progress, end --------------------------------------------------------------------------

    async def _keep_progress(self) -> None:
        reported_s, reported_rows = time.monotonic(), 0
        while True:
            await asyncio.sleep(self._settings.progress_interval_s)
            await self._report_progress(list(self._lanes.values()))
            elapsed_s = time.monotonic() - reported_s
            if elapsed_s >= REPORT_INTERVAL_S or self._writer.last_fault:
                rows = self._writer.rows_stored
                log.info(
                    "rows.stored",
                    rows=rows - reported_rows,
                    rows_per_s=round((rows - reported_rows) / elapsed_s),
                    lag_records=sum(self.lag_by_partition().values()),
                    fault=self._writer.last_fault[:300] or None,
                )
                reported_s, reported_rows = time.monotonic(), rows

    async def _report_progress(self, lanes: Sequence[Lane]) -> None:
        try:
            await self._save_progress(lanes)
            await self._announcements.write(
                lane for lane in lanes if self._lanes.get(lane.where) is lane
            )
        except (PassingFault, PartitionLost, AiokafkaError) as error:
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

    async def _land(self, lanes: Sequence[Lane], timeout_s: float) -> None:
        """Store what the lanes hold and record their progress; drop what takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(self._empty(lane) for lane in lanes))
                await self._report_progress(lanes)
        except TimeoutError:
            flights = [lane.flight for lane in lanes if lane.flight is not None]
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)
            log.warning("batches.dropped", lanes=len(flights), note="they are read again")

    async def _empty(self, lane: Lane) -> None:
        while lane.flight is not None or (lane.waiting and lane.waiting.is_whole):
            if lane.is_lost:
                return
            if lane.flight is None:
                self._take_off([lane], time.monotonic())
            flight = lane.flight
            if flight is not None:
                await asyncio.wait([flight])
            if self._failure is not None:
                return

    async def _drain(self) -> None:
        lanes = list(self._lanes.values())
        if self._failure is None and lanes:
            await self._land(lanes, self._settings.drain_s_max)
        self._assignment += 1
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _watch(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and self._failure is None:
            self._failure = task.exception()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _close(self) -> None:
        closing: list[Any] = [self._consumer, self._letters]
        for connection in closing:
            if connection is not None:
                try:
                    await asyncio.wait_for(connection.stop(), 2.0)
                except (AlphaPulseError, AiokafkaError, TimeoutError) as error:
                    log.debug("close.failed", error=repr(error))
        if self._clickhouse is not None:
            await self._clickhouse.close()


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        await self._sink.revoked()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._sink.assigned(assigned)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """Return what the work returns, or None (the work cancelled) when `stop` is set before."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
