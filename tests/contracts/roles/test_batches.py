"""What `roles.batches` leans on inside aiokafka 0.14, against a real Kafka: committed reads,
aborted transactions, starts in the middle of a batch, other consumers left as they are; and batches
that are filled past the builder's `append`."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import aiokafka
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer import fetcher
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from alpha_pulse.contracts.config import KafkaConfig
from alpha_pulse.contracts.roles.batches import (
    EncodedBatch,
    RecordBatch,
    batch_consumer,
    encoded_consumer,
    fill_batch,
)
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.processors.wire.records import EncodedRecords
from tests.patience import PATIENCE_S


@pytest.fixture
async def topic(runtime: Runtime, namespace: str) -> AsyncIterator[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=runtime.kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(f"{namespace}.log", 1, 1)])
        yield TopicPartition(f"{namespace}.log", 0)
    finally:
        await admin.close()


async def producer_of(runtime: Runtime, **settings: Any) -> aiokafka.AIOKafkaProducer:
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=runtime.kafka, linger_ms=0, **settings)
    await producer.start()
    return producer


async def send(producer: aiokafka.AIOKafkaProducer, topic: TopicPartition, *values: bytes) -> None:
    """Send the values as one Kafka batch."""
    batch = producer.create_batch()
    for value in values:
        assert batch.append(key=b"k", value=value, timestamp=None) is not None
    batch.close()
    await (await producer.send_batch(batch, topic.topic, partition=0))


async def read_batches(
    runtime: Runtime, topic: TopicPartition, start: int = 0, **settings: Any
) -> list[RecordBatch]:
    found: list[RecordBatch] = await read_with(
        batch_consumer(KafkaConfig(bootstrap=runtime.kafka), "test", **settings), topic, start
    )
    return found


async def read_encoded(
    runtime: Runtime, topic: TopicPartition, start: int = 0
) -> list[EncodedBatch]:
    found: list[EncodedBatch] = await read_with(
        encoded_consumer(KafkaConfig(bootstrap=runtime.kafka), "test"), topic, start
    )
    return found


async def read_with(
    consumer: aiokafka.AIOKafkaConsumer, topic: TopicPartition, start: int
) -> list[Any]:
    consumer.assign([topic])
    await consumer.start()
    try:
        end = (await consumer.end_offsets([topic]))[topic]
        consumer.seek(topic, start)
        found: list[Any] = []
        async with asyncio.timeout(PATIENCE_S):
            while await consumer.position(topic) < end:
                found += (await consumer.getmany(topic, timeout_ms=200)).get(topic, [])
        return found
    finally:
        await consumer.stop()


async def test_a_batch_comes_as_one_object_with_its_offsets_keys_and_values(
    runtime: Runtime, topic: TopicPartition
) -> None:
    producer = await producer_of(runtime, compression_type="zstd")
    try:
        await send(producer, topic, b"a", b"b", b"c")
        await send(producer, topic, b"d")
    finally:
        await producer.stop()
    first, second = await read_batches(runtime, topic)
    assert (list(first.offsets), first.values, first.next_offset) == (
        [0, 1, 2],
        [b"a", b"b", b"c"],
        3,
    )
    assert first.keys == [b"k"] * 3
    assert (list(second.offsets), second.values) == ([3], [b"d"])
    assert first.timestamp_ms > 0


async def test_reading_can_start_in_the_middle_of_a_batch(
    runtime: Runtime, topic: TopicPartition
) -> None:
    producer = await producer_of(runtime)
    try:
        await send(producer, topic, b"a", b"b", b"c")
    finally:
        await producer.stop()
    (only,) = await read_batches(runtime, topic, start=2)
    assert (list(only.offsets), only.values) == ([2], [b"c"])


async def test_aborted_transactions_and_markers_are_not_delivered_but_passed(
    runtime: Runtime, topic: TopicPartition, namespace: str
) -> None:
    producer = await producer_of(runtime, transactional_id=f"{namespace}-tx")
    try:
        for values, is_committed in (([b"a"], True), ([b"x", b"y"], False), ([b"b"], True)):
            await producer.begin_transaction()
            await send(producer, topic, *values)
            await (producer.commit_transaction() if is_committed else producer.abort_transaction())
    finally:
        await producer.stop()
    found = await read_batches(runtime, topic)
    assert [batch.values for batch in found] == [[b"a"], [b"b"]]
    # a, marker, x, y, marker, b: offsets that no reader sees lie between.
    assert [list(batch.offsets) for batch in found] == [[0], [5]]
    everything = await read_batches(runtime, topic, isolation_level="read_uncommitted")
    assert [batch.values for batch in everything] == [[b"a"], [b"x", b"y"], [b"b"]]


async def test_an_open_transaction_is_not_read(
    runtime: Runtime, topic: TopicPartition, namespace: str
) -> None:
    producer = await producer_of(runtime, transactional_id=f"{namespace}-tx")
    try:
        await producer.begin_transaction()
        await send(producer, topic, b"a")
        assert await read_batches(runtime, topic) == []
        await producer.commit_transaction()
        assert [batch.values for batch in await read_batches(runtime, topic)] == [[b"a"]]
    finally:
        await producer.stop()


async def test_other_consumers_of_the_process_get_records(
    runtime: Runtime, topic: TopicPartition
) -> None:
    assert fetcher.PartitionRecords.__module__ == "aiokafka.consumer.fetcher"
    assert fetcher.MemoryRecords is MemoryRecords
    producer = await producer_of(runtime)
    consumer = aiokafka.AIOKafkaConsumer(
        topic.topic, bootstrap_servers=runtime.kafka, auto_offset_reset="earliest"
    )
    try:
        await send(producer, topic, b"a", b"b")
        await consumer.start()
        async with asyncio.timeout(PATIENCE_S):
            records = [await consumer.getone(), await consumer.getone()]
        assert [(record.offset, record.value) for record in records] == [(0, b"a"), (1, b"b")]
    finally:
        await producer.stop()
        await consumer.stop()


def test_the_pinned_version_still_has_the_parts_that_are_replaced() -> None:
    assert aiokafka.__version__.startswith("0.14.")
    # Called with exactly these, under names that are looked up in the module.
    assert list(inspect.signature(fetcher.PartitionRecords).parameters) == [
        "tp",
        "records",
        "aborted_transactions",
        "fetch_offset",
        "key_deserializer",
        "value_deserializer",
        "check_crcs",
        "isolation_level",
    ]
    request = fetcher.Fetcher._proc_fetch_request
    assert {"PartitionRecords", "MemoryRecords"} <= set(request.__code__.co_names)
    assert "MemoryRecords(part_data[-1])" in inspect.getsource(request)
    start = aiokafka.AIOKafkaConsumer.start
    assert "Fetcher" in start.__code__.co_names
    assert (request.__closure__, start.__closure__) == (None, None)
    assert isinstance(fetcher.READ_COMMITTED, int)
    for name in ("_consume_aborted_up_to", "_contains_abort_marker"):
        assert callable(getattr(fetcher.PartitionRecords, name))
    assert {"append", "close", "record_count"} <= set(dir(BatchBuilder))


@pytest.mark.parametrize("count", [0, 1, 5, 1_000])
def test_a_filled_batch_is_what_aiokafka_makes_of_its_records_one_by_one(count: int) -> None:
    records = [(b"key", b"v" * (number % 97)) for number in range(count)]

    def builder() -> BatchBuilder:
        return BatchBuilder(10_000, 0)

    batch, taken = fill_batch(cast(Any, SimpleNamespace(create_batch=builder)), records)
    expected = builder()
    encoded = bytes(batch._build())
    # All have the time of the batch.
    time_ms = DefaultRecordBatch(encoded).first_timestamp if taken else 0
    by_aiokafka = sum(
        expected.append(timestamp=time_ms, key=key, value=value) is not None
        for key, value in records[: taken + 1]
    )
    assert (taken, batch.record_count()) == (by_aiokafka, by_aiokafka)
    assert encoded == bytes(expected._build())
    assert batch.append(timestamp=None, key=b"", value=b"") is None, "it is closed"
    assert (taken < count) == (count == 1_000)


async def test_encoded_batches_hold_the_records_as_they_travel(
    runtime: Runtime, topic: TopicPartition, namespace: str
) -> None:
    for compression in (None, "gzip", "lz4", "snappy", "zstd"):
        producer = await producer_of(runtime, compression_type=compression)
        try:
            await send(producer, topic, b"a" * 200, b"b", b"c" * 300)
        finally:
            await producer.stop()
    transactional = await producer_of(runtime, transactional_id=f"{namespace}-tx")
    try:
        for is_committed in (False, True):
            await transactional.begin_transaction()
            await send(transactional, topic, b"x")
            await (
                transactional.commit_transaction()
                if is_committed
                else transactional.abort_transaction()
            )
    finally:
        await transactional.stop()
    whole = await read_batches(runtime, topic)
    encoded = await read_encoded(runtime, topic)
    assert len(whole) == len(encoded) == 6
    for batch, found in zip(whole, encoded, strict=True):
        records = EncodedRecords.read(found.records, found.count, found.base_offset)
        rows = [records.record(row) for row in range(len(records))]
        assert rows == list(zip(batch.offsets, batch.keys, batch.values, strict=True))
        assert (found.first_offset, found.next_offset) == (batch.offsets[0], batch.next_offset)
        assert found.timestamp_ms == batch.timestamp_ms
    # Reading that begins inside a batch gets all of it, and is told where it begins.
    inside = await read_encoded(runtime, topic, start=4)
    assert (inside[0].base_offset, inside[0].first_offset, inside[0].count) == (3, 4, 3)
