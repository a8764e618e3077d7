"""The trade path: a service inside the Faust worker with a Kafka group of its own.

Poll batches, run the kernels, and commit one transaction per partition every half second. On
assignment: fence, read the last state, go on from there; on revocation: commit. Faust hosts it,
but does not transport it: its path per event is 50 times slower and left holes under rebalances.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import aiokafka
import mode
import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.roles.batches import EncodedBatch, encoded_consumer
from alpha_pulse.contracts.roles.closing import close_within
from alpha_pulse.contracts.topics import INGEST
from alpha_pulse.processors.worker.held_partitions import HeldPartitions
from alpha_pulse.processors.worker.metrics import ProcessorMetrics
from alpha_pulse.processors.worker.open_candles import OpenCandles
from alpha_pulse.processors.worker.partition import Partition

log = structlog.get_logger()

POLL_MS = 100
POLL_BATCHES_MAX = 8
FETCH_BYTES_MAX = 512 * 1024
CONSUMER_STOP_S_MAX = 5.0


class TradePath(mode.Service):  # type: ignore[misc]
    """Polls, processes and commits until it is stopped; `failure` says why it ended by itself."""

    abstract = False

    def __init__(
        self, config: Config, metrics: ProcessorMetrics | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.config = config
        if metrics is not None:
            metrics.reader = self
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.records = 0
        self._ending = asyncio.Event()
        self._lock = asyncio.Lock()
        self._loop_task: asyncio.Task[None] | None = None
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._open_candles = OpenCandles(config) if config.processor.open_candles else None
        self._held = HeldPartitions(
            config,
            self._seek,
            open_candles=None if self._open_candles is None else self._open_candles.send,
            metrics=metrics,
        )

    async def on_start(self) -> None:
        """Connect, and begin to work in a task of its own."""
        self._loop_task = asyncio.create_task(self._run())
        self._loop_task.add_done_callback(self._ended)

    async def on_stop(self) -> None:
        """Commit what was taken in and leave the group."""
        self.begin_to_end()
        if self._loop_task is not None:
            await asyncio.wait([self._loop_task], timeout=self.config.processor.drain_s_max)

    def begin_to_end(self) -> None:
        """Take in no more, commit what was taken in and leave the group; `on_stop` waits for it."""
        self._ending.set()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception() is None:
            return
        self.failure = task.exception()
        log.error("trade_path.failed", error=f"{type(self.failure).__name__}: {self.failure}")
        self.on_failure()
        # mode's crash() takes the worker down; its exit code is then not 0.
        self._crash_task = asyncio.ensure_future(self.crash(self.failure))

    # --- the loop -----------------------------------------------------------------------------

    async def _run(self) -> None:
        settings = self.config.processor
        consumer = self._consumer = encoded_consumer(
            self.config.kafka,
            "alpha-pulse-processor",
            fetch_bytes_max=FETCH_BYTES_MAX,
            group_id=self.config.named(settings.group),
            session_timeout_ms=round(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=round(settings.session_timeout_s * 1000 / 12),
            rebalance_timeout_ms=20_000,
        )
        if self._open_candles is not None:
            await self._open_candles.start()
        consumer.subscribe([INGEST.full_name(self.config.namespace)], listener=_Listener(self))
        await consumer.start()
        log.info("trade_path.started", group=self.config.named(settings.group))
        try:
            while not self._ending.is_set():
                await self._step(consumer)
        finally:
            async with self._lock:
                if self.failure is None and self._ending.is_set():
                    await self._held.commit_all()
                await self._held.revoke_all()
            # Nobody learns why this worker ends before it has left the group, or given that up.
            if not await close_within(CONSUMER_STOP_S_MAX, consumer.stop()):
                log.warning("consumer.abandoned", after_s=CONSUMER_STOP_S_MAX)
            if self._open_candles is not None:
                await self._open_candles.stop()
            log.info("trade_path.stopped", records=self.records)

    async def _step(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        found = await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_BATCHES_MAX)
        async with self._lock:
            for tp, batches in found.items():
                await self._ingest(tp, batches)
            await self._held.commit_due()
        self._held.check_progress()

    async def _ingest(self, tp: TopicPartition, batches: list[EncodedBatch]) -> None:
        partition = self._held.by_number.get(tp.partition)
        if partition is None or not partition.is_open:
            return  # revoked, or about to be read again from its last commit
        kernel, loop = partition.kernel, asyncio.get_running_loop()
        for batch in batches:
            if partition.kernel is not kernel:
                return  # went back to its last commit: these come again
            if batch.first_offset > partition.kernel.position:
                await self._check_lost(partition, batch.first_offset)
            began_s = loop.time()
            self.records += partition.process(batch)
            # Heartbeats to the group and commits under way get their turn.
            await asyncio.sleep(0)
            await self._held.let_commits_go_on(loop.time() - began_s)
            pending = partition.kernel.position - partition.begun
            if pending > self.config.processor.pending_records_max:
                # Memory is bounded: so much goes into a transaction at once, before its time.
                await self._held.commit_now(partition)

    async def _check_lost(self, partition: Partition, found: int) -> None:
        """Tell retention that outran us from offsets that no reader sees."""
        assert self._consumer is not None
        position = partition.kernel.position
        begin = (await self._consumer.beginning_offsets([partition.ingest]))[partition.ingest]
        if position and begin > position:
            log.error("records.expired", partition=partition.number, expected=position, found=found)
            partition.kernel.records_were_lost()

    def _seek(self, partition: TopicPartition, offset: int) -> None:
        assert self._consumer is not None
        self._consumer.seek(partition, offset)

    def lag(self) -> dict[TopicPartition, int]:
        """Return how many records of each partition are not committed yet, as far as is known."""
        lag: dict[TopicPartition, int] = {}
        if self._consumer is None:
            return lag
        for partition in self._held.by_number.values():
            with contextlib.suppress(IllegalStateError):  # revoked a moment ago
                end = self._consumer.highwater(partition.ingest) or partition.committed
                lag[partition.ingest] = max(0, end - partition.committed)
        return lag

    def problem(self) -> str:
        """Return why this worker is not ready, "" when it is."""
        if self._consumer is None or not self._consumer.assignment():
            return "waiting for Kafka to assign partitions"
        return self._held.problem()

    # --- rebalances ---------------------------------------------------------------------------

    async def assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take over partitions: fence, restore, seek."""
        async with self._lock:
            taken = await self._held.assign([tp.partition for tp in assigned], self._ending)
        log.info(
            "partitions.assigned",
            offsets={partition.number: partition.committed for partition in taken},
        )

    async def revoked(self) -> None:
        """Commit what was taken in, then let go of every partition."""
        async with self._lock:
            if self._held.by_number:
                await self._held.commit_all()
                log.info("partitions.revoked", partitions=sorted(self._held.by_number))
            await self._held.revoke_all()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes the group's decisions on to the trade path."""

    def __init__(self, trade_path: TradePath) -> None:
        self._trade_path = trade_path

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._trade_path.revoked()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._trade_path.assigned(assigned)
