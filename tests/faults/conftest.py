"""A sink in a process of its own, load for it, and a proxy of ClickHouse that fails on demand."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

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
from alpha_pulse.contracts.examples import EXAMPLES
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kafka.publisher import Publisher
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.clickhouse import ClickHouse, PassingFault
from alpha_pulse.sinks.migrate import migrate

# Asked before an insert is passed on and after it was stored; returns None to go on, a response to
# answer instead, or raises to cut the connection.
Hook = Callable[[str], Awaitable[web.Response | None]]

START_S_MAX = 120.0
WAIT_S = 180.0  # without any progress
MEET_S = 600.0
ROWS_PER_S = 10_000
SYMBOLS = [f"S{number}/USDT" for number in range(4)]
TRADE: Any = EXAMPLES[Trade]["binance"]
FULL = os.environ.get("ALPHA_PULSE_FAULTS") == "full"
# How long Kafka waits for a killed member. A broker of somebody else's may allow no less than 6 s.
SESSION_S = 6.0 if FULL or os.environ.get("ALPHA_PULSE_KAFKA") else 4.0


def clickhouse_error(status: int, code: int, text: str) -> web.Response:
    """ClickHouse's own way to say no."""
    return web.Response(
        status=status,
        headers={"X-ClickHouse-Exception-Code": str(code)},
        text=f"Code: {code}. DB::Exception: {text}\n",
    )


class Proxy:
    """Forwards HTTP to ClickHouse; `before` and `after` see every insert into a log table."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.inserts = 0
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.before_progress: Hook | None = None  # sees the inserts into sink_progress

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["Proxy"]:
        """Listen on a free port of loopback."""
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._forward)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            try:
                yield self
            finally:
                await runner.cleanup()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        token = request.query.get("insert_deduplication_token", "")
        is_insert = "market." in token
        if self.before_progress is not None and b"sink_progress" in body[:200]:
            answer = await self.before_progress("")
            if answer is not None:
                return answer
        if is_insert:
            self.inserts += 1
            if self.before is not None:
                answer = await self.before(token)
                if answer is not None:
                    return answer
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-length", "transfer-encoding", "connection")
        }
        async with self._session.request(
            request.method, self.upstream + str(request.rel_url), headers=headers, data=body
        ) as response:
            answer_body = await response.read()
            answer_headers = {
                name: value
                for name, value in response.headers.items()
                if name.lower() not in ("content-length", "transfer-encoding", "connection")
            }
            status = response.status
        if is_insert and self.after is not None:
            answer = await self.after(token)
            if answer is not None:
                return answer
        return web.Response(status=status, headers=answer_headers, body=answer_body)


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
        async with asyncio.timeout(START_S_MAX):
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
def new_proxy() -> Callable[[str], Proxy]:
    return Proxy


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


@pytest.fixture
def refusal() -> Callable[[int, int, str], web.Response]:
    return clickhouse_error


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


@pytest.fixture
async def clickhouse(config: Config) -> AsyncIterator[ClickHouse]:
    connection = await ClickHouse.connect(config.clickhouse)
    await ensure_topics(config)
    await migrate(config, connection)
    try:
        yield connection
    finally:
        await connection.command(f"DROP DATABASE IF EXISTS {config.database}")
        await connection.close()


@pytest.fixture
def load(config: Config) -> Load:
    return Load(config)


@pytest.fixture
def stored(clickhouse: ClickHouse, config: Config) -> Stored:
    return Stored(clickhouse, config.database)
