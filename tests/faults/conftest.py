"""A proxy in front of ClickHouse that fails on demand, and a sink in a process of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from alpha_pulse.contracts.config import Config, config_environment

# Asked before an insert is passed on and after it was stored; returns None to go on, a response to
# answer instead, or raises to cut the connection.
Hook = Callable[[str], Awaitable[web.Response | None]]

START_S_MAX = 120.0


def clickhouse_error(status: int, code: int, text: str) -> web.Response:
    """ClickHouse's own way to say no."""
    return web.Response(
        status=status,
        headers={"X-ClickHouse-Exception-Code": str(code)},
        text=f"Code: {code}. DB::Exception: {text}\n",
    )


class Proxy:
    """Forwards HTTP to ClickHouse; its two hooks see every insert into a log table."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.inserts = 0
        self.before: Hook | None = None
        self.after: Hook | None = None

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
