"""The sink: poll, batch, flush. Where to go on is read from the tables, not Kafka's commits."""

import asyncio
import time
from collections.abc import Collection, Coroutine, Iterable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.kinds import KINDS, Kind
from alpha_pulse.contracts.roles.batches import RecordBatch
from alpha_pulse.contracts.roles.closing import close_within
from alpha_pulse.contracts.roles.waiting import unless
from alpha_pulse.sinks.clickhouse.client import ClickHouse, PassingFault, retries
from alpha_pulse.sinks.clickhouse.migrate import load_schema, migrate
from alpha_pulse.sinks.clickhouse.statements import NotAllowed
from alpha_pulse.sinks.clickhouse.tables import stored_tables
from alpha_pulse.sinks.lanes.announcements import Announcements
from alpha_pulse.sinks.lanes.assignment import Assignment
from alpha_pulse.sinks.lanes.connections import DeadLetterPublisher, start_consumer
from alpha_pulse.sinks.lanes.inserts import Inserts, OnStored
from alpha_pulse.sinks.lanes.lane import Lane, LaneOpener
from alpha_pulse.sinks.lanes.offsets import OffsetStore
from alpha_pulse.sinks.lanes.tasks import Tasks
from alpha_pulse.sinks.lanes.writer import Writer

log = structlog.get_logger(__name__)

# Kafka batches per poll: each is at most about 1 MB, so that one poll stays small in memory.
POLL_BATCHES_MAX = 32
POLL_S_MAX = 0.1
CLOSE_S_MAX = 2.0
REPORT_INTERVAL_S = 60.0


class Sink:
    """Stores every topic of the contracts; several in one group share the partitions.

    Args:
        config: names Kafka, ClickHouse and the bounds of batches.
        on_stored: called after each batch that is stored, with its table and the seconds it took.
        kinds: those whose topics are stored.
    """

    def __init__(
        self,
        config: Config,
        on_stored: OnStored | None = None,
        kinds: Sequence[Kind[Any]] = KINDS,
    ) -> None:
        self._config = config
        self._on_stored = on_stored
        self.writer: Writer | None = None
        self._settings = config.sink
        self._schema = load_schema(kinds)
        self._schema_problem = ""
        self._tables = stored_tables(config.namespace, kinds)
        self._lanes: dict[TopicPartition, Lane] = {}
        self._tasks = Tasks()
        self._letters = DeadLetterPublisher(config)
        self._consumer: AIOKafkaConsumer | None = None
        self._clickhouse: ClickHouse | None = None
        self._is_storing = False

    async def run(self, stop: asyncio.Event) -> None:
        """Store until `stop` is set, then store what was read and return.

        Raises: TopicRecreated, TooManyRefused, StorageError for a schema that does not fit.
        """
        config = self._config
        clickhouse = self._clickhouse = await unless(
            stop, ClickHouse.connect(config.clickhouse, wait_s_max=self._settings.retry_wait_s_max)
        )
        if clickhouse is None:
            return
        try:
            if await unless(stop, self._migrate(clickhouse)) is None:
                return
            consumer = self._consumer = await unless(stop, start_consumer(config))
            if consumer is None:
                return
            assignment = self._assemble(clickhouse, consumer)
            consumer.subscribe(sorted(self._tables), listener=assignment.listener)
            log.info("sink.started", topics=len(self._tables), database=config.database)
            await self._store_until(stop, consumer, assignment)
        finally:
            await self._close()

    def _assemble(self, clickhouse: ClickHouse, consumer: AIOKafkaConsumer) -> Assignment:
        config, settings = self._config, self._settings
        offsets = OffsetStore(clickhouse, config.database)
        self.writer = Writer(
            clickhouse,
            offsets,
            config.database,
            self._letters.publish,
            retry_wait_s_max=settings.retry_wait_s_max,
            refused_run_max=settings.dead_letter_run_max,
            refused_ratio_max=settings.dead_letter_ratio_max,
        )
        announcements = Announcements(config, consumer)
        self._inserts = Inserts(
            settings,
            announcements,
            self.writer,
            self._lanes,
            self._tasks,
            self._go_on,
            self._on_stored,
        )
        opener = LaneOpener(consumer, offsets, self._tables, settings)
        return Assignment(
            settings,
            consumer,
            opener,
            offsets,
            announcements,
            self._inserts,
            self._lanes,
            self._tasks,
        )

    async def _store_until(
        self, stop: asyncio.Event, consumer: AIOKafkaConsumer, assignment: Assignment
    ) -> None:
        self._tasks.start(self._keep_progress(assignment))
        self._is_storing = True
        try:
            while not stop.is_set():
                self._tasks.raise_failure()
                for where, batches in (await self._fetch(consumer, assignment)).items():
                    self._accept(where, batches)
                self._go_on()
            self._tasks.raise_failure()
        finally:
            self._is_storing = False
            if self._tasks.failure is None:
                await assignment.close(self._settings.drain_s_max)
            await self._tasks.end(CLOSE_S_MAX)

    async def _migrate(self, clickhouse: ClickHouse) -> bool:
        async for attempt in retries(self._settings.retry_wait_s_max):
            with attempt:
                try:
                    await migrate(self._config, clickhouse, self._schema)
                except NotAllowed as error:
                    self._schema_problem = str(error)[:300]
                    log.warning("schema.waiting", error=self._schema_problem)
                    raise PassingFault(str(error)) from error
        self._schema_problem = ""
        return True

    @property
    def rows_stored(self) -> int:
        """Rows stored since the start."""
        return self.writer.rows_stored if self.writer is not None else 0

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
            return self._schema_problem or "waiting for ClickHouse and Kafka"
        if self.writer.last_fault:
            return self.writer.last_fault[:300]
        return ""

    # -- poll, batch, flush ---------------------------------------------------------------------

    async def _fetch(
        self, consumer: AIOKafkaConsumer, assignment: Assignment
    ) -> dict[TopicPartition, list[RecordBatch]]:
        try:
            fetched: dict[TopicPartition, list[RecordBatch]] = await consumer.getmany(
                timeout_ms=int(self._poll_wait_s() * 1000), max_records=POLL_BATCHES_MAX
            )
        except NoOffsetForPartitionError:
            await asyncio.sleep(0.01)
            return {}  # assigned this moment: the seek follows
        except OffsetOutOfRangeError as error:
            assignment.start_again(error.args[0])
            return {}
        return fetched

    def _poll_wait_s(self) -> float:
        if self._inserts.free == 0:
            return POLL_S_MAX  # an insert that ends makes room for the next
        now_s = time.monotonic()
        due = [lane.waiting.due_s() for lane in self._lanes.values() if lane.insert is None]
        waits = [due_s - now_s for due_s in due if due_s is not None]
        return max(0.001, min([POLL_S_MAX, *waits]))

    def _accept(self, where: TopicPartition, batches: Iterable[RecordBatch]) -> None:
        lane = self._lanes.get(where)
        if lane is None:
            return  # not ours any more, or not resumed yet: it is read again after the seek
        now_s = time.monotonic()
        for batch in batches:
            lane.accept(batch, now_s)

    def _go_on(self) -> None:
        """Start what is due and read what there is room for."""
        for where in [where for where, lane in self._lanes.items() if lane.is_lost]:
            del self._lanes[where]
        if self._is_storing and self._tasks.failure is None:
            self._inserts.start()
            self._apply_back_pressure()

    def _apply_back_pressure(self) -> None:
        """Pause partitions that are read faster than ClickHouse stores their rows."""
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

    # -- progress, end --------------------------------------------------------------------------

    async def _keep_progress(self, assignment: Assignment) -> None:
        assert self.writer is not None
        reported_s, reported_rows = time.monotonic(), 0
        while True:
            await asyncio.sleep(self._settings.progress_interval_s)
            await assignment.report_progress()
            elapsed_s = time.monotonic() - reported_s
            if elapsed_s >= REPORT_INTERVAL_S or self.writer.last_fault:
                rows = self.writer.rows_stored
                log.info(
                    "rows.stored",
                    rows=rows - reported_rows,
                    rows_per_s=round((rows - reported_rows) / elapsed_s),
                    lag_records=sum(self.lag_by_partition().values()),
                    fault=self.writer.last_fault[:300] or None,
                )
                reported_s, reported_rows = time.monotonic(), rows

    async def _close(self) -> None:
        closing: list[Coroutine[Any, Any, None]] = [self._letters.stop()]
        if self._consumer is not None:
            closing.append(self._consumer.stop())
        if self._clickhouse is not None:
            closing.append(self._clickhouse.close())
        for one in closing:
            await close_within(CLOSE_S_MAX, one, expected=(AlphaPulseError, AiokafkaError, OSError))
