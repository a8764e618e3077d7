"""What a processor counts: read from the kernels' own counters, and once per transaction."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import msgspec
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.roles.metrics.metric import (
    CONSUMERGROUP_LAG,
    Metric,
    Readings,
    Values,
    histogram,
)
from alpha_pulse.contracts.topics import DEAD_LETTERS
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.wire.records import RecordsWriter


def _counter(name: str, meaning: str, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(f"alpha_pulse_processor_{name}_total", "counter", meaning, labels)


RECORDS = _counter("records", "Records of the ingest log taken in.")
TRADES = _counter("trades", "Trades admitted.")
DUPLICATES = _counter("duplicate_trades", "Trades that came again and changed nothing.")
LATE = _counter("late_trades", "Trades too late for a candle that is still kept.")
REJECTED = _counter("rejected_records", "Records that became dead letters, by reason.", ("reason",))
UNKNOWN = _counter(
    "unknown_kinds", "Records of kinds that this version does not know; they are skipped."
)
PUBLISHED = _counter("published_records", "Records committed, by topic.", ("topic",))
COMMITS_FAILED = _counter("failed_commits", "Transactions that did not come through.")
AUDITS = _counter(
    "audits",
    "Closed candles held against the exchange's own, by result; `different` is a finding.",
    ("result",),
)
PARTITIONS = Metric(
    "alpha_pulse_processor_partitions", "gauge", "Partitions that this worker holds."
)
LAST_TIME = Metric(
    "alpha_pulse_processor_last_record_time_seconds",
    "gauge",
    "Kafka's time of the newest record taken in, Unix time.",
)
COMMIT = Metric("alpha_pulse_processor_commit_seconds", "histogram", "Length of a transaction.")
DELAY = Metric(
    "alpha_pulse_processor_delay_seconds",
    "histogram",
    "From Kafka's time of a transaction's newest record to the end of the transaction.",
)
METRICS = (
    RECORDS,
    TRADES,
    DUPLICATES,
    LATE,
    REJECTED,
    UNKNOWN,
    PUBLISHED,
    COMMITS_FAILED,
    AUDITS,
    PARTITIONS,
    LAST_TIME,
    COMMIT,
    DELAY,
    CONSUMERGROUP_LAG,
)


class Reader(Protocol):
    """Who reads the ingest log. records: how many it has read."""

    records: int

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return how many records of each partition are not committed yet."""
        ...


class ProcessorMetrics:
    """Reads the kernels when somebody asks; is told of each transaction and each audit."""

    def __init__(self, registry: CollectorRegistry, config: Config) -> None:
        self.reader: Reader | None = None
        self.audits: Counter[str] = Counter()
        self._config = config
        self._kernels: dict[int, Kernel] = {}  # by partition
        self._late_before: dict[int, int] = {}  # what a kernel's state brought along
        self._gone: Counter[Metric] = Counter()  # what kernels counted that are gone
        self._rejected: Counter[str] = Counter()
        self._published: Counter[str] = Counter()
        self._failed = 0
        self._newest_ms = 0
        self._commit_s = histogram(COMMIT, registry)
        self._delay_s = histogram(DELAY, registry)
        read = [metric for metric in METRICS if metric.kind != "histogram"]
        registry.register(Readings(read, self._read))

    def opened(self, number: int, kernel: Kernel) -> None:
        """Count by a partition's kernel from now on, in place of the one that it had."""
        self.closed(number)
        self._kernels[number] = kernel
        self._late_before[number] = _late(kernel)

    def closed(self, number: int) -> None:
        """Keep what a partition's kernel has counted; nothing happens when there is none."""
        kernel = self._kernels.get(number)
        if kernel is not None:
            self._gone.update(self._counts(number, kernel))
            del self._kernels[number], self._late_before[number]

    def committed(
        self, outputs: Mapping[str, RecordsWriter], newest_ms: int, took_s: float
    ) -> None:
        """Count a transaction that came through. newest_ms: Kafka's time of its newest record."""
        self._commit_s.observe(took_s)
        self._newest_ms = max(self._newest_ms, newest_ms)
        if newest_ms:
            self._delay_s.observe(max(0.0, time.time() - newest_ms / 1000))
        for topic, records in outputs.items():
            self._published[topic] += len(records)
            if topic == DEAD_LETTERS.name:
                self._rejected.update(_decode_reason(value).reason for _, value in records)

    def audited(self, result: str) -> None:
        """Count an audit by its result."""
        self.audits[result] += 1

    def commit_failed(self) -> None:
        """Count a transaction that did not come through."""
        self._failed += 1

    def _counts(self, number: int, kernel: Kernel) -> dict[Metric, int]:
        return {
            TRADES: kernel.counters.trades,
            DUPLICATES: kernel.counters.duplicates,
            LATE: _late(kernel) - self._late_before[number],
            UNKNOWN: kernel.counters.unknown_kinds,
        }

    def _read(self) -> Mapping[Metric, Values]:
        counts = self._gone.copy()
        for number, kernel in self._kernels.items():
            counts.update(self._counts(number, kernel))
        reader = self.reader
        found: dict[Metric, Values] = {
            RECORDS: {(): reader.records if reader is not None else 0},
            PUBLISHED: {(topic,): count for topic, count in self._published.items()},
            REJECTED: {(reason,): count for reason, count in self._rejected.items()},
            AUDITS: {(result,): count for result, count in self.audits.items()},
            COMMITS_FAILED: {(): self._failed},
            PARTITIONS: {(): len(self._kernels)},
        }
        for metric in (TRADES, DUPLICATES, LATE, UNKNOWN):
            found[metric] = {(): counts[metric]}
        if self._newest_ms:
            found[LAST_TIME] = {(): self._newest_ms / 1000}
        if reader is not None:
            group = self._config.named(self._config.processor.group)
            found[CONSUMERGROUP_LAG] = {
                (group, where.topic, str(where.partition)): lag
                for where, lag in reader.lag().items()
            }
        return found


def _late(kernel: Kernel) -> int:
    # Of live streams only: a history job's stream is gone when it ends.
    return sum(symbol.live.late for symbol in kernel.symbols.values())


class _Reason(msgspec.Struct):
    reason: str


_decode_reason = msgspec.json.Decoder(_Reason).decode
