"""A sink in a process of its own, load for it, and what is left of a test that failed."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    SinkConfig,
    TopicsConfig,
    config_environment,
)
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.clickhouse.client import ClickHouse, PassingFault
from alpha_pulse.sinks.clickhouse.migrate import migrate
from tests.faults.clickhouse_proxy import Proxy
from tests.patience import FULL, PATIENCE_S

WAIT_S = PATIENCE_S  # without any progress
MEET_S = 600.0
ROWS_PER_S = 10_000
SYMBOLS = [f"S{number}/USDT" for number in range(4)]
TRADE: Any = EXAMPLES[Trade]["binance"]
FAILED = pytest.StashKey[bool]()
# How long Kafka waits for a killed member. A broker of somebody else's may allow no less than 6 s.
SESSION_S = 6.0 if FULL or os.environ.get("ALPHA_PULSE_KAFKA") else 4.0


class SinkProcess:
    """`python -m alpha_pulse.sinks`, started and killed by a test."""

    def __init__(self, config: Config, log_path: Path) -> None:
        self.log_path = log_path
        # A short form such as ALPHA_PULSE_CLICKHOUSE would stand above what the config says.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ALPHA_PULSE_")}
        self._environment = {**inherited, **config_environment(config)}
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; its log lines are added to `log_path`."""
        self.log_path.touch()
        self._log_start = self.log_path.stat().st_size
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "alpha_pulse.sinks", env=self._environment, stderr=log
            )

    async def resumed(self) -> None:
        """Return once it has partitions and knows where to go on."""
        started = self._log_start
        async with asyncio.timeout(PATIENCE_S):
            while b"partitions.resumed" not in self.log_path.read_bytes()[started:]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def meets(self, event: asyncio.Event) -> None:
        """Return once the event has happened; raise when the sink has ended and it can't."""
        assert self.process is not None
        ended = asyncio.create_task(self.process.wait())
        happened = asyncio.create_task(event.wait())
        try:
            async with asyncio.timeout(MEET_S):
                await asyncio.wait([ended, happened], return_when=asyncio.FIRST_COMPLETED)
            if not event.is_set():
                raise AssertionError(f"the sink ended with {ended.result()}: {self.log_path}")
        finally:
            ended.cancel()
            happened.cancel()

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


@pytest.fixture
async def proxy(config: Config) -> AsyncIterator[Proxy]:
    async with Proxy(config.clickhouse.url).serve() as proxy:
        yield proxy


@pytest.fixture
def through(config: Config, proxy: Proxy) -> Config:
    """What a sink is given that reaches ClickHouse through the proxy."""
    return replace(config, clickhouse=replace(config.clickhouse, url=proxy.url))


@pytest.fixture
async def new_sink(tmp_path: Path) -> AsyncIterator[Callable[[Config], SinkProcess]]:
    started: list[SinkProcess] = []

    def make(config: Config) -> SinkProcess:
        started.append(SinkProcess(config, tmp_path / f"sink-{len(started)}.log"))
        return started[-1]

    yield make
    for sink in started:
        if sink.process is not None:
            await sink.kill()


class Load:
    """Publishes trades at a steady rate and remembers how many."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.sent = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Publish while the block runs."""
        publisher = Publisher(self._config.kafka, "load")
        await publisher.start()
        task = asyncio.create_task(self._publish(publisher))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await publisher.stop()

    async def _publish(self, publisher: Publisher) -> None:
        topic, rows, started_s = TRADES.full_name(self._config.namespace), 500, time.monotonic()
        while True:
            symbol = SYMBOLS[self.sent // rows % len(SYMBOLS)]
            values = [
                encode(msgspec.structs.replace(TRADE, symbol=symbol, trade_id=str(self.sent + n)))
                for n in range(rows)
            ]
            await publisher.publish(topic, message_key(TRADE.exchange, symbol), values)
            self.sent += rows
            await asyncio.sleep(max(0.0, started_s + self.sent / ROWS_PER_S - time.monotonic()))


class Stored:
    """What a run's trades_log holds."""

    def __init__(self, clickhouse: ClickHouse, database: str) -> None:
        self.clickhouse = clickhouse
        self._table = f"{database}.trades_log"

    async def figures(self) -> tuple[int, int, int]:
        """Return rows, distinct positions, distinct identities."""
        rows = await self._asked(
            "SELECT count(), uniqExact(k_topic, k_partition, k_offset), "
            f"uniqExact(exchange, symbol, trade_id) FROM {self._table}"
        )
        stored, positions, identities = rows[0]
        return stored, positions, identities

    async def rows(self) -> int:
        """Return how many rows there are: what the engine knows without looking into them."""
        return int((await self._asked(f"SELECT count() FROM {self._table}"))[0][0])

    async def grows(self) -> None:
        """Return once there are more rows than now."""
        before, began_s = await self.rows(), time.monotonic()
        while await self.rows() <= before:
            if time.monotonic() - began_s > WAIT_S:
                raise TimeoutError(
                    f"expected more than {before} rows, found none in {WAIT_S:.0f} s"
                )
            await asyncio.sleep(0.1)

    async def reaches(self, least: int) -> None:
        """Return once so many trades are stored; raise when their number stands still."""
        seen, moved_s = -1, time.monotonic()
        while True:
            rows = await self.rows()
            if rows >= least and (await self.figures())[2] >= least:
                return
            if rows > seen:
                seen, moved_s = rows, time.monotonic()
            if time.monotonic() - moved_s > WAIT_S:
                raise TimeoutError(f"expected {least} trades, found {rows} rows for {WAIT_S:.0f} s")
            await asyncio.sleep(0.1)

    async def completed_by(self, sink: SinkProcess, load: Load) -> None:
        """Start a sink and end it once all that was sent is stored: each trade once."""
        await sink.start()
        try:
            await sink.resumed()
            await self.reaches(load.sent)
        finally:
            assert await sink.terminate() == 0
        assert await self.figures() == (load.sent, load.sent, load.sent)

    async def _asked(self, sql: str) -> list[Sequence[Any]]:
        # A busy machine answers late; that is no finding.
        end_s = time.monotonic() + WAIT_S
        while True:
            try:
                return await self.clickhouse.rows(sql)
            except PassingFault:
                if time.monotonic() > end_s:
                    raise
                await asyncio.sleep(0.5)


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={chosen}")
    return chosen


@pytest.fixture
def sink_settings() -> SinkConfig:
    return SinkConfig(
        batch_age_s_max=0.3,
        progress_interval_s=1.0,
        retry_wait_s_max=0.5,
        session_timeout_s=SESSION_S,
    )


@pytest.fixture
def config(runtime: Runtime, namespace: str, sink_settings: SinkConfig) -> Config:
    return Config(
        namespace=namespace,
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        clickhouse=ClickHouseConfig(url=runtime.clickhouse, request_timeout_s=20.0),
        topics=TopicsConfig(partitions=4),
        sink=sink_settings,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: "pytest.CallInfo[None]"
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the fixtures know that a test failed: what it leaves is evidence."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture
async def clickhouse(
    config: Config, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ClickHouse]:
    connection = await ClickHouse.connect(config.clickhouse)
    await ensure_topics(config)
    await migrate(config, connection)
    try:
        yield connection
    finally:
        if request.node.stash.get(FAILED, False):
            print(
                f"left below {tmp_path_factory.getbasetemp()}: database {config.database}, "
                f"topics {config.namespace}.*"
            )
        else:
            await connection.command(f"DROP DATABASE IF EXISTS {config.database}")
        await connection.close()


@pytest.fixture
def load(config: Config) -> Load:
    return Load(config)


@pytest.fixture
def stored(clickhouse: ClickHouse, config: Config) -> Stored:
    return Stored(clickhouse, config.database)
