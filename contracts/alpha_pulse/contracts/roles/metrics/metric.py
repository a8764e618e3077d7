"""What a metric is: declared once, in the role that counts it; docs and `/metrics` come from it.

Counters and gauges are read from the objects that hold them when somebody asks, so that counting
costs the hot path nothing but the integers that it keeps anyway. Only histograms are called when
something happens, once per batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

# A series of start times beside each histogram, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

# 1 ms to 60 s: from an insert on this machine to a minute's candle.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

Values = Mapping[tuple[str, ...], float]  # label values, in the order of the labels -> value


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: base units in its name (`_seconds`, `_bytes`), `_total` on every counter."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()


BUILD_INFO = Metric(
    "alpha_pulse_build_info",
    "gauge",
    "Always 1; the labels tell role, version and Python.",
    ("role", "version", "python"),
)
READY = Metric(
    "alpha_pulse_ready",
    "gauge",
    "Whether a check of /readyz passes (1) or not (0).",
    ("check",),
)
LOOP_DELAY = Metric(
    "alpha_pulse_event_loop_delay_seconds",
    "gauge",
    "How much later than asked the event loop woke last; above 1 the process is overloaded.",
)
CONSUMERGROUP_LAG = Metric(
    "kafka_consumergroup_lag",
    "gauge",
    "Records of a partition that the group has not settled yet, as far as its reader knows.",
    ("consumergroup", "topic", "partition"),
)
COMMON: tuple[Metric, ...] = (BUILD_INFO, READY, LOOP_DELAY)


class Readings(Collector):
    """Counters and gauges, read when somebody asks for them."""

    def __init__(
        self, metrics: Sequence[Metric], read: Callable[[], Mapping[Metric, Values]]
    ) -> None:
        self._metrics = metrics
        self._read = read

    def describe(self) -> Iterable[Family]:
        """Return nothing: the registry would otherwise read once when this is registered."""
        return ()

    def collect(self) -> Iterable[Family]:
        """Return a family for each metric; one that has no value yet has no samples."""
        found = self._read()
        for metric in self._metrics:
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.meaning, labels=metric.labels)
            for labels, value in found.get(metric, {}).items():
                family.add_metric(labels, value)
            yield family


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """Return the histogram of a metric, in a registry."""
    return Histogram(
        metric.name, metric.meaning, metric.labels, buckets=BUCKETS_S, registry=registry
    )


def metric_table(metrics: Iterable[Metric]) -> str:
    """Return the rows of the table in docs/metrics.md."""
    return "\n".join(
        f"| `{metric.name}` | {metric.kind} | "
        f"{', '.join(f'`{label}`' for label in metric.labels)} | {metric.meaning} |"
        for metric in metrics
    )
