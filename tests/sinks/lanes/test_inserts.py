"""Inserts: how many at once, which first, and what they hold."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka import TopicPartition

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.config import SinkConfig
from alpha_pulse.sinks.batching.batch import Batch, Waiting
from alpha_pulse.sinks.batching.resume import KnownOffsets
from alpha_pulse.sinks.clickhouse.tables import table_of
from alpha_pulse.sinks.lanes.announcements import PartitionLost
from alpha_pulse.sinks.lanes.inserts import Inserts
from alpha_pulse.sinks.lanes.lane import Lane
from alpha_pulse.sinks.lanes.offsets import Epoch
from alpha_pulse.sinks.lanes.tasks import Tasks

SETTINGS = SinkConfig(inserts_in_flight_max=2, batch_age_s_max=0.0)


class Announcements:
    """Remembers what was announced; refuses where the partition is lost."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.is_lost = False

    async def write(self, lanes: Iterable[Lane]) -> None:
        if self.is_lost:
            raise PartitionLost("assigned elsewhere")
        self.tokens += [lane.announced for lane in lanes]


class Writer:
    """Holds each batch until it is let go."""

    def __init__(self) -> None:
        self.storing: dict[int, list[int]] = {}
        self.gates: dict[int, asyncio.Event] = {}

    async def store(self, batch: Batch, *_: Any) -> None:
        self.storing[batch.partition] = list(batch.offsets)
        gate = self.gates[batch.partition] = asyncio.Event()
        await gate.wait()


class World:
    """Three partitions with a row each, which came in the order 2, 0, 1."""

    def __init__(self) -> None:
        self.writer, self.announcements, self.tasks = Writer(), Announcements(), Tasks()
        self.lanes: dict[TopicPartition, Lane] = {}
        for age, partition in enumerate((2, 0, 1)):
            waiting = Waiting("t", partition, rows_max=10, bytes_max=1000, age_s_max=0.0)
            where = TopicPartition("t", partition)
            lane = Lane(where, table_of(kinds.TRADE), Epoch(), waiting, KnownOffsets(), 0, 0)
            self.lanes[where] = lane
            self.add(partition, 0, float(age))
        announcements: Any = self.announcements
        writer: Any = self.writer
        self.inserts: Inserts = Inserts(
            SETTINGS, announcements, writer, self.lanes, self.tasks, self.on_end, None
        )

    def on_end(self) -> None:
        self.inserts.start()

    def lane(self, partition: int) -> Lane:
        return self.lanes[TopicPartition("t", partition)]

    def add(self, partition: int, offset: int, now_s: float = 9.0) -> None:
        lane = self.lane(partition)
        lane.waiting.add([offset], [b"{}"], offset + 1, 0, now_s)
        lane.position = offset + 1

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def world() -> World:
    return World()


async def test_those_that_waited_longest_go_first_and_no_more_than_there_is_room_for(
    world: World,
) -> None:
    world.inserts.start()
    await world.settle()
    assert world.writer.storing == {2: [0], 0: [0]}
    assert world.inserts.free == 0
    await world.tasks.end(1.0)


async def test_a_batch_is_made_when_it_can_go_with_all_that_has_come_by_then(world: World) -> None:
    world.inserts.start()
    await world.settle()
    world.add(1, 1)
    world.writer.gates[2].set()
    await world.settle()  # the end of one starts the next, without a poll
    assert world.writer.storing[1] == [0, 1]
    assert world.announcements.tokens == ["t:2:0-0:1", "t:0:0-0:1", "t:1:0-1:1"]
    assert world.lane(2).settled == 1
    await world.tasks.end(1.0)


async def test_nothing_is_sent_of_a_partition_that_kafka_has_given_away(world: World) -> None:
    world.announcements.is_lost = True
    world.inserts.start()
    await world.settle()
    assert world.writer.storing == {}
    assert all(lane.is_lost for lane in world.lanes.values() if lane.insert is None)
    await world.tasks.end(1.0)


async def test_draining_stores_what_waits_and_drops_what_takes_too_long(world: World) -> None:
    lanes = list(world.lanes.values())
    draining = asyncio.create_task(world.inserts.drain(lanes, 30.0))
    for _ in range(3):
        await world.settle()
        for gate in world.writer.gates.values():
            gate.set()
    assert await draining is True
    assert sorted(world.writer.storing) == [0, 1, 2]
    world.add(1, 1)
    assert await world.inserts.drain(lanes, 0.01) is False
    assert world.lane(1).settled == 1  # it is read again
