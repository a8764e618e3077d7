"""The offset store: what the tables say of each Kafka partition, and the rows that settle it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.sinks.batching.resume import KnownOffsets, Range
from alpha_pulse.sinks.clickhouse.client import ClickHouse, PassingFault
from alpha_pulse.sinks.clickhouse.tables import Table

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Epoch:
    """Which life of a topic is current, and how often rows of it were deleted by hand."""

    number: int = 1
    generation: int = 1

    def name_of(self, topic: str) -> str:
        """Return the topic's name in `k_topic`: later epochs have their number behind it."""
        return topic if self.number == 1 else f"{topic}#{self.number}"


@dataclass(frozen=True, slots=True)
class Stored:
    """What the tables hold of a partition. settled_before: None without a progress row."""

    settled_before: int | None
    known: KnownOffsets


class OffsetStore:
    """Reads and writes positions in the database of the sinks."""

    def __init__(self, clickhouse: ClickHouse, database: str) -> None:
        self._clickhouse = clickhouse
        self._database = database

    async def epochs(self, topics: Iterable[str]) -> dict[str, Epoch]:
        """Return the current epoch of each topic."""
        rows = await self._clickhouse.rows(
            "SELECT topic, max((epoch, generation)) FROM "
            f"{self._database}.topic_epochs GROUP BY topic"
        )
        found = {topic: Epoch(*current) for topic, current in rows}
        return {topic: found.get(topic, Epoch()) for topic in topics}

    async def stored(
        self, table: Table, name: str, generation: int, partitions: Iterable[int]
    ) -> dict[int, Stored]:
        """Return what is stored of a topic's partitions. name: the topic with its epoch.

        Raises: PassingFault while an insert of an earlier sink is still running.
        """
        partitions = sorted(partitions)
        for partition in partitions:
            await self._check_nothing_in_flight(name, partition)
        settled = await self._settled(name, generation)
        maxima = await self._by_partition(
            f"SELECT k_partition, max(k_offset) FROM {self._database}.{table.name} "
            "WHERE k_topic = {name:String} GROUP BY k_partition",
            {"name": name},
        )
        skipped = await self._skipped(name)
        stored = {}
        for partition in partitions:
            since = settled.get(partition)
            ranges = [r for r in skipped.get(partition, []) if r[1] >= (since or 0)]
            if maxima.get(partition, -1) >= (since or 0):
                ranges += await self._ranges(table, name, partition, since or 0)
            stored[partition] = Stored(since, KnownOffsets(ranges))
        return stored

    async def save_progress(
        self, rows: Iterable[tuple[str, int, int, int]], settings: dict[str, Any] | None = None
    ) -> None:
        """Record (name, partition, generation, settled_before) of partitions; one insert."""
        lines = [
            json.dumps(
                {"k_topic": name, "k_partition": p, "generation": g, "settled_before": settled}
            )
            for name, p, g, settled in rows
        ]
        if lines:
            await self._clickhouse.insert(
                f"{self._database}.sink_progress",
                ("k_topic", "k_partition", "generation", "settled_before"),
                "\n".join(lines).encode(),
                settings or {},
            )

    async def save_skipped(self, name: str, partition: int, offsets: Range, reason: str) -> None:
        """Record offsets that are in no table. reason: `refused` or `retention`."""
        row = {
            "k_topic": name,
            "k_partition": partition,
            "first_offset": offsets[0],
            "last_offset": offsets[1],
            "reason": reason,
        }
        await self._clickhouse.insert(
            f"{self._database}.skipped_offsets", list(row), json.dumps(row).encode(), {}
        )

    async def begin_epoch(self, topic: str, reason: str = "the topic was recreated") -> Epoch:
        """Start a new epoch: reading begins at the topic's start, what is stored stays.

        To be called while no sink runs.
        """
        current = (await self.epochs([topic]))[topic]
        return await self._save_epoch(topic, Epoch(current.number + 1, 1), reason)

    async def raise_generation(self, topic: str, reason: str = "rows were deleted") -> Epoch:
        """Make the sinks store again, from Kafka, what was deleted from a table by hand.

        To be called after the delete, while no sink runs.
        """
        current = (await self.epochs([topic]))[topic]
        return await self._save_epoch(topic, Epoch(current.number, current.generation + 1), reason)

    async def _save_epoch(self, topic: str, epoch: Epoch, reason: str) -> Epoch:
        row = {
            "topic": topic,
            "epoch": epoch.number,
            "generation": epoch.generation,
            "reason": reason,
        }
        await self._clickhouse.insert(
            f"{self._database}.topic_epochs", list(row), json.dumps(row).encode(), {}
        )
        return epoch

    async def _check_nothing_in_flight(self, name: str, partition: int) -> None:
        # A sink that was killed may have left an insert behind that the server still works on: what
        # the table holds is known only when it has ended.
        rows = await self._clickhouse.rows(
            "SELECT count() FROM system.processes WHERE startsWith("
            "Settings['insert_deduplication_token'], {token:String})",
            {"token": f"{name}:{partition}:"},
        )
        if rows[0][0]:
            raise PassingFault(
                f"expected no insert of {name} {partition} to be running, found {rows[0][0]} of "
                "an earlier sink; it is waited for"
            )

    async def _settled(self, name: str, generation: int) -> dict[int, int]:
        return await self._by_partition(
            "SELECT k_partition, argMax(settled_before, (updated_at, settled_before)) "
            f"FROM {self._database}.sink_progress "
            "WHERE k_topic = {name:String} AND generation = {generation:UInt32} "
            "GROUP BY k_partition",
            {"name": name, "generation": generation},
        )

    async def _by_partition(self, sql: str, parameters: dict[str, Any]) -> dict[int, int]:
        return {row[0]: row[1] for row in await self._clickhouse.rows(sql, parameters)}

    async def _skipped(self, name: str) -> dict[int, list[Range]]:
        rows = await self._clickhouse.rows(
            "SELECT DISTINCT k_partition, first_offset, last_offset "
            f"FROM {self._database}.skipped_offsets WHERE k_topic = {{name:String}}",
            {"name": name},
        )
        skipped: dict[int, list[Range]] = {}
        for partition, first, last in rows:
            skipped.setdefault(partition, []).append((first, last))
        return skipped

    async def _ranges(self, table: Table, name: str, partition: int, since: int) -> list[Range]:
        # Runs of consecutive offsets: offset minus rank is the same for all of a run.
        rows = await self._clickhouse.rows(
            "SELECT min(k_offset), max(k_offset) FROM ("
            "SELECT k_offset, k_offset - toInt64(row_number() OVER (ORDER BY k_offset)) AS run "
            f"FROM (SELECT DISTINCT k_offset FROM {self._database}.{table.name} "
            "WHERE k_topic = {name:String} AND k_partition = {partition:Int32} "
            "AND k_offset >= {since:Int64})) GROUP BY run ORDER BY 1",
            {"name": name, "partition": partition, "since": since},
        )
        return [(first, last) for first, last in rows]


def check_topic(topic: str, known: Iterable[str]) -> str:
    """Return the topic's full name, or raise ConfigError with those that sinks store."""
    names = sorted(known)
    if topic not in names:
        raise ConfigError(f"expected a stored topic, one of {' '.join(names)}, found {topic!r}")
    return topic
