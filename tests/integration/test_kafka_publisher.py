"""Topics, publisher and reader of the contracts, on a real Kafka."""

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import Config, KafkaConfig, TopicsConfig
from alpha_pulse.contracts.errors import ConfigError, KafkaError
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.kafka.reader import read
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import INGEST, TOPICS, TRADES
from alpha_pulse.embedded.runtime import Runtime
from tests.patience import PATIENCE_S


@pytest.fixture
def config(runtime: Runtime, namespace: str) -> Config:
    kafka = KafkaConfig(bootstrap=runtime.kafka)
    return Config(namespace=namespace, kafka=kafka, topics=TopicsConfig(partitions=3))


def trades(symbol: str, count: int) -> list[bytes]:
    example = EXAMPLES[Trade]["binance"]
    return [
        encode(msgspec.structs.replace(example, symbol=symbol, trade_id=str(number)))
        for number in range(1, count + 1)
    ]


async def read_values(config: Config, topic: str, count: int) -> dict[int, list[bytes]]:
    consumer = AIOKafkaConsumer(**client_arguments(config.kafka, "test"))
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(3)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        found: dict[int, list[bytes]] = {}
        while sum(map(len, found.values())) < count:
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                found.setdefault(tp.partition, []).extend(record.value for record in records)
        return found
    finally:
        await consumer.stop()


async def count_batches(config: Config, topic: str, records: int) -> int:
    consumer = batch_consumer(config.kafka, "test", group_id=None)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(3)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        batches = read = 0
        while read < records:
            for found in (await consumer.getmany(timeout_ms=200)).values():
                batches += len(found)
                read += sum(len(batch.offsets) for batch in found)
        return batches
    finally:
        await consumer.stop()


async def test_every_topic_is_made_once_also_when_several_start_together(config: Config) -> None:
    await asyncio.gather(*(ensure_topics(config) for _ in range(3)))
    assert await ensure_topics(config) == []
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "test"))
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        assert {topic.full_name(config.namespace) for topic in TOPICS} <= existing
    finally:
        await admin.close()


async def test_topics_with_different_partitions_are_refused(config: Config) -> None:
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "test"))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(INGEST.full_name(config.namespace), 5, 1)])
    finally:
        await admin.close()
    with pytest.raises(KafkaError, match="the same number of partitions in every topic"):
        await ensure_topics(config)


async def test_records_arrive_once_and_in_order_per_key(config: Config) -> None:
    await ensure_topics(config, [INGEST])
    topic = INGEST.full_name(config.namespace)
    symbols = [f"S{number}/USDT" for number in range(12)]
    values = {symbol: trades(symbol, 700) for symbol in symbols}
    publisher = Publisher(config.kafka, "test", batch_bytes_max=20_000, pending_bytes_max=100_000)
    await publisher.start()
    for first in range(0, 700, 50):
        for symbol in symbols:
            key = message_key("binance", symbol)
            await publisher.publish(topic, key, values[symbol][first : first + 50])
            assert publisher.pending_bytes <= 100_000 + 50 * 300
    await publisher.stop()
    found = await read_values(config, topic, 12 * 700)
    assert publisher.acknowledged == 12 * 700
    assert len(found) == 3
    for symbol in symbols:
        of_symbol = [
            value
            for records in found.values()
            for value in records
            if f'"{symbol}"'.encode() in value
        ]
        assert of_symbol == values[symbol]


async def test_what_comes_within_an_interval_goes_as_one_batch(config: Config) -> None:
    await ensure_topics(config, [INGEST])
    topic = INGEST.full_name(config.namespace)
    interval_s = 0.25
    publisher = Publisher(config.kafka, "test", interval_s=interval_s)
    await publisher.start()
    started_s = time.monotonic()
    for value in trades("BTC/USDT", 400):
        await publisher.publish(topic, message_key("binance", "BTC/USDT"), [value])
        await asyncio.sleep(0)
    intervals = int((time.monotonic() - started_s) / interval_s) + 1
    await publisher.stop()
    # One at once, one an interval, one for the flush; without the interval they are dozens.
    assert await count_batches(config, topic, 400) <= intervals + 2


async def test_a_full_batch_and_a_flush_wait_for_no_interval(config: Config) -> None:
    await ensure_topics(config, [INGEST])
    topic = INGEST.full_name(config.namespace)
    publisher = Publisher(config.kafka, "test", batch_bytes_max=20_000, interval_s=3600.0)
    await publisher.start()
    for value in trades("BTC/USDT", 400):
        await publisher.publish(topic, message_key("binance", "BTC/USDT"), [value])
    async with asyncio.timeout(PATIENCE_S):
        await publisher.stop()
    assert publisher.acknowledged == 400


async def test_a_record_too_large_for_kafka_is_an_error_not_a_loss(config: Config) -> None:
    await ensure_topics(config, [INGEST])
    topic = INGEST.full_name(config.namespace)
    publisher = Publisher(config.kafka, "test")
    await publisher.start()
    # zstd would make zeros small enough; noise stays over the broker's 1 MiB.
    await publisher.publish(topic, b"k", [random.Random(1).randbytes(2_000_000)])
    with pytest.raises(KafkaError, match="refused for good"):
        await publisher.flush()
    with pytest.raises(KafkaError, match="refused for good"):
        await publisher.publish(topic, b"k", [b"y"])
    with pytest.raises(KafkaError):
        await publisher.stop()


async def test_the_typed_reader_yields_events(config: Config) -> None:
    await ensure_topics(config, [TRADES])
    publisher = Publisher(config.kafka, "test")
    await publisher.start()
    values = trades("BTC/USDT", 3)
    await publisher.publish(
        TRADES.full_name(config.namespace), message_key("binance", "BTC/USDT"), values
    )
    await publisher.stop()
    ids = []
    async for event in read(TRADES, config):
        assert isinstance(event, Trade)
        ids.append(event.trade_id)
        if len(ids) == 3:
            break
    assert ids == ["1", "2", "3"]


async def test_a_topic_that_is_not_there_is_a_clear_error(config: Config) -> None:
    kafka = replace(config.kafka, request_timeout_ms=1000)
    publisher = Publisher(kafka, "test")
    await publisher.start()
    topic = INGEST.full_name(config.namespace)
    with pytest.raises(KafkaError, match=rf"expected the topic {topic} at .*, found none"):
        await publisher.publish(topic, b"k", [b"1"])
    await publisher.stop()


async def test_kafka_that_is_not_there_is_a_clear_error() -> None:
    kafka = KafkaConfig(bootstrap="127.0.0.1:1", request_timeout_ms=2000)
    with pytest.raises(KafkaError, match=r"expected Kafka at 127\.0\.0\.1:1"):
        await Publisher(kafka, "test").start()
    with pytest.raises(KafkaError, match=r"127\.0\.0\.1:1"):
        await ensure_topics(Config(kafka=kafka))


def test_a_password_in_clear_is_refused() -> None:
    kafka = KafkaConfig(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_username="u"
    )
    with pytest.raises(ConfigError, match="expected TLS under the SASL mechanism PLAIN"):
        client_arguments(kafka, "test")
    with pytest.raises(ConfigError, match="readable PEM files"):
        client_arguments(
            replace(kafka, security_protocol="SSL", tls_ca_file="/nowhere.pem"), "test"
        )


async def test_nothing_is_lost_when_kafka_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with Runtime.start(tmp_path, clickhouse="http://not-needed", kafka_port=0) as runtime:
        config = Config(
            kafka=KafkaConfig(bootstrap=runtime.kafka, request_timeout_ms=2000),
            topics=TopicsConfig(partitions=3),
        )
        await ensure_topics(config, [INGEST])
        publisher = Publisher(config.kafka, "test")
        await publisher.start()
        symbols = [f"S{number}/USDT" for number in range(6)]
        values = {symbol: trades(symbol, 900) for symbol in symbols}
        for part in range(3):
            for symbol in symbols:
                key = message_key("binance", symbol)
                await publisher.publish(INGEST.name, key, values[symbol][part * 300 :][:300])
            if part == 0:
                await runtime.kill("kafka")
        assert publisher.acknowledged < 6 * 900
        await runtime.restart("kafka")
        await publisher.stop()
        assert publisher.acknowledged == 6 * 900
        found = await read_values(config, INGEST.name, 6 * 900)
    everything = [value for records in found.values() for value in records]
    for symbol in symbols:
        once = dict.fromkeys(value for value in everything if f'"{symbol}"'.encode() in value)
        assert list(once) == values[symbol]
