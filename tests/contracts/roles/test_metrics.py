"""Pages of a role: what they say when all is well, when not, and when there is no port."""

import socket
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from alpha_pulse.contracts.config import Config, MetricsConfig
from alpha_pulse.contracts.roles.metrics import server
from alpha_pulse.contracts.roles.metrics.metric import (
    COMMON,
    CONSUMERGROUP_LAG,
    Metric,
    Readings,
    histogram,
    metric_table,
)
from alpha_pulse.contracts.roles.metrics.server import Monitor, lag_problem, monitored
from alpha_pulse.processors.worker.metrics import METRICS as PROCESSOR_METRICS
from alpha_pulse.processors.worker.metrics import ProcessorMetrics
from alpha_pulse.producers.metrics import METRICS as PRODUCER_METRICS
from alpha_pulse.producers.metrics import ProducerMetrics
from alpha_pulse.sinks.metrics import METRICS as SINK_METRICS
from alpha_pulse.sinks.metrics import SinkMetrics

PAGE = Path(__file__).parents[3] / "docs/metrics.md"
ALL: dict[str, tuple[Metric, ...]] = {
    "every role": COMMON,
    "producers": PRODUCER_METRICS,
    "processors": PROCESSOR_METRICS,
    "sinks": SINK_METRICS,
}
ANY_PORT = MetricsConfig()


class Log:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def info(self, event: str, **fields: object) -> None:
        self.events.append(("info", event))

    def warning(self, event: str, **fields: object) -> None:
        self.events.append(("warning", event))


def exposed(registry: CollectorRegistry) -> dict[str, str]:
    """Kind of each of our metrics in the text that /metrics gives."""
    kinds = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if name.startswith(("alpha_pulse_", "kafka_")):
            kinds[name] = family.type
    return kinds


@pytest.mark.parametrize("role", ["producers", "processors", "sinks"])
def test_the_page_shows_exactly_what_is_declared(role: str) -> None:
    monitor = Monitor(role)
    if role == "producers":
        ProducerMetrics(monitor.registry, "binance")
    elif role == "processors":
        ProcessorMetrics(monitor.registry, Config())
    else:
        SinkMetrics(monitor.registry, "sinks")
    declared = {metric.name: metric.kind for metric in (*COMMON, *ALL[role])}
    assert exposed(monitor.registry) == declared


@pytest.mark.parametrize("where", ALL)
def test_every_metric_is_documented_as_it_is_declared(where: str) -> None:
    assert metric_table(ALL[where]) in PAGE.read_text()


def test_names_follow_the_conventions() -> None:
    for metric in (metric for metrics in ALL.values() for metric in metrics):
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric
        assert metric.name.startswith("alpha_pulse_") or metric is CONSUMERGROUP_LAG
        assert "symbol" not in metric.labels
        assert metric.kind != "histogram" or metric.name.endswith("_seconds"), metric


def test_what_is_read_is_the_value_of_that_moment() -> None:
    metric = Metric("alpha_pulse_x_total", "counter", "x", ("exchange",))
    registry = CollectorRegistry()
    values: dict[tuple[str, ...], float] = {("a",): 1.0}
    registry.register(Readings([metric], lambda: {metric: values}))
    assert 'alpha_pulse_x_total{exchange="a"} 1.0' in generate_latest(registry).decode()
    values["a",] = 2.0
    values["b",] = 5.0
    text = generate_latest(registry).decode()
    assert 'alpha_pulse_x_total{exchange="a"} 2.0' in text
    assert 'alpha_pulse_x_total{exchange="b"} 5.0' in text


def test_buckets_reach_from_a_millisecond_to_a_minute() -> None:
    registry = CollectorRegistry()
    histogram(Metric("alpha_pulse_x_seconds", "histogram", "x"), registry).observe(0.003)
    text = generate_latest(registry).decode()
    assert 'le="0.001"} 0.0' in text
    assert 'le="0.005"} 1.0' in text
    assert 'le="60.0"} 1.0' in text


def test_a_role_far_behind_is_not_ready() -> None:
    settings = MetricsConfig(ready_lag_records_max=10)
    assert lag_problem(settings, {"a": 4, "b": 6}) == ""
    assert "11 records behind" in lag_problem(settings, {"a": 5, "b": 6})


async def answers(port: int, path: str, **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"http://127.0.0.1:{port}/{path}") as answer,
    ):
        return answer.status, await answer.text()


async def test_readiness_names_what_is_missing_and_metrics_say_the_same() -> None:
    def broken() -> str:
        raise RuntimeError("no")

    problem = "waiting for Kafka"
    monitor = Monitor("sink")
    monitor.checks |= {"kafka": lambda: problem, "fine": lambda: ""}
    async with monitored(ANY_PORT, monitor, 0, Log()):
        status, text = await answers(monitor.port, "readyz")
        assert status == 503
        assert '"kafka":"waiting for Kafka"' in text
        assert 'alpha_pulse_ready{check="kafka"} 0.0' in (await answers(monitor.port, "metrics"))[1]
        assert (await answers(monitor.port, "healthz"))[0] == 200
        problem = ""
        assert (await answers(monitor.port, "readyz"))[0] == 200
        monitor.checks["broken"] = broken
        status, text = await answers(monitor.port, "readyz")
        assert (status, "RuntimeError: no" in text, '"fine":"ok"' in text) == (503, True, True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "10.0.0.1"}, 403),
        ({"Origin": "https://a.example"}, 403),
    ],
)
async def test_only_programs_on_this_machine_may_read(headers: dict[str, str], status: int) -> None:
    async with monitored(ANY_PORT, Monitor("sink"), 0, Log()) as monitor:
        assert (await answers(monitor.port, "metrics", **headers))[0] == status


async def test_two_workers_take_neighbouring_ports() -> None:
    async with (
        monitored(ANY_PORT, Monitor("a"), 0, Log()) as first,
        monitored(ANY_PORT, Monitor("b"), first.port, Log()) as second,
    ):
        assert first.port < second.port < first.port + server.PORTS_OF_A_ROLE


async def test_without_a_free_port_a_role_works_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PORTS_OF_A_ROLE", 1)
    log = Log()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with monitored(ANY_PORT, Monitor("a"), taken.getsockname()[1], log) as monitor:
            assert monitor.port == 0
    assert log.events == [("warning", "metrics.unserved")]


async def test_pages_can_be_turned_off() -> None:
    log = Log()
    async with monitored(MetricsConfig(enabled=False), Monitor("a"), 0, log) as monitor:
        assert monitor.port == 0
    assert log.events == []
