"""The same as containers of the real servers: set-up, users and their rights. Needs an engine."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from clickhouse_connect import get_client
from clickhouse_connect.driver.exceptions import ClickHouseError

from alpha_pulse.cli.pipeline.stored import connect
from alpha_pulse.cli.setup.checks.kafka import check_kafka
from alpha_pulse.contracts.config import ClickHouseConfig, Config, KafkaConfig, SetupConfig
from alpha_pulse.contracts.errors import StorageError
from alpha_pulse.embedded.ports import free_port
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.migrate import migrate
from alpha_pulse.sinks.setup import set_up

SERVICES = yaml.safe_load((Path(__file__).parents[2] / "compose.yaml").read_text())["services"]
PASSWORD = "for-this-test-only"

pytestmark = pytest.mark.docker


def start(name: str, inner_port: int, environment: dict[str, Any]) -> tuple[Any, int]:
    """A container of the image that compose.yaml names, on a free port of loopback."""
    core = pytest.importorskip("testcontainers.core.container")
    port = free_port(0, 0, name)
    container = core.DockerContainer(SERVICES[name]["image"])
    container.with_bind_ports(inner_port, ("127.0.0.1", port))
    for variable, value in environment.items():
        text = str(value).replace("127.0.0.1:9092", f"127.0.0.1:{port}")
        container.with_env(variable, text.replace("@kafka:", "@localhost:"))
    container.start()
    return container, port


@pytest.fixture(scope="module")
def servers() -> Iterator[Config]:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("needs docker")
    answer = subprocess.run([docker, "version"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"no Docker engine answers: {answer.stderr.strip().splitlines()[-1:]}")
    login = {"CLICKHOUSE_USER": "default", "CLICKHOUSE_PASSWORD": PASSWORD}
    access = {"CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT": 1}
    kafka, kafka_port = start("kafka", 9092, SERVICES["kafka"]["environment"])
    try:
        clickhouse, clickhouse_port = start("clickhouse", 8123, {**login, **access})
        try:
            yield Config(
                kafka=KafkaConfig(bootstrap=f"127.0.0.1:{kafka_port}"),
                clickhouse=ClickHouseConfig(
                    url=f"http://127.0.0.1:{clickhouse_port}", password=PASSWORD
                ),
                setup=SetupConfig(writer_password="w" * 20, reader_password="r" * 20),
            )
        finally:
            clickhouse.stop()
    finally:
        kafka.stop()


def as_user(config: Config, name: str, password: str) -> ClickHouseConfig:
    return replace(config.clickhouse, user=name, password=password)


async def test_set_up_makes_topics_schema_and_users_with_their_rights(servers: Config) -> None:
    await set_up(servers)
    await set_up(servers)
    checks = await check_kafka(servers)
    assert all(check.verdict == "ok" for check in checks), checks
    setup = servers.setup
    writer = as_user(servers, setup.writer_user, setup.writer_password)
    reader = as_user(servers, setup.reader_user, setup.reader_password)
    # A sink starts with the writer's rights alone.
    clickhouse = await ClickHouse.connect(writer)
    try:
        assert await migrate(servers, clickhouse) == []
        assert await clickhouse.rows("SELECT count() FROM system.processes")
    finally:
        await clickhouse.close()
    client = await asyncio.to_thread(connect, reader, servers.database)
    try:
        assert client.query("SELECT count() FROM candles").result_rows == [(0,)]
        for refused in ("INSERT INTO sink_progress VALUES ('a', 0, 1, 1, now())", "DROP TABLE x"):
            with pytest.raises(ClickHouseError):
                client.command(refused)
    finally:
        client.close()
    with pytest.raises((StorageError, ClickHouseError)):
        get_client(
            dsn=servers.clickhouse.url, username=setup.reader_user, password=os.urandom(9).hex()
        )
