"""Each insert is announced in Kafka first, so that one that arrives late stores nothing twice.

A sink that was killed, or stood still for too long, may have an insert on its way when another sink
has read the tables. Its rows would be stored again, in batches with other tokens. So the token of a
batch is committed, as the metadata of the group's offset, before the batch is sent: Kafka refuses
the commit of a sink that has lost the partition, and the next owner sends an announced batch again,
the same rows under the same token, of which ClickHouse stores one.
"""

import asyncio
from collections.abc import Collection, Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.errors import KafkaError as AiokafkaError
from aiokafka.structs import OffsetAndMetadata

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import StorageError
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.sinks.clickhouse.client import PassingFault
from alpha_pulse.sinks.lanes.lane import Lane


class PartitionLost(StorageError):
    """Another sink holds the partitions now: nothing more may be stored of them."""


class Announcements:
    """The commits of the sinks' group: the settled offset, for lag displays, and a token."""

    def __init__(self, config: Config, consumer: AIOKafkaConsumer) -> None:
        self._config = config
        self._consumer = consumer
        self._lock = asyncio.Lock()  # of two commits, the one made later must arrive later

    async def write(self, lanes: Iterable[Lane]) -> None:
        """Commit what the lanes have settled and announced.

        Raises: PartitionLost; PassingFault.
        """
        lanes = list(lanes)
        async with self._lock:
            offsets = {
                lane.where: OffsetAndMetadata(lane.settled, lane.announced) for lane in lanes
            }
            try:
                if offsets:
                    await self._consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError) as error:
                raise PartitionLost(
                    f"expected to hold {len(offsets)} partitions of group "
                    f"{self._config.named(self._config.sink.group)}, found {error}"
                ) from error
            except AiokafkaError as error:
                raise PassingFault(
                    f"expected Kafka to commit, found {type(error).__name__}: {error}"
                ) from error

    async def read(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, str]:
        """Return the token last announced for each partition; none where nothing was.

        Raises: aiokafka's errors.
        """
        admin = AIOKafkaAdminClient(**client_arguments(self._config.kafka, "alpha-pulse-sinks"))
        await admin.start()
        try:
            committed = await admin.list_consumer_group_offsets(
                self._config.named(self._config.sink.group), partitions=list(partitions)
            )
        finally:
            await admin.close()
        return {where: found.metadata for where, found in committed.items() if found.metadata}
