"""Kafka whose clients all come through a proxy: it advertises the proxy's address, not its own."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alpha_pulse.embedded.data_dir import DataDir
from alpha_pulse.embedded.errors import EmbeddedRuntimeError
from alpha_pulse.embedded.jars import default_cache_dir, fetch_jars, pinned_jars
from alpha_pulse.embedded.kafka import KafkaServer
from alpha_pulse.embedded.ports import HOST, free_port
from tests.faults.link import Link
from tests.processes import children

STARTS_MAX = 5


class LinkedKafka(KafkaServer):
    """The embedded broker with a second listener, which lies behind a link."""

    def __init__(self, directory: Path, jars: list[Path], lock_fd: int) -> None:
        super().__init__(directory, jars, lock_fd)
        self.link = Link(free_port(0, 0, "Kafka's linked listener"))

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path) -> AsyncIterator["LinkedKafka"]:
        """Start it and its link; `bootstrap` leads through the link, `address` past it."""
        jars = fetch_jars(pinned_jars(), default_cache_dir(), lambda _step: None)
        data_dir = DataDir.open(directory, wait_s=0.0, on_wait=lambda: None, free_bytes_min=0)
        kafka = cls(directory, jars, data_dir.lock_fd)
        try:
            async with kafka.link.serve():
                await kafka.start(0)
                try:
                    yield kafka
                finally:
                    kafka.link.heal()
                    await kafka.stop()
        finally:
            data_dir.close()

    @property
    def bootstrap(self) -> str:
        """Where clients begin: the link, which every later connection goes through too."""
        return f"{HOST}:{self.link.port}"

    async def kill(self) -> None:
        """End the broker as `kill -9` does."""
        assert self.child is not None
        await self.child.kill()

    async def restart(self) -> None:
        """Start it again on its old ports, after it was killed or has died.

        As often as a busy machine needs: what does not answer within the runtime's two minutes is
        stopped and started anew, as the supervisor does it.
        """
        for _ in range(STARTS_MAX - 1):
            await self.stop()
            with contextlib.suppress(EmbeddedRuntimeError):
                await self.start(self.port)
                return
        await self.stop()
        await self.start(self.port)

    def freeze(self) -> None:
        """Stop the broker's process; its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.child is not None
        for pid in children(self.child.pid):
            os.kill(pid, number)

    def _prepare(self) -> str:
        cluster_id = super()._prepare()
        settings = self.directory / "server.properties"
        lines = dict(
            line.split("=", 1) for line in settings.read_text().splitlines() if line[:1] not in "#"
        )
        lines["listeners"] += f",LINKED://{HOST}:{self.link.upstream_port}"
        lines["advertised.listeners"] += f",LINKED://{self.bootstrap}"
        lines["listener.security.protocol.map"] += ",LINKED:PLAINTEXT"
        lines["inter.broker.listener.name"] = "PLAINTEXT"
        settings.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return cluster_id
