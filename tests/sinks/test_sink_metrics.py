"""What a stored batch tells: how long it took, and how old its last live trade is."""

import time

import pytest
from prometheus_client import CollectorRegistry

from alpha_pulse.contracts import kinds
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.tables import table_of
from alpha_pulse.sinks.metrics import SinkMetrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> SinkMetrics:
    return SinkMetrics(registry, "sinks")


def batch(*values: bytes | None) -> Batch:
    now_ms = int(time.time() * 1000)
    return Batch("market.trades.v1", 0, range(len(values)), values, len(values), now_ms - 2_000)


def trade(age_s: float, job: str = "") -> bytes:
    time_us = int((time.time() - age_s) * 1e6)
    more = f',"job":"{job}"' if job else ""
    return f'{{"trade_time_us":{time_us}{more}}}'.encode()


def test_the_last_live_trade_measures_the_whole_way(
    metrics: SinkMetrics, registry: CollectorRegistry
) -> None:
    metrics.stored(batch(trade(500), trade(20)), table_of(kinds.TRADE), 0.2)
    name = "alpha_pulse_sink_end_to_end_seconds"
    assert registry.get_sample_value(f"{name}_bucket", {"le": "10.0"}) == 0
    assert registry.get_sample_value(f"{name}_bucket", {"le": "30.0"}) == 1
    delay = "alpha_pulse_sink_delay_seconds_bucket"
    assert registry.get_sample_value(delay, {"table": "trades_log", "le": "1.0"}) == 0
    assert registry.get_sample_value(delay, {"table": "trades_log", "le": "30.0"}) == 1


@pytest.mark.parametrize(
    "value",
    [trade(9, job="backfill-1"), b"not json", b"", None, b'{"trade_time_us":"x"}', b"\xff", b"[]"],
    ids=["history", "no-json", "empty", "none", "text", "no-utf8", "list"],
)
def test_history_and_rubbish_measure_nothing_and_harm_nothing(
    metrics: SinkMetrics, registry: CollectorRegistry, value: bytes | None
) -> None:
    metrics.stored(batch(value), table_of(kinds.TRADE), 0.1)
    assert registry.get_sample_value("alpha_pulse_sink_end_to_end_seconds_count") == 0
    inserts = "alpha_pulse_sink_insert_seconds_count"
    assert registry.get_sample_value(inserts, {"table": "trades_log"}) == 1


def test_candles_are_not_measured_by_their_open_time(
    metrics: SinkMetrics, registry: CollectorRegistry
) -> None:
    metrics.stored(batch(b"{}"), table_of(kinds.CANDLE), 0.1)
    assert registry.get_sample_value("alpha_pulse_sink_end_to_end_seconds_count") == 0
