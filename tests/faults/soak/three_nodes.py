"""Kafka as three nodes on this machine, replication 3, two in sync: any one of them may die.

What the embedded runtime would need for the same, this adds by hand: ids, a quorum whose addresses
are known before anything starts, one cluster id, and the factors of the inner topics.
"""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from alpha_pulse.contracts.config import TopicsConfig
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.embedded.data_dir import DataDir
from alpha_pulse.embedded.jars import default_cache_dir, fetch_jars, pinned_jars
from alpha_pulse.embedded.kafka import KafkaServer
from alpha_pulse.embedded.ports import HOST, free_port

NODES = 3
TOPICS = TopicsConfig(partitions=4, replication_factor=3, min_insync_replicas=2)


class Node(KafkaServer):
    """One of several brokers, each of them a controller too."""

    def __init__(
        self, number: int, quorum: list[int], cluster_id: str, directory: Path, jars: list[Path],
        lock_fd: int,
    ) -> None:  # fmt: skip
        super().__init__(directory, jars, lock_fd)
        self.number = number
        self._quorum = quorum
        self._cluster_id = cluster_id

    def _prepare(self) -> str:
        cluster_id = super()._prepare()
        self._write()
        return cluster_id

    def _format(self, settings: Path, cluster_id: str) -> None:
        self._write()
        super()._format(settings, self._cluster_id)

    def _write(self) -> None:
        settings = self.directory / "server.properties"
        lines = dict(
            line.split("=", 1) for line in settings.read_text().splitlines() if line[:1] not in "#"
        )
        voters = [f"{n}@{HOST}:{port}" for n, port in enumerate(self._quorum, 1)]
        lines["node.id"] = str(self.number)
        lines["controller.quorum.voters"] = ",".join(voters)
        lines["listeners"] = (
            f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self._quorum[self.number - 1]}"
        )
        for name in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
            lines[f"{name}.replication.factor"] = str(NODES)
        for name in ("transaction.state.log", "share.coordinator.state.topic"):
            lines[f"{name}.min.isr"] = "2"
        lines["default.replication.factor"] = str(NODES)
        lines["min.insync.replicas"] = "2"
        settings.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))


class ThreeNodes:
    """The cluster; `kill` ends the node that leads the first partition of the trades."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self._dead: Node | None = None

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path) -> AsyncIterator["ThreeNodes"]:
        """Start all three; whatever runs at the end is stopped."""
        jars = fetch_jars(pinned_jars(), default_cache_dir(), lambda _step: None)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        cluster_id = cluster_id.replace("-", "_")
        quorum = [free_port(0, 0, "a controller") for _ in range(NODES)]
        data_dirs = [
            DataDir.open(
                directory / str(number), wait_s=0.0, on_wait=lambda: None, free_bytes_min=0
            )
            for number in range(1, NODES + 1)
        ]
        nodes = [
            Node(number, quorum, cluster_id, data_dir.path, jars, data_dir.lock_fd)
            for number, data_dir in enumerate(data_dirs, 1)
        ]
        try:
            # None answers alone: two make a quorum.
            await asyncio.gather(*(node.start(0) for node in nodes))
            yield cls(nodes)
        finally:
            await asyncio.gather(*(node.stop() for node in nodes))
            for data_dir in data_dirs:
                data_dir.close()

    @property
    def bootstrap(self) -> str:
        """Return the addresses of all three."""
        return ",".join(node.address for node in self.nodes)

    async def kill(self, namespace: str) -> int:
        """End the leader of the first partition of `market.trades.v1` as kill -9 does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            topic = (await admin.describe_topics([TRADES.full_name(namespace)]))[0]
        finally:
            await admin.close()
        leader = next(p["leader"] for p in topic["partitions"] if p["partition"] == 0)
        self._dead = self.nodes[leader - 1]
        assert self._dead.child is not None
        await self._dead.child.kill()
        return int(leader)

    async def restart(self) -> None:
        """Start the node that was killed again, on its old ports."""
        assert self._dead is not None
        await self._dead.stop()
        await self._dead.start(self._dead.port)
