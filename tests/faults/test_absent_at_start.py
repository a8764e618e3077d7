"""Kafka, ClickHouse and the exchange are not there when the roles start: alive, not ready, patient.

A second and all three by default; 60 s, and each alone too, with `ALPHA_PULSE_FAULTS=full`. What
comes up later is used as it is.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

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
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from tests.faults.link import Link
from tests.patience import FULL, PATIENCE_S

# The short form is what the three need to notice.
ABSENT_S = 60.0 if FULL else 1.0
ROLES = ("producers", "processors", "sinks")
DEPENDENCIES = ("Kafka", "ClickHouse", "exchange")
ABSENT = ("all", *DEPENDENCIES) if FULL else ("all",)
NOT_READY_WITHOUT = {"Kafka": ROLES, "ClickHouse": ("sinks",), "exchange": ("producers",)}


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
            async with asyncio.timeout(PATIENCE_S):
                while b"kafka.awaited" not in log.read_bytes():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                assert await process.wait() == 0, log.read_text()[-2000:]

    await asyncio.gather(*(start_and_end(role) for role in ("producers", "processors")))


class Dependencies:
    """Kafka, ClickHouse and the exchange, each away until it comes."""

    def __init__(self, runtime: Runtime, namespace: str, directory: Path) -> None:
        self._runtime = runtime
        self.clickhouse_url = runtime.clickhouse  # past the link
        self._kafka, self._clickhouse = (
            Link(int(address.rpartition(":")[2])) for address in (runtime.kafka, runtime.clickhouse)
        )
        self._namespace = namespace
        self._directory = directory
        self._exchange_port, *self.ports = (free_port(0, 0, "a test") for _ in range(4))
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(self, stack: AsyncExitStack) -> None:
        """Let nothing be there."""
        self._stack = stack
        for link in (self._kafka, self._clickhouse):
            await stack.enter_async_context(link.serve())
            link.cut()
        self.config = Config(
            namespace=self._namespace,
            data_dir=str(self._directory),
            kafka=KafkaConfig(bootstrap=f"127.0.0.1:{self._kafka.port}", request_timeout_ms=5_000),
            clickhouse=ClickHouseConfig(url=f"http://127.0.0.1:{self._clickhouse.port}"),
            topics=TopicsConfig(partitions=2),
            producer=ProducerConfig(exchange_url=f"http://127.0.0.1:{self._exchange_port}"),
            metrics=MetricsConfig(
                producer_port=self.ports[0],
                processor_port=self.ports[1],
                sink_port=self.ports[2],
            ),
        )

    async def comes(self, name: str) -> None:
        """Let one of them be there from now on."""
        if name == "Kafka":
            self._kafka.heal()
            kafka = KafkaConfig(bootstrap=self._runtime.kafka)
            await ensure_topics(replace(self.config, kafka=kafka))
        elif name == "ClickHouse":
            self._clickhouse.heal()
        else:
            market = SyntheticMarket("BTC/USDT", trades_per_minute=1_200)
            exchange = ReplayExchange([market], live=True, port=self._exchange_port)
            await self._stack.enter_async_context(exchange)

    async def start_roles(self) -> None:
        """Start the three of them."""
        for role in ROLES:
            process = running(role, self.config, self._directory / f"{role}.log")
            self.processes.append(await self._stack.enter_async_context(process))

    def are_missed(self, away: Sequence[str]) -> bool:
        """Return whether the roles have found out that these are not there."""
        log = {role: (self._directory / f"{role}.log").read_bytes() for role in ROLES}
        if "Kafka" in away:
            return all(b"kafka.awaited" in log[role] for role in ("producers", "processors"))
        if "ClickHouse" in away:
            return self._clickhouse.connections >= 2
        return b"exchange.unreachable" in log["producers"]

    def are_alive(self) -> bool:
        """Return whether none of the roles has ended."""
        return all(process.returncode is None for process in self.processes)

    async def ready(self) -> set[str]:
        """Return the roles that say that they are ready."""
        shown = [await status(port, "readyz") for port in self.ports]
        return {role for role, code in zip(ROLES, shown, strict=True) if code == 200}


@pytest.mark.parametrize("absent", ABSENT)
async def test_roles_wait_for_what_is_absent_and_use_it_when_it_comes(
    absent: str, runtime: Runtime, namespace: str, tmp_path: Path
) -> None:
    away = DEPENDENCIES if absent == "all" else (absent,)
    waiting = {role for name in away for role in NOT_READY_WITHOUT[name]}
    async with AsyncExitStack() as stack:
        dependencies = Dependencies(runtime, namespace, tmp_path)
        await dependencies.start(stack)
        for name in set(DEPENDENCIES) - set(away):
            await dependencies.comes(name)
        await dependencies.start_roles()
        async with asyncio.timeout(PATIENCE_S):
            while not dependencies.are_missed(away):
                assert dependencies.are_alive()
                await asyncio.sleep(0.1)
        end_s = asyncio.get_running_loop().time() + ABSENT_S
        while asyncio.get_running_loop().time() < end_s:
            assert dependencies.are_alive()
            assert not await dependencies.ready() & waiting
            await asyncio.sleep(0.5)
        for name in away:
            await dependencies.comes(name)
        await until_stored(dependencies, stack)
        for process in dependencies.processes:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            codes = [await process.wait() for process in dependencies.processes]
            assert codes == [0] * len(ROLES)


async def until_stored(dependencies: Dependencies, stack: AsyncExitStack) -> None:
    """Return once a trade is in ClickHouse; no role may end meanwhile."""
    storage = await ClickHouse.connect(ClickHouseConfig(url=dependencies.clickhouse_url))
    stack.push_async_callback(storage.close)
    database = dependencies.config.database
    stack.push_async_callback(storage.command, f"DROP DATABASE IF EXISTS {database}")
    tables = f"SELECT count() FROM system.tables WHERE database = '{database}'"
    async with asyncio.timeout(PATIENCE_S):
        stored = 0
        while not stored:
            await asyncio.sleep(0.2)
            assert dependencies.are_alive()
            if (await storage.rows(f"{tables} AND name = 'latest'"))[0][0]:
                stored = (await storage.rows(f"SELECT count() FROM {database}.trades_log"))[0][0]
