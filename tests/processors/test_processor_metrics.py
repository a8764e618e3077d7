"""Counters survive what happens to kernels: a count that is lost or doubled is a false alarm."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.events import DeadLetter
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.processors.wire.records import RecordsWriter
from alpha_pulse.processors.worker.metrics import ProcessorMetrics

LETTER: Any = next(iter(EXAMPLES[DeadLetter].values()))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> ProcessorMetrics:
    return ProcessorMetrics(registry, Config())


def kernel(trades: int = 0, duplicates: int = 0, late: int = 0) -> Any:
    return SimpleNamespace(
        counters=SimpleNamespace(trades=trades, duplicates=duplicates, unknown_kinds=0),
        symbols={b"binance:BTC/USDT": SimpleNamespace(live=SimpleNamespace(late=late))},
    )


def partition(number: int, of: Any) -> Any:
    return SimpleNamespace(number=number, kernel=of)


@pytest.fixture
def value(registry: CollectorRegistry) -> Callable[..., float | None]:
    def read(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"alpha_pulse_processor_{name}", labels)

    return read


def test_counts_of_a_partition_that_went_elsewhere_stay(
    metrics: ProcessorMetrics, value: Callable[..., float | None]
) -> None:
    first, second = kernel(), kernel()
    metrics.opened(0, first)
    metrics.opened(1, second)
    first.counters.trades, second.counters.trades = 7, 5
    assert (value("trades_total"), value("partitions")) == (12, 2)
    metrics.closed(0)
    metrics.closed(0)
    assert (value("trades_total"), value("partitions")) == (12, 1)
    second.counters.trades = 6
    assert value("trades_total") == 13


def test_a_partition_that_is_opened_again_counts_on(
    metrics: ProcessorMetrics, value: Callable[..., float | None]
) -> None:
    metrics.opened(0, kernel(trades=4, duplicates=1))
    metrics.opened(0, kernel(trades=2))
    assert (value("trades_total"), value("duplicate_trades_total")) == (6, 1)


def test_late_trades_that_a_state_brought_along_are_not_counted_again(
    metrics: ProcessorMetrics, value: Callable[..., float | None]
) -> None:
    restored = kernel(late=100)
    metrics.opened(0, restored)
    assert value("late_trades_total") == 0
    restored.symbols[b"binance:BTC/USDT"].live.late += 3
    metrics.closed(0)
    assert value("late_trades_total") == 3


def test_a_transaction_counts_its_records_by_topic_and_its_dead_letters_by_reason(
    metrics: ProcessorMetrics, value: Callable[..., float | None]
) -> None:
    trades, letters = RecordsWriter(1000), RecordsWriter(1000)
    for _ in range(3):
        trades.append((b"k", b"{}"))
    letters.append((b"i", encode(LETTER)))
    for _ in range(2):
        outputs = {"market.trades.v1": trades, "market.deadletters.v1": letters}
        metrics.committed(outputs, 1_700_000_000_000, 0.02)
    assert value("published_records_total", topic="market.trades.v1") == 6
    assert value("rejected_records_total", reason=LETTER.reason) == 2
    assert value("commit_seconds_count") == value("delay_seconds_count") == 2
    assert value("commit_seconds_bucket", le="0.025") == 2
    assert value("last_record_time_seconds") == 1_700_000_000
