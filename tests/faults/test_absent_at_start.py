"""Kafka, ClickHouse and the exchange are not there when the roles start: alive, not ready, patient.

A second by default, 60 s with `ALPHA_PULSE_FAULTS=full`. What comes up later is used as it is.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp

from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    MetricsConfig,
    ProducerConfig,
    TopicsConfig,
    config_environment,
)
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.embedded.ports import free_port
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.replay.server import ReplayExchange
from alpha_pulse.replay.synthetic import SyntheticMarket
from alpha_pulse.sinks.clickhouse import ClickHouse
from tests.faults.link import Link

# The short form is what the three need to notice.
ABSENT_S = 60.0 if os.environ.get("ALPHA_PULSE_FAULTS") == "full" else 1.0
START_S_MAX = 60.0
COMES_S_MAX = 90.0
END_S_MAX = 10.0
ROLES = ("producers", "processors", "sinks")


@asynccontextmanager
async def running(
    role: str, config: Config, log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ALPHA_PULSE_")}
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"alpha_pulse.{role}",
            env={**inherited, **config_environment(config)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=file,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def status(port: int, page: str) -> int:
    """Return a page's status, 0 where nothing listens yet."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/{page}") as response,
        ):
            return response.status
    except aiohttp.ClientError:
        return 0


async def test_roles_that_wait_for_kafka_end_when_they_are_told(tmp_path: Path) -> None:
    config = Config(
        data_dir=str(tmp_path),
        kafka=KafkaConfig(bootstrap="127.0.0.1:1"),
        metrics=MetricsConfig(enabled=False),
    )

    async def start_and_end(role: str) -> None:
        log = tmp_path / f"{role}.log"
        async with running(role, config, log) as process:
            async with asyncio.timeout(START_S_MAX):
                while b"kafka.awaited" not in log.read_bytes():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(END_S_MAX):
                assert await process.wait() == 0, log.read_text()[-2000:]

    await asyncio.gather(*(start_and_end(role) for role in ("producers", "processors")))


async def test_roles_wait_for_what_is_absent_and_use_it_when_it_comes(
    runtime: Runtime, namespace: str, tmp_path: Path
) -> None:
    kafka, clickhouse = (
        Link(int(address.rpartition(":")[2])) for address in (runtime.kafka, runtime.clickhouse)
    )
    exchange_port, *ports = (free_port(0, 0, "a test") for _ in range(4))
    async with AsyncExitStack() as stack:
        for link in (kafka, clickhouse):
            await stack.enter_async_context(link.serve())
            link.cut()
        config = Config(
            namespace=namespace,
            data_dir=str(tmp_path),
            kafka=KafkaConfig(bootstrap=f"127.0.0.1:{kafka.port}", request_timeout_ms=5_000),
            clickhouse=ClickHouseConfig(url=f"http://127.0.0.1:{clickhouse.port}"),
            topics=TopicsConfig(partitions=2),
            producer=ProducerConfig(exchange_url=f"http://127.0.0.1:{exchange_port}"),
            metrics=MetricsConfig(
                producer_port=ports[0], processor_port=ports[1], sink_port=ports[2]
            ),
        )
        processes = [
            await stack.enter_async_context(running(role, config, tmp_path / f"{role}.log"))
            for role in ROLES
        ]
        async with asyncio.timeout(START_S_MAX):
            for role in ("producers", "processors"):
                while b"kafka.awaited" not in (tmp_path / f"{role}.log").read_bytes():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        await asyncio.sleep(ABSENT_S)
        assert [process.returncode for process in processes] == [None] * len(ROLES)
        assert 200 not in [await status(port, "readyz") for port in ports]
        kafka.heal()
        await ensure_topics(replace(config, kafka=KafkaConfig(bootstrap=runtime.kafka)))
        clickhouse.heal()
        market = SyntheticMarket("BTC/USDT", trades_per_minute=1_200)
        await stack.enter_async_context(ReplayExchange([market], live=True, port=exchange_port))
        storage = await ClickHouse.connect(ClickHouseConfig(url=runtime.clickhouse))
        stack.push_async_callback(storage.close)
        drop = f"DROP DATABASE IF EXISTS {config.database}"
        stack.push_async_callback(storage.command, drop)
        tables = f"SELECT count() FROM system.tables WHERE database = '{config.database}'"
        async with asyncio.timeout(COMES_S_MAX):
            stored = 0
            while not stored:
                await asyncio.sleep(0.2)
                assert [process.returncode for process in processes] == [None] * len(ROLES)
                if (await storage.rows(f"{tables} AND name = 'latest'"))[0][0]:
                    sql = f"SELECT count() FROM {config.database}.trades_log"
                    stored = (await storage.rows(sql))[0][0]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(END_S_MAX):
            assert [await process.wait() for process in processes] == [0] * len(ROLES)
