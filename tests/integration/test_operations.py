"""A running pipeline as its operator sees it: commands of compose.yaml, pages, status, doctor."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from alpha_pulse.cli.inspect.pipeline_status import read_status
from alpha_pulse.cli.main import make_app
from alpha_pulse.cli.pipeline.role_processes import role_processes
from alpha_pulse.cli.setup.checks.kafka import check_kafka
from alpha_pulse.cli.setup.doctor import run_checks
from alpha_pulse.contracts.config import Config, TopicsConfig, config_environment, load_config
from alpha_pulse.contracts.roles.metrics import probe
from alpha_pulse.contracts.topics import TOPICS
from alpha_pulse.embedded.ports import free_port
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.setup import set_up
from tests.patience import PATIENCE_S, check_promise

ROOT = Path(__file__).parents[2]
SYMBOLS = ("BTC/USDT", "ETH/USDT")
SERVICES = {"producer": "producer-1", "processor": "processor", "sink": "sink"}
_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


@dataclass(frozen=True)
class Pipeline:
    config: Config
    pages: dict[str, str]  # role -> address
    began_s: float  # Unix time before its market was there


def written_environment(service: dict[str, Any], runtime: Runtime) -> dict[str, str]:
    """The variables of a service in compose.yaml, but for addresses and users (there are none)."""
    written = {
        key: _DEFAULT.sub(r"\1", str(value))
        for key, value in service["environment"].items()
        if not key.endswith("_FILE") and key != "ALPHA_PULSE_CLICKHOUSE_USER"
    }
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    servers = {"ALPHA_PULSE_KAFKA": runtime.kafka, "ALPHA_PULSE_CLICKHOUSE": runtime.clickhouse}
    return {"PATH": path, **written, **servers, "ALPHA_PULSE_METRICS_HOST": "127.0.0.1"}


async def run(
    command: list[str], environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False
    )


@asynccontextmanager
async def running(runtime: Runtime, directory: Path) -> AsyncIterator[Pipeline]:
    """The commands of compose.yaml, as they are written: set-up, roles, health checks, SIGTERM."""
    began_s = time.time()
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    shared = {
        "ALPHA_PULSE_NAMESPACE": f"t{uuid.uuid4().hex[:12]}",
        "ALPHA_PULSE_DATA_DIR": str(directory),
        "ALPHA_PULSE_TOPICS_PARTITIONS": "2",
    }
    init = written_environment(compose["init"], runtime) | shared
    done = await run(compose["init"]["command"], init)
    assert done.returncode == 0, done.stderr
    processes: dict[str, subprocess.Popen[bytes]] = {}
    async with role_processes(directory / "logs") as exchange:
        shared["ALPHA_PULSE_EXCHANGE_URL"] = await exchange.start_exchange(
            ["--synthetic", ",".join(SYMBOLS), "--speed", "1.0", "--port", "0"]
        )
        config, pages = Config(), {}
        try:
            for role, name in SERVICES.items():
                port = free_port(0, 0, role)
                shared[f"ALPHA_PULSE_METRICS_{role.upper()}_PORT"] = str(port)
                pages[role] = f"http://127.0.0.1:{port}"
                environment = written_environment(compose[name], runtime) | shared
                config = load_config(None, environment)
                with (directory / f"{role}.log").open("wb") as log:
                    processes[role] = await asyncio.to_thread(
                        subprocess.Popen, compose[name]["command"], env=environment, stderr=log
                    )
            for role, name in SERVICES.items():
                environment = written_environment(compose[name], runtime) | shared
                await until_healthy(processes[role], compose[name]["healthcheck"], environment)
            yield Pipeline(
                replace(config, producer=replace(config.producer, symbols=SYMBOLS)), pages, began_s
            )
            for role, name in SERVICES.items():
                processes[role].send_signal(signal.SIGTERM)
                grace_s = float(compose[name]["stop_grace_period"].removesuffix("s"))
                began_s = time.monotonic()
                code = await asyncio.to_thread(processes[role].wait, PATIENCE_S)
                assert code == 0, (directory / f"{role}.log").read_text()
                check_promise(time.monotonic() - began_s, grace_s)
        finally:
            for process in processes.values():
                process.kill()
                process.wait()


async def until_healthy(
    process: "subprocess.Popen[bytes]", check: dict[str, Any], environment: dict[str, str]
) -> None:
    kind, *command = check["test"]
    assert kind == "CMD"
    async with asyncio.timeout(PATIENCE_S):
        while (await run(command, environment)).returncode:
            assert process.poll() is None
            await asyncio.sleep(0.5)


@pytest.fixture(scope="module")
def pipeline(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with asyncio.Runner() as runner:
        context = running(runtime, tmp_path_factory.mktemp("operations"))
        yield runner.run(context.__aenter__())
        # What it says of how the roles ended is a failure of this module's last test.
        runner.run(context.__aexit__(None, None, None))


async def test_the_set_up_can_be_repeated(pipeline: Pipeline) -> None:
    await set_up(pipeline.config)


def age_s(pipeline: Pipeline) -> float:
    """Return for how many seconds there can have been trades: nothing is late by more."""
    return time.time() - pipeline.began_s + 60.0  # the market is there before its reader


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


@pytest.mark.parametrize("role", SERVICES)
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
    delay = {"sink": "alpha_pulse_sink_end_to_end_seconds"}.get(
        role, f"alpha_pulse_{role}_delay_seconds"
    )
    async with asyncio.timeout(PATIENCE_S):
        while True:
            counted = await samples(url)
            # A state or a candle may be published, and stored, before the first trade.
            works = counted.get(done) and counted.get(f"{delay}_count")
            if works and (await page(f"{url}/readyz"))[0] == 200:
                break
            await asyncio.sleep(0.1)
    assert counted["alpha_pulse_build_info"] == 1
    delay_s = counted[f"{delay}_sum"] / counted[f"{delay}_count"]
    assert 0 < delay_s < age_s(pipeline)
    check_promise(delay_s, 60)
    assert ("kafka_consumergroup_lag" in counted) == (role != "producer")


async def test_pages_are_not_for_web_pages_of_others(pipeline: Pipeline) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{pipeline.pages['sink']}/metrics") as answer,
        ):
            assert answer.status == 403


async def status_of(config: Config) -> dict[str, Any]:
    status = await read_status(config, config.clickhouse, config.clickhouse.url)
    found: dict[str, Any] = orjson.loads(orjson.dumps(status.as_json()))
    return found


async def test_status_tells_of_each_symbol_and_of_each_group(pipeline: Pipeline) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await status_of(pipeline.config)
            # A state is said once something is known to be complete: at the minute's end.
            rates = [one["trades_per_s"] for one in found["symbols"]]
            if len(rates) == len(SYMBOLS) and min(rates) > 0:
                break
            await asyncio.sleep(0.2)
    assert found["kafka_problem"] == found["clickhouse_problem"] == ""
    assert [one["symbol"] for one in found["symbols"]] == list(SYMBOLS)
    ages_s = [one["trade_age_s"] for one in found["symbols"]]
    assert all(0 <= each < age_s(pipeline) for each in ages_s)
    check_promise(max(ages_s), 60)
    groups = {pipeline.config.named("processors"), pipeline.config.named("sinks")}
    assert found["lag"].keys() == groups
    assert found["lag"][pipeline.config.named("processors")].keys() == {"ingest.events.v1"}


def test_status_is_shown_as_plain_lines_and_as_json(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in config_environment(pipeline.config).items():
        monkeypatch.setenv(name, value)
    lines = CliRunner().invoke(make_app(), ["status"]).stdout.splitlines()
    assert lines[0].startswith("symbol\tstate")
    assert any(line.startswith("binance BTC/USDT\t") for line in lines)
    assert orjson.loads(CliRunner().invoke(make_app(), ["status", "--json"]).stdout)["symbols"]


def test_status_says_what_it_could_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPHA_PULSE_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("ALPHA_PULSE_CLICKHOUSE", "http://someone:canary@127.0.0.1:1")
    result = CliRunner().invoke(make_app(), ["status"])
    assert result.exit_code == 1
    assert "! expected Kafka at 127.0.0.1:1" in result.stdout
    assert "! expected the pipeline's tables, found expected ClickHouse at 127.0.0.1:1" in (
        result.stdout
    )
    assert "canary" not in result.output


async def test_doctor_finds_a_running_pipeline_well(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in config_environment(pipeline.config).items():
        monkeypatch.setenv(name, value)
    checks = {check.name: check for check in await run_checks(None, offline=False)}
    assert [check for check in checks.values() if check.verdict == "failure"] == []
    assert checks["kafka"].found.startswith("1 brokers at 127.0.0.1:")
    assert checks["topics"].found == f"all {len(TOPICS)} are there"
    assert checks["partitions"].found == "2 in every topic"
    assert checks["topic settings"].verdict == "ok"
    assert checks["schema"].verdict == "ok"
    assert checks["exchange"].found.startswith("binance answers")


async def test_doctor_sees_topics_that_are_not_as_configured(pipeline: Pipeline) -> None:
    config = pipeline.config
    other = replace(config, topics=TopicsConfig(partitions=4, retention_scale=0.5))
    checks = {check.name: check for check in await check_kafka(other)}
    assert checks["partitions"].verdict == "warning"
    assert "retention.ms" in checks["topic settings"].found
    empty = {c.name: c for c in await check_kafka(replace(config, namespace="nothing.here"))}
    assert f"{len(TOPICS)} of {len(TOPICS)} are missing" in empty["topics"].found


def test_doctor_ends_with_1_when_something_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHA_PULSE_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("ALPHA_PULSE_CLICKHOUSE", "http://someone:canary@127.0.0.1:1")
    result = CliRunner().invoke(make_app(), ["doctor", "--offline", "--json"])
    assert result.exit_code == 1
    checks = {check["name"]: check for check in map(orjson.loads, result.stdout.splitlines())}
    assert checks["kafka"]["verdict"] == checks["clickhouse"]["verdict"] == "failure"
    assert all(check["next"] for check in checks.values() if check["verdict"] != "ok")
    assert "canary" not in result.output


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["sink", "--now"]])
def test_the_probe_says_how_it_is_asked(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.main(arguments) == 2
    assert "expected one of producer, processor, sink" in capsys.readouterr().out


def test_the_probe_fails_where_nothing_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALPHA_PULSE_METRICS_SINK_PORT", str(free_port(0, 0, "sink")))
    assert probe.main(["sink"]) == 1
    assert "expected an answer of http://127.0.0.1:" in capsys.readouterr().out
