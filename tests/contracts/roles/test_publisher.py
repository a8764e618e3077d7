"""What the publisher does with keys while Kafka is away; `integration/test_kafka_publisher.py` has
the rest, on a real Kafka."""

import asyncio
from collections.abc import Iterable
from typing import Any

import aiokafka
import pytest
from aiokafka.errors import (
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from alpha_pulse.contracts.config import KafkaConfig
from alpha_pulse.contracts.errors import KafkaError
from alpha_pulse.contracts.roles import publisher as module
from alpha_pulse.contracts.roles.publisher import KEYS_MAX, Publisher
from tests.patience import PATIENCE_S


class FakeKafka:
    """A broker with what was written to it, that can be away."""

    def __init__(self) -> None:
        self.is_away = False
        self.refuses: Exception | None = None
        self.written: dict[int, list[bytes]] = {}
        self.asked_for_partitions = 0

    def check(self) -> None:
        if self.is_away:
            raise KafkaTimeoutError


class FakeProducer:
    """What the publisher uses of aiokafka's producer; a session ends where Kafka was away."""

    def __init__(self, kafka: FakeKafka) -> None:
        self._kafka = kafka
        self.client = self

    async def force_metadata_update(self) -> bool:
        return not self._kafka.is_away

    async def start(self) -> None:
        self._kafka.check()

    async def stop(self) -> None:
        self._kafka.check()

    async def partitions_for(self, topic: str) -> set[int]:
        self._kafka.asked_for_partitions += 1
        if self._kafka.is_away or topic == "absent":
            raise UnknownTopicOrPartitionError  # what aiokafka says of both
        if self._kafka.refuses is not None:
            raise self._kafka.refuses
        return {0, 1, 2}

    async def send_batch(
        self, batch: list[bytes], topic: str, *, partition: int
    ) -> "asyncio.Future[None]":
        self._kafka.check()
        self._kafka.written.setdefault(partition, []).extend(batch)
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged


def fill_batch(producer: FakeProducer, records: Iterable[tuple[bytes, bytes]]) -> Any:
    values = [value for _, value in records]
    return values, len(values)


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    kafka = FakeKafka()
    monkeypatch.setattr(module, "fill_batch", fill_batch)
    monkeypatch.setattr(aiokafka, "AIOKafkaProducer", lambda **_: FakeProducer(kafka))
    monkeypatch.setattr(module, "RETRY_WAIT_S_MIN", 0.0)
    return kafka


class Retries:
    """Lets a test wait until the publisher has tried so often."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = asyncio.Event()

    def __call__(self, error: BaseException) -> None:
        self.count += 1
        self._changed.set()

    async def more(self, count: int) -> None:
        wanted = self.count + count
        while self.count < wanted:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), PATIENCE_S)


async def started(kafka: FakeKafka, retries: Retries, **settings: Any) -> Publisher:
    publisher = Publisher(KafkaConfig(), "test", on_retry=retries, **settings)
    await publisher.start()
    return publisher


def values_of(kafka: FakeKafka) -> list[bytes]:
    return sorted(value for values in kafka.written.values() for value in values)


async def test_a_key_that_is_new_while_kafka_is_away_is_published_when_it_is_back(
    kafka: FakeKafka,
) -> None:
    retries = Retries()
    publisher = await started(kafka, retries)
    await publisher.publish("t", b"old", [b"1"])
    await publisher.flush()
    kafka.is_away = True
    await publisher.publish("t", b"old", [b"2"])
    await retries.more(4)
    assert publisher._producer is None, "its session was given up, and no other one is there yet"
    for number in range(20):  # keys for every partition
        await publisher.publish("t", b"new-%d" % number, [b"new-%02d" % number])
    await retries.more(4)
    assert publisher.acknowledged == 1
    kafka.is_away = False
    await asyncio.wait_for(publisher.stop(), PATIENCE_S)
    assert values_of(kafka) == sorted([b"1", b"2", *(b"new-%02d" % n for n in range(20))])
    assert len(kafka.written) == 3
    assert (publisher.acknowledged, publisher.pending_bytes) == (22, 0)


async def test_new_keys_while_kafka_is_away_are_held_up_by_what_is_pending(
    kafka: FakeKafka,
) -> None:
    retries = Retries()
    publisher = await started(kafka, retries, pending_bytes_max=1_000)
    await publisher.publish("t", b"first", [b"x"])
    await publisher.flush()
    kafka.is_away = True

    async def publish_all() -> None:
        for number in range(50):
            await publisher.publish("t", b"key-%d" % number, [b"v" * 100])

    publishing = asyncio.create_task(publish_all())
    await retries.more(20)
    assert not publishing.done()
    assert publisher.pending_bytes <= 1_000 + 200
    kafka.is_away = False
    await asyncio.wait_for(publishing, PATIENCE_S)
    await asyncio.wait_for(publisher.stop(), PATIENCE_S)
    assert len(values_of(kafka)) == 51


async def test_a_topic_that_is_new_while_kafka_is_away_waits_for_it(kafka: FakeKafka) -> None:
    retries = Retries()
    publisher = await started(kafka, retries)
    kafka.is_away = True
    publishing = asyncio.create_task(publisher.publish("t", b"k", [b"1"]))
    await retries.more(3)
    assert not publishing.done()
    kafka.is_away = False
    await asyncio.wait_for(publishing, PATIENCE_S)
    await asyncio.wait_for(publisher.stop(), PATIENCE_S)
    assert values_of(kafka) == [b"1"]


async def test_a_topic_that_may_not_be_seen_is_refused_for_good(kafka: FakeKafka) -> None:
    publisher = await started(kafka, Retries())
    kafka.refuses = TopicAuthorizationFailedError("t")
    for _ in range(2):
        with pytest.raises(KafkaError, match=r"refused for good: TopicAuthorizationFailedError"):
            await publisher.publish("t", b"k", [b"1"])


async def test_a_topic_that_kafka_does_not_have_is_an_error_once_kafka_answers(
    kafka: FakeKafka,
) -> None:
    retries = Retries()
    publisher = await started(kafka, retries)
    kafka.is_away = True
    publishing = asyncio.create_task(publisher.publish("absent", b"k", [b"1"]))
    await retries.more(3)
    assert not publishing.done()
    kafka.is_away = False
    with pytest.raises(KafkaError, match=r"expected the topic absent at .*, found none"):
        await asyncio.wait_for(publishing, PATIENCE_S)
    await publisher.publish("t", b"k", [b"1"])
    await publisher.stop()
    assert values_of(kafka) == [b"1"]


async def test_keys_are_remembered_up_to_a_limit_and_keep_their_partition(
    kafka: FakeKafka,
) -> None:
    publisher = await started(kafka, Retries())
    partitions: dict[bytes, int] = {}
    most = 0
    for number in range(2 * KEYS_MAX + 10):
        key = b"key-%d" % (number % (KEYS_MAX + 5))
        await publisher.publish("t", key, [])
        found = publisher._partition_of["t", key]
        assert partitions.setdefault(key, found) == found
        most = max(most, len(publisher._partition_of))
    assert most == KEYS_MAX
    assert kafka.asked_for_partitions == 1
    await publisher.stop()
