"""The trade path: a service inside the Faust worker with a Kafka group of its own.

Poll batches, run the kernels, and commit one transaction per partition every half second. On
assignment: fence, read the last state, go on from there; on revocation: commit. Faust hosts it,
but does not transport it: its path per event is 50 times slower and left holes under rebalances.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import aiokafka
import mode
import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaConnectionError, ProducerFenced
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import AlphaPulseError, KafkaError
from alpha_pulse.contracts.kafka.batches import EncodedBatch, encoded_consumer
from alpha_pulse.contracts.topics import INGEST
from alpha_pulse.processors.metrics import ProcessorMetrics
from alpha_pulse.processors.open_candles import OpenCandles
from alpha_pulse.processors.partition import Partition
from alpha_pulse.processors.standstill import Standstill

log = structlog.get_logger()

POLL_MS = 100
POLL_BATCHES_MAX = 8
FETCH_BYTES_MAX = 512 * 1024
RETRY_WAIT_S = 0.5
CONSUMER_STOP_S_MAX = 5.0
# From here on a batch owes running transactions as much time as it took.
LONG_BATCH_S = 0.02
# What any Kafka call may raise while a broker is away; everything else is a mistake of ours.
_PASSING = (AiokafkaError, KafkaError, OSError, asyncio.TimeoutError)


class FencedError(AlphaPulseError):
    """Another worker took over a partition that this one still held."""


class TradePath(mode.Service):  # type: ignore[misc]
    """Polls, processes and commits until it is stopped; `failure` says why it ended by itself."""

    abstract = False

    def __init__(
        self, config: Config, metrics: ProcessorMetrics | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.config = config
        self._metrics = metrics
        if metrics is not None:
            metrics.trade_path = self
        self.partitions: dict[int, Partition] = {}
        self.failure: BaseException | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self.records = 0
        self._ending = asyncio.Event()
        self._lock = asyncio.Lock()
        self._loop_task: asyncio.Task[None] | None = None
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._open_candles = OpenCandles(config) if config.processor.open_candles else None
        self._standstill = Standstill(config.processor.stall_s_max)

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
            self._standstill.gone_on_at_s = self._now_s()
            while not self._ending.is_set():
                await self._step(consumer)
        finally:
            async with self._lock:
                if self.failure is None and self._ending.is_set():
                    await self._commit_all()
                await self._release()
            await _end_within(CONSUMER_STOP_S_MAX, consumer.stop())
            if self._open_candles is not None:
                await self._open_candles.stop()
            log.info("trade_path.stopped", records=self.records)

    async def _step(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        found = await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_BATCHES_MAX)
        async with self._lock:
            for tp, batches in found.items():
                await self._take_in(tp, batches)
            await self._commit_due()
        self._standstill.check(self._now_s())

    async def _take_in(self, tp: TopicPartition, batches: list[EncodedBatch]) -> None:
        partition = self.partitions.get(tp.partition)
        if partition is None or not partition.is_open:
            return  # revoked, or about to be read again from its last commit
        kernel = partition.kernel
        for batch in batches:
            if partition.kernel is not kernel:
                return  # went back to its last commit: these come again
            if batch.first_offset > partition.kernel.position:
                await self._check_lost(partition, batch.first_offset)
            began_s = self._now_s()
            self.records += partition.process(batch)
            # Heartbeats to the group and commits under way get their turn.
            await asyncio.sleep(0)
            await self._let_commits_go_on(self._now_s() - began_s)
            pending = partition.kernel.position - partition.begun
            if pending > self.config.processor.pending_records_max:
                # Memory is bounded: so much goes into a transaction at once, before its time.
                await self._commit_now(partition)

    async def _let_commits_go_on(self, took_s: float) -> None:
        # A transaction takes many turns of the loop. Where a batch takes long (history: candles
        # cost ten times a trade), one turn per batch would let it time out, again and again.
        if took_s >= LONG_BATCH_S:
            commits = [partition.commit for partition in self.partitions.values()]
            running = [commit for commit in commits if commit is not None and not commit.done()]
            if running:
                await asyncio.wait(running, timeout=took_s)

    async def _commit_now(self, partition: Partition) -> None:
        if partition.commit is not None:
            await asyncio.wait([partition.commit])
            await self._conclude(partition)
        if partition.commit is None and partition.is_behind:
            partition.committed_at_s = self._now_s()
            partition.begin_commit()

    async def _check_lost(self, partition: Partition, found: int) -> None:
        """Tell retention that outran us from offsets that no reader sees."""
        assert self._consumer is not None
        position = partition.kernel.position
        begin = (await self._consumer.beginning_offsets([partition.ingest]))[partition.ingest]
        if position and begin > position:
            log.error("records.expired", partition=partition.number, expected=position, found=found)
            partition.kernel.records_were_lost()

    async def _commit_due(self) -> None:
        now_s = self._now_s()
        interval_s = self.config.processor.commit_interval_s
        if not any(partition.is_behind for partition in self.partitions.values()):
            self._standstill.gone_on_at_s = now_s
        for partition in self.partitions.values():
            if partition.commit is not None:
                if not partition.commit.done():
                    continue
                await self._conclude(partition)
                if partition.commit is not None:
                    continue  # Kafka is still away: the next round tries to open it again
            if partition.is_behind and now_s - partition.committed_at_s >= interval_s:
                partition.committed_at_s = now_s
                partition.begin_commit()

    async def _conclude(self, partition: Partition) -> None:
        """See how a transaction ended; after one that failed, go back to the last that did not."""
        assert partition.commit is not None
        error = partition.commit.exception()
        partition.commit = None
        if error is None:
            self._standstill.gone_on_at_s = self._now_s()
            return
        if isinstance(error, ProducerFenced):
            raise FencedError(
                f"expected to hold partition {partition.number}, found that another worker took it "
                "over; this one must start again"
            ) from error
        if not isinstance(error, _PASSING):
            raise error
        log.warning(
            "commit.failed", partition=partition.number, error=f"{type(error).__name__}: {error}"
        )
        await self._reopen(partition)

    async def _reopen(self, partition: Partition) -> None:
        if self._metrics is not None:
            self._metrics.commit_failed()
        # Nobody knows whether a commit that timed out was written. The new producer fences the old
        # one, which settles it either way; then the state in Kafka says where to go on.
        await partition.close()
        await asyncio.sleep(RETRY_WAIT_S)
        try:
            await partition.open()
        except _PASSING as error:
            log.warning(
                "partition.reopen_failed",
                partition=partition.number,
                error=f"{type(error).__name__}: {error}",
            )
            if isinstance(error, KafkaConnectionError | ConnectionError):
                self._standstill.away_at_s = self._now_s()
            partition.commit = asyncio.create_task(_fail(error))
            return
        assert self._consumer is not None
        self._consumer.seek(partition.ingest, partition.kernel.position)
        log.info("partition.restored", partition=partition.number, offset=partition.kernel.position)

    def lag(self) -> dict[TopicPartition, int]:
        """Return how many records of each partition are not committed yet, as far as is known."""
        lag: dict[TopicPartition, int] = {}
        if self._consumer is None:
            return lag
        for partition in self.partitions.values():
            with contextlib.suppress(IllegalStateError):  # revoked a moment ago
                end = self._consumer.highwater(partition.ingest) or partition.committed
                lag[partition.ingest] = max(0, end - partition.committed)
        return lag

    def problem(self) -> str:
        """Return why this worker is not ready, "" when it is."""
        if self._consumer is None or not self._consumer.assignment():
            return "waiting for Kafka to assign partitions"
        return self._standstill.problem(self._now_s())

    # --- rebalances ---------------------------------------------------------------------------

    async def assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take over partitions: fence, restore, seek."""
        async with self._lock:
            open_candles = None if self._open_candles is None else self._open_candles.send
            fresh = [
                Partition(self.config, tp.partition, open_candles, self._metrics) for tp in assigned
            ]
            await asyncio.gather(*(self._open(partition) for partition in fresh))
            assert self._consumer is not None
            for partition in fresh:
                self.partitions[partition.number] = partition
                self._consumer.seek(partition.ingest, partition.kernel.position)
            self._standstill.gone_on_at_s = self._now_s()
        log.info(
            "partitions.assigned",
            offsets={partition.number: partition.committed for partition in fresh},
        )

    async def _open(self, partition: Partition) -> None:
        while not self._ending.is_set():
            try:
                await partition.open()
                return
            except _PASSING as error:
                log.warning(
                    "partition.open_failed",
                    partition=partition.number,
                    error=f"{type(error).__name__}: {error}",
                )
                await asyncio.sleep(RETRY_WAIT_S)

    async def revoked(self) -> None:
        """Commit what was taken in, then let go of every partition."""
        async with self._lock:
            if self.partitions:
                await self._commit_all()
                log.info("partitions.revoked", partitions=sorted(self.partitions))
            await self._release()

    async def _commit_all(self) -> None:
        commits = [
            partition.commit
            for partition in self.partitions.values()
            if partition.commit is not None and not partition.commit.done()
        ]
        if commits:
            await asyncio.wait(commits)
        ready = [
            partition
            for partition in self.partitions.values()
            if partition.is_behind
            and (partition.commit is None or not partition.commit.exception())
        ]
        results = await asyncio.gather(
            *(partition.begin_commit() for partition in ready), return_exceptions=True
        )
        for partition, result in zip(ready, results, strict=True):
            if isinstance(result, BaseException):
                # Not lost: whoever takes the partition reads from its last commit.
                log.warning(
                    "commit.failed",
                    partition=partition.number,
                    error=f"{type(result).__name__}: {result}",
                )

    async def _release(self) -> None:
        held, self.partitions = self.partitions, {}
        if self._metrics is not None:
            for number in held:
                self._metrics.closed(number)
        await asyncio.gather(*(partition.close() for partition in held.values()))

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes the group's decisions on to the trade path."""

    def __init__(self, trade_path: TradePath) -> None:
        self._trade_path = trade_path

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._trade_path.revoked()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._trade_path.assigned(assigned)


async def _end_within(seconds: float, ending: Coroutine[Any, Any, None]) -> None:
    # A client whose broker is away may take for ever to leave its group, and until then nobody
    # would learn why this worker ends.
    task = asyncio.ensure_future(ending)
    await asyncio.wait([task], timeout=seconds)
    if task.done():
        task.result()
    else:
        task.cancel()
        log.warning("consumer.abandoned", after_s=seconds)


async def _fail(error: BaseException) -> None:
    raise error
