"""Where a sink goes on in a partition while another one goes on storing it. No servers."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.config import SinkConfig
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.sinks.batching.resume import KnownOffsets, TopicRecreated
from alpha_pulse.sinks.clickhouse.tables import table_of
from alpha_pulse.sinks.lanes.lane import LaneOpener
from alpha_pulse.sinks.lanes.offsets import Epoch, Stored

WHERE = TopicPartition(TRADES.name, 0)


class Topic:
    """A partition that grows, as Kafka and as the tables of another sink that keeps up with it."""

    def __init__(self, end: int, *, grows: int) -> None:
        self.end = end
        self._grows = grows

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> Any:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> Any:
        return dict.fromkeys(partitions, self.end)

    async def epochs(self, topics: set[str]) -> Any:
        return dict.fromkeys(topics, Epoch())

    async def stored(self, *asked: Any) -> Any:
        # This sink stands still here, and the other one does not.
        self.end += self._grows
        return {0: Stored(self.end, KnownOffsets())}


class RecreatedTopic(Topic):
    """Begins anew: Kafka has less than the tables."""

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> Any:
        return dict.fromkeys(partitions, 3)


def opener_of(topic: Any) -> LaneOpener:
    return LaneOpener(topic, topic, {TRADES.name: table_of(kinds.TRADE)}, SinkConfig())


async def test_what_another_sink_stored_meanwhile_is_no_topic_made_anew() -> None:
    (lane,) = await opener_of(Topic(19_500, grows=16_500)).open([WHERE], {})
    assert lane.position == lane.settled == 36_000


async def test_a_topic_that_ends_before_what_is_stored_was_made_anew() -> None:
    with pytest.raises(TopicRecreated, match=r"at least offset 19500.*its end at 3"):
        await opener_of(RecreatedTopic(19_500, grows=0)).open([WHERE], {})
