"""A running pipeline as its operator sees it: pages of each role, status, doctor."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from alpha_pulse.cli.role_processes import RoleProcesses, role_processes
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    MetricsConfig,
    ProducerConfig,
    TopicsConfig,
)
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.processors.metrics import METRICS as PROCESSOR_METRICS
from alpha_pulse.producers.metrics import METRICS as PRODUCER_METRICS
from alpha_pulse.sinks.metrics import METRICS as SINK_METRICS

WAIT_S = 60.0
SYMBOLS = ("BTC/USDT", "ETH/USDT")
DECLARED = {"producer": PRODUCER_METRICS, "processor": PROCESSOR_METRICS, "sink": SINK_METRICS}


@dataclass(frozen=True)
class Pipeline:
    config: Config
    pages: dict[str, str]  # role -> address


@asynccontextmanager
async def running(config: Config, logs: Path) -> AsyncIterator[Pipeline]:
    async with role_processes(logs) as roles:
        url = await roles.start_exchange(
            ["--synthetic", ",".join(SYMBOLS), "--speed", "1.0", "--port", "0"]
        )
        config = replace(config, producer=replace(config.producer, exchange_url=url))
        await ensure_topics(config)
        for role in ("sink", "processor", "producer"):
            roles.start(role, role, config)
        yield Pipeline(config, {role: await address(roles, role) for role in DECLARED})


async def address(roles: RoleProcesses, role: str) -> str:
    async with asyncio.timeout(WAIT_S):
        while True:
            for line in roles[role].log_text().splitlines():
                if '"metrics.served"' in line:
                    port = line.split('"port": ')[1].split(",")[0].rstrip("}")
                    return f"http://127.0.0.1:{port}"
            assert roles[role].exit_code is None, roles[role].log_text()
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def pipeline(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    config = Config(
        namespace=f"t{uuid.uuid4().hex[:12]}",
        data_dir=str(tmp_path_factory.mktemp("data")),
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        clickhouse=ClickHouseConfig(url=runtime.clickhouse),
        topics=TopicsConfig(partitions=2),
        producer=ProducerConfig(symbols=SYMBOLS),
        metrics=MetricsConfig(producer_port=0, processor_port=0, sink_port=0),
    )
    with asyncio.Runner() as runner:
        context = running(config, tmp_path_factory.mktemp("logs"))
        try:
            yield runner.run(context.__aenter__())
        finally:
            runner.run(context.__aexit__(None, None, None))


async def page(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def samples(url: str) -> dict[str, float]:
    """Sum of each sample over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families((await page(f"{url}/metrics"))[1]):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


@pytest.mark.parametrize("role", DECLARED)
async def test_a_role_that_works_is_ready_and_counts_its_work(
    pipeline: Pipeline, role: str
) -> None:
    url = pipeline.pages[role]
    assert (await page(f"{url}/healthz"))[0] == 200
    done = {
        "producer": "alpha_pulse_producer_published_records_total",
        "processor": "alpha_pulse_processor_published_records_total",
        "sink": "alpha_pulse_sink_rows_total",
    }[role]
    async with asyncio.timeout(WAIT_S):
        while True:
            if (await samples(url)).get(done) and (await page(f"{url}/readyz"))[0] == 200:
                break
            await asyncio.sleep(0.1)
    counted = await samples(url)
    assert counted["alpha_pulse_build_info"] == 1
    delay = {"sink": "alpha_pulse_sink_end_to_end_seconds"}.get(
        role, f"alpha_pulse_{role}_delay_seconds"
    )
    assert counted[f"{delay}_count"] > 0
    assert 0 < counted[f"{delay}_sum"] / counted[f"{delay}_count"] < 60
    assert ("kafka_consumergroup_lag" in counted) == (role != "producer")


async def test_pages_are_not_for_web_pages_of_others(pipeline: Pipeline) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{pipeline.pages['sink']}/metrics") as answer,
        ):
            assert answer.status == 403
