"""The partitions that a worker holds: opened, committed each in its own time, and closed.

A transaction that failed takes its partition back to the last one that did not; only one that was
fenced ends the worker.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, ProducerFenced
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import AlphaPulseError, KafkaError
from alpha_pulse.contracts.roles.batches import Record
from alpha_pulse.processors.worker.metrics import ProcessorMetrics
from alpha_pulse.processors.worker.partition import Partition
from alpha_pulse.processors.worker.standstill import Standstill

log = structlog.get_logger()

RETRY_WAIT_S = 0.5
# From here on a batch owes running transactions as much time as it took.
LONG_BATCH_S = 0.02
# What any Kafka call may raise while a broker is away; everything else is a mistake of ours.
_PASSING = (AiokafkaError, KafkaError, OSError, asyncio.TimeoutError)


class FencedError(AlphaPulseError):
    """Another worker took over a partition that this one still held."""


class HeldPartitions:
    """Opens, commits and closes what the group gave to a worker.

    seek: called with a partition and the offset at which reading it goes on.
    """

    def __init__(
        self,
        config: Config,
        seek: Callable[[TopicPartition, int], None],
        *,
        open_candles: Callable[[int, list[Record]], None] | None = None,
        metrics: ProcessorMetrics | None = None,
    ) -> None:
        self.by_number: dict[int, Partition] = {}
        self._standstill = Standstill(config.processor.stall_s_max)
        self._config = config
        self._seek = seek
        self._open_candles = open_candles
        self._metrics = metrics

    def check_progress(self) -> None:
        """Raise StalledError when there was work and none of it was committed for too long."""
        self._standstill.check(self._now_s())

    def problem(self) -> str:
        """Return why the worker is not ready, "" when it is."""
        return self._standstill.problem(self._now_s())

    async def assign(self, numbers: Iterable[int], ending: asyncio.Event) -> list[Partition]:
        """Fence whoever held partitions, read their states, and go on from there.

        Tries for as long as Kafka is away, or until `ending` is set; they are not open then.
        """
        taken = [
            Partition(self._config, number, self._open_candles, self._metrics) for number in numbers
        ]
        await asyncio.gather(*(self._open(partition, ending) for partition in taken))
        for partition in taken:
            self.by_number[partition.number] = partition
            self._seek(partition.ingest, partition.kernel.position)
        self._standstill.gone_on_at_s = self._now_s()
        return taken

    async def _open(self, partition: Partition, ending: asyncio.Event) -> None:
        while not ending.is_set():
            try:
                await partition.open()
                return
            except _PASSING as error:
                _warn("partition.open_failed", partition, error)
                await asyncio.sleep(RETRY_WAIT_S)

    # --- transactions -------------------------------------------------------------------------

    async def commit_due(self) -> None:
        """See how transactions ended, and begin those whose time has come."""
        now_s = self._now_s()
        interval_s = self._config.processor.commit_interval_s
        if not any(partition.is_behind for partition in self.by_number.values()):
            self._standstill.gone_on_at_s = now_s
        for partition in self.by_number.values():
            if partition.commit is not None:
                if not partition.commit.done():
                    continue
                await self._conclude(partition)
                if partition.commit is not None:
                    continue  # Kafka is still away: the next round tries to open it again
            if partition.is_behind and now_s - partition.committed_at_s >= interval_s:
                partition.committed_at_s = now_s
                partition.begin_commit()

    async def commit_now(self, partition: Partition) -> None:
        """Begin a partition's transaction before its time, once the one under way has ended."""
        if partition.commit is not None:
            await asyncio.wait([partition.commit])
            await self._conclude(partition)
        if partition.commit is None and partition.is_behind:
            partition.committed_at_s = self._now_s()
            partition.begin_commit()

    async def let_commits_go_on(self, took_s: float) -> None:
        """Give transactions under way the time that a batch took.

        They take many turns of the loop. Where a batch takes long (history: candles cost ten times
        a trade), one turn per batch would let them time out, again and again.
        """
        if took_s >= LONG_BATCH_S:
            running = self._running()
            if running:
                await asyncio.wait(running, timeout=took_s)

    async def commit_all(self) -> None:
        """Commit what was taken in; return when it is known how that ended."""
        running = self._running()
        if running:
            await asyncio.wait(running)
        ready = [
            partition
            for partition in self.by_number.values()
            if partition.is_behind
            and (partition.commit is None or not partition.commit.exception())
        ]
        results = await asyncio.gather(
            *(partition.begin_commit() for partition in ready), return_exceptions=True
        )
        for partition, result in zip(ready, results, strict=True):
            if isinstance(result, BaseException):
                # Not lost: whoever takes the partition reads from its last commit.
                _warn("commit.failed", partition, result)

    async def revoke_all(self) -> None:
        """Close every partition; what was not committed is read again by the next holder."""
        held, self.by_number = self.by_number, {}
        if self._metrics is not None:
            for number in held:
                self._metrics.closed(number)
        await asyncio.gather(*(partition.close() for partition in held.values()))

    def _running(self) -> "list[asyncio.Task[None]]":
        commits = [partition.commit for partition in self.by_number.values()]
        return [commit for commit in commits if commit is not None and not commit.done()]

    async def _conclude(self, partition: Partition) -> None:
        # See how a transaction ended; after one that failed, go back to the last that did not.
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
        _warn("commit.failed", partition, error)
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
            _warn("partition.reopen_failed", partition, error)
            if isinstance(error, KafkaConnectionError | ConnectionError):
                self._standstill.away_at_s = self._now_s()
            partition.commit = asyncio.create_task(_fail(error))
            return
        self._seek(partition.ingest, partition.kernel.position)
        log.info("partition.restored", partition=partition.number, offset=partition.kernel.position)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def _warn(event: str, partition: Partition, error: BaseException) -> None:
    log.warning(event, partition=partition.number, error=f"{type(error).__name__}: {error}")


async def _fail(error: BaseException) -> None:
    raise error
