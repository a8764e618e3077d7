"""Kafka and ClickHouse for one run on this machine: started, watched and stopped together."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from alpha_pulse.embedded.child import Child
from alpha_pulse.embedded.clickhouse import ClickHouseServer
from alpha_pulse.embedded.data_dir import DataDir
from alpha_pulse.embedded.errors import ChildDiedError
from alpha_pulse.embedded.front.users import Login, without_login
from alpha_pulse.embedded.jars import default_cache_dir, fetch_jars, pinned_jars
from alpha_pulse.embedded.kafka import KafkaServer
from alpha_pulse.embedded.progress import OnProgress, StartProgress

LOCK_WAIT_S = 20.0


class Runtime:
    """A running Kafka and ClickHouse, ours or the ones that were given.

    kafka: bootstrap servers, `127.0.0.1:PORT`.
    clickhouse: base URL, `http://127.0.0.1:PORT`, with user and password where they are asked for.
    """

    def __init__(self, data_dir: Path, kafka: str, clickhouse: str) -> None:
        self.data_dir = data_dir
        self.kafka = kafka
        self.clickhouse = clickhouse
        self._kafka_server: KafkaServer | None = None
        self._clickhouse_server: ClickHouseServer | None = None
        self._logins: Sequence[Login] = ()
        self._users_file: Path | None = None

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        data_dir: Path,
        *,
        on_progress: OnProgress | None = None,
        kafka: str | None = None,
        clickhouse: str | None = None,
        kafka_port: int | None = None,
        clickhouse_port: int | None = None,
        clickhouse_logins: Sequence[Login] = (),
        clickhouse_users_file: Path | None = None,
        cache_dir: Path | None = None,
    ) -> AsyncIterator["Runtime"]:
        """Start what is not given, and stop it at the end.

        data_dir: everything that the servers keep; one runtime at a time.
        on_progress: told of each step; downloads report from threads, one call at a time.
        kafka, clickhouse: servers to use instead of own ones.
        kafka_port, clickhouse_port: None for the usual port (19092, 8123) or a free one where it is
        taken; 0 for a free one.
        clickhouse_logins: users of the own ClickHouse; without any, everybody on this machine is an
        administrator. The first administrator's name and password stand in `clickhouse`.
        clickhouse_users_file: the same from a file (`front/users.py`), where the caller knows the
        passwords; `clickhouse` carries none then.
        cache_dir: where the jars are kept between runs.
        Raises: EmbeddedRuntimeError, one line that says what to do.
        """
        report = on_progress or (lambda _step: None)
        runtime = cls(data_dir, kafka or "", clickhouse or "")
        runtime._logins = clickhouse_logins
        runtime._users_file = clickhouse_users_file
        if kafka and clickhouse:
            yield runtime
            return
        directory = await asyncio.to_thread(
            lambda: DataDir.open(
                data_dir,
                wait_s=LOCK_WAIT_S,
                on_wait=lambda: report(
                    StartProgress(stage="wait", message=f"waiting for {data_dir} to be free")
                ),
            )
        )
        try:
            try:
                await runtime._start_servers(
                    directory, report, kafka_port, clickhouse_port, cache_dir or default_cache_dir()
                )
                yield runtime
            finally:
                await runtime._stop_servers()
        finally:
            directory.close()

    @property
    def owns_kafka(self) -> bool:
        """Whether Kafka is our own, not one that was given."""
        return self._kafka_server is not None

    async def wait_dead(self) -> ChildDiedError:
        """Return once one of our own servers has ended by itself: which, how, its last lines."""
        return (await self.wait_dead_server())[1]

    async def wait_dead_server(self) -> tuple[str, ChildDiedError]:
        """Return what `wait_dead` does, and the name that `restart` takes."""
        while True:
            for name, child in self._children().items():
                if child.exit_code is not None:
                    return name, child.death()
            await asyncio.sleep(0.2)

    async def kill(self, name: str) -> None:
        """End `kafka` or `clickhouse` as `kill -9` does; for tests of faults."""
        child = self._server(name).child
        assert child is not None
        await child.kill()

    async def restart(self, name: str) -> None:
        """Start `kafka` or `clickhouse` again on its old port, after it was killed or has died."""
        server = self._server(name)
        await server.stop()
        await server.start(server.port)

    async def _start_servers(
        self,
        directory: DataDir,
        report: OnProgress,
        kafka_port: int | None,
        clickhouse_port: int | None,
        cache_dir: Path,
    ) -> None:
        started = time.perf_counter()
        starts = []
        if not self.clickhouse:
            starts.append(self._start_clickhouse(directory, clickhouse_port))
        if not self.kafka:
            starts.append(self._start_kafka(directory, report, kafka_port, cache_dir))
        tasks = [asyncio.ensure_future(start) for start in starts]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        took_s = time.perf_counter() - started
        clickhouse = without_login(self.clickhouse)
        report(
            StartProgress(
                stage="ready",
                message=f"Kafka {self.kafka} and ClickHouse {clickhouse} are up ({took_s:.1f} s)",
            )
        )

    async def _start_clickhouse(self, directory: DataDir, port: int | None) -> None:
        self._clickhouse_server = ClickHouseServer(
            directory.path / "clickhouse", directory.lock_fd, self._logins, self._users_file
        )
        await self._clickhouse_server.start(port)
        self.clickhouse = self._clickhouse_server.address

    async def _start_kafka(
        self, directory: DataDir, report: OnProgress, port: int | None, cache_dir: Path
    ) -> None:
        jars = await asyncio.to_thread(fetch_jars, pinned_jars(), cache_dir, report)
        report(StartProgress(stage="start", message="starting Kafka and ClickHouse"))
        self._kafka_server = KafkaServer(directory.path / "kafka", jars, directory.lock_fd)
        await self._kafka_server.start(port)
        self.kafka = self._kafka_server.address

    async def _stop_servers(self) -> None:
        servers = [s for s in (self._kafka_server, self._clickhouse_server) if s is not None]
        # Finished even when the caller is being cancelled: no server is left behind.
        await asyncio.shield(asyncio.gather(*(server.stop() for server in servers)))

    def _children(self) -> dict[str, Child]:
        servers = {"kafka": self._kafka_server, "clickhouse": self._clickhouse_server}
        return {
            name: server.child
            for name, server in servers.items()
            if server is not None and server.child is not None
        }

    def _server(self, name: str) -> KafkaServer | ClickHouseServer:
        server = {"kafka": self._kafka_server, "clickhouse": self._clickhouse_server}[name]
        if server is None:
            raise ValueError(f"expected {name} to be a server of this runtime, found a given one")
        return server
