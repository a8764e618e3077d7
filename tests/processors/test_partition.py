"""One partition's transactions, and what aiokafka's producer says when they fail."""

import asyncio
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import KafkaConnectionError, ProducerFenced

from alpha_pulse.contracts.config import Config
from alpha_pulse.processors.worker.partition import Partition


@pytest.fixture
async def partition() -> Partition:
    """A partition with something to commit; its producer has no Kafka, but may begin."""
    partition = Partition(Config(namespace="n"), 0)
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers="127.0.0.1:1", transactional_id="t", linger_ms=0
    )
    producer._closed = True  # never started: nothing to stop
    producer._txn_manager.set_pid_and_epoch(1, 0)
    partition._producer = producer
    partition.kernel.position = 1
    return partition


def fence(partition: Partition, error: BaseException) -> None:
    """End the background sender as the answer of a broker does."""

    async def sender_routine() -> None:
        raise error

    producer = partition._producer
    assert producer is not None
    task = producer._sender._sender_task = asyncio.ensure_future(sender_routine())
    task.add_done_callback(producer._sender._fail_all)


async def test_fencing_that_the_sender_sees_first_is_fencing(partition: Partition) -> None:
    producer = partition._producer
    assert producer is not None

    async def metadata(topic: str) -> None:
        fence(partition, ProducerFenced())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    producer.client._wait_on_metadata = metadata
    producer._partition = lambda *arguments: 0
    with pytest.raises(ProducerFenced) as raised:
        await partition.begin_commit()
    # What aiokafka said by itself.
    assert isinstance(raised.value.__cause__, aiokafka.errors.IllegalOperation)
    assert partition.committed == 0


async def test_fencing_before_the_transaction_begins_is_fencing(partition: Partition) -> None:
    producer = partition._producer
    assert producer is not None
    producer._txn_manager.begin_transaction()
    fence(partition, ProducerFenced())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(ProducerFenced):
        await partition.begin_commit()


async def test_any_other_error_is_what_it_is(partition: Partition) -> None:
    producer: Any = partition._producer

    async def metadata(topic: str) -> None:
        raise KafkaConnectionError("away")

    producer.client._wait_on_metadata = metadata
    with pytest.raises(KafkaConnectionError):
        await partition.begin_commit()
