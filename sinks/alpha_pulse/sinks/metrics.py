"""What a sink counts."""

import time
from collections.abc import Mapping

import msgspec
from prometheus_client import CollectorRegistry

from alpha_pulse.contracts.kinds import TRADE
from alpha_pulse.contracts.roles.metrics.metric import (
    CONSUMERGROUP_LAG,
    Metric,
    Readings,
    Values,
    histogram,
)
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.tables import Table
from alpha_pulse.sinks.lanes.consumer import Sink

_BY_TABLE = ("table",)


def _counter(name: str, meaning: str, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(f"alpha_pulse_sink_{name}_total", "counter", meaning, labels)


def _gauge(name: str, meaning: str, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(f"alpha_pulse_sink_{name}", "gauge", meaning, labels)


def _histogram(name: str, meaning: str, labels: tuple[str, ...] = ()) -> Metric:
    return Metric(f"alpha_pulse_sink_{name}", "histogram", meaning, labels)


ROWS = _counter("rows", "Rows stored.", _BY_TABLE)
REJECTED = _counter("rejected_rows", "Rows that ClickHouse refused: dead letters now.", _BY_TABLE)
FAULTS = _counter("insert_faults", "Attempts to insert that failed and are made again.")
BUFFERED_BYTES = _gauge("buffered_bytes", "Bytes read from Kafka and not stored yet.")
PARTITIONS = _gauge("partitions", "Partitions that this sink holds.")
PAUSED = _gauge("paused_partitions", "Partitions not read, because ClickHouse is behind.")
LAST_TIME = _gauge(
    "last_record_time_seconds", "Kafka's time of the newest row stored, Unix time.", _BY_TABLE
)
INSERT = _histogram(
    "insert_seconds", "From handing a batch over until it is stored, retries included.", _BY_TABLE
)
DELAY = _histogram(
    "delay_seconds",
    "From Kafka's time of a batch's newest record until it is stored and visible.",
    _BY_TABLE,
)
END_TO_END = _histogram(
    "end_to_end_seconds",
    "From the exchange's time of a batch's last live trade until it is visible in ClickHouse.",
)
METRICS = (
    ROWS,
    REJECTED,
    FAULTS,
    BUFFERED_BYTES,
    PARTITIONS,
    PAUSED,
    LAST_TIME,
    INSERT,
    DELAY,
    END_TO_END,
    CONSUMERGROUP_LAG,
)


class _TradeTime(msgspec.Struct):
    trade_time_us: int
    job: str | None = None


class SinkMetrics:
    """Reads `sink` when somebody asks; `stored` feeds the histograms, once for each insert."""

    def __init__(self, registry: CollectorRegistry, group: str) -> None:
        self.sink: Sink | None = None
        self._group = group
        self._last_time_s: dict[tuple[str, ...], float] = {}
        self._insert_s = histogram(INSERT, registry)
        self._delay_s = histogram(DELAY, registry)
        self._end_to_end_s = histogram(END_TO_END, registry)
        read = [metric for metric in METRICS if metric.kind != "histogram"]
        registry.register(Readings(read, self._read))

    def stored(self, batch: Batch, table: Table, took_s: float) -> None:
        """Count a batch that has just been stored."""
        now_s = time.time()
        record_s = batch.timestamp_ms / 1000
        self._insert_s.labels(table.name).observe(took_s)
        self._delay_s.labels(table.name).observe(max(0.0, now_s - record_s))
        self._last_time_s[table.name,] = record_s
        if table.kind is TRADE:
            try:
                last = msgspec.json.decode(batch.values[-1] or b"", type=_TradeTime)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return  # it was refused, and is counted as such
            if not last.job:
                self._end_to_end_s.observe(max(0.0, now_s - last.trade_time_us / 1e6))

    def _read(self) -> Mapping[Metric, Values]:
        sink = self.sink
        found: dict[Metric, Values] = {LAST_TIME: dict(self._last_time_s)}
        if sink is None:
            return found
        held = sink.lanes
        found[PARTITIONS] = {(): len(held)}
        found[BUFFERED_BYTES] = {(): sum(lane.buffered_bytes for lane in held)}
        found[PAUSED] = {(): sink.paused}
        found[CONSUMERGROUP_LAG] = {
            (self._group, where.topic, str(where.partition)): lag
            for where, lag in sink.lag_by_partition().items()
        }
        writer = sink.writer
        if writer is not None:
            found[ROWS] = {(table,): rows for table, rows in writer.stored_by_table.items()}
            found[REJECTED] = {(table,): rows for table, rows in writer.refused_by_table.items()}
            found[FAULTS] = {(): writer.faults}
        return found
