"""The sink on a real Kafka and the real engine: everything stored once, whatever happens."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from alpha_pulse.contracts.codec import EventDecoder, encode
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    SinkConfig,
    TopicsConfig,
)
from alpha_pulse.contracts.events import DeadLetter, Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import CANDLES, DEAD_LETTERS, STORED_TOPICS, TRADES, Topic
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.batching.resume import TopicRecreated
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.tables import stored_tables
from alpha_pulse.sinks.lanes.consumer import Sink
from alpha_pulse.sinks.lanes.offsets import OffsetStore
from tests.patience import PATIENCE_S

TRADE = EXAMPLES[Trade]["binance"]


@pytest.fixture
def config(runtime: Runtime, namespace: str) -> Config:
    return Config(
        namespace=namespace,
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        clickhouse=ClickHouseConfig(url=runtime.clickhouse),
        topics=TopicsConfig(partitions=2),
        sink=SinkConfig(batch_age_s_max=0.1, progress_interval_s=0.2, retry_wait_s_max=0.2),
    )


@pytest.fixture
async def clickhouse(config: Config) -> AsyncIterator[ClickHouse]:
    connection = await ClickHouse.connect(config.clickhouse)
    await ensure_topics(config)
    try:
        yield connection
    finally:
        await connection.command(f"DROP DATABASE IF EXISTS {config.database}")
        await connection.close()


@asynccontextmanager
async def running(config: Config) -> AsyncIterator["asyncio.Task[None]"]:
    stop = asyncio.Event()
    task = asyncio.create_task(Sink(config).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await task


async def until(check: Callable[[], Awaitable[bool]], task: "asyncio.Task[None]") -> None:
    """Wait until the check holds; a sink that ends before is an error."""
    async with asyncio.timeout(PATIENCE_S):
        while not await check():
            if task.done():
                task.result()
                raise AssertionError("the sink ended")
            await asyncio.sleep(0.05)


def trades(count: int, first: int = 0) -> list[bytes]:
    return [
        encode(msgspec.structs.replace(TRADE, trade_id=str(number)))
        for number in range(first, first + count)
    ]


async def publish(
    config: Config, topic: Topic, values: list[bytes], partition: int = 0, transactional: str = ""
) -> None:
    arguments: dict[str, Any] = {"transactional_id": transactional} if transactional else {}
    producer = AIOKafkaProducer(**client_arguments(config.kafka, "test"), **arguments)
    await producer.start()
    try:
        name = topic.full_name(config.namespace)
        if not transactional:
            for value in values:
                await producer.send(name, value, partition=partition)
            await producer.flush()
            return
        for value in values:
            # One transaction each, every second one aborted: offsets that no reader ever sees.
            async with producer.transaction():
                await producer.send_and_wait(name, value, partition=partition)
            await producer.begin_transaction()
            await producer.send_and_wait(name, b"aborted", partition=partition)
            await producer.abort_transaction()
    finally:
        await producer.stop()


async def one(clickhouse: ClickHouse, sql: str) -> Any:
    return (await clickhouse.rows(sql))[0][0]


async def count(clickhouse: ClickHouse, config: Config, table: str) -> int:
    return int(await one(clickhouse, f"SELECT count() FROM {config.database}.{table}"))


def holds(clickhouse: ClickHouse, config: Config, rows: int, table: str = "trades_log") -> Any:
    async def check() -> bool:
        exists = await one(
            clickhouse,
            "SELECT count() FROM system.tables WHERE name = 'skipped_offsets' "
            f"AND database = '{config.database}'",
        )
        return bool(exists) and await count(clickhouse, config, table) >= rows

    return check


async def settled(clickhouse: ClickHouse, config: Config, topic: Topic, partition: int = 0) -> int:
    name = topic.full_name(config.namespace)
    stored = await OffsetStore(clickhouse, config.database).stored(
        stored_tables(config.namespace)[name], name, 1, [partition]
    )
    return stored[partition].settled_before or 0


async def run_until_stored(config: Config, clickhouse: ClickHouse, rows: int) -> None:
    """Run a sink until the table holds so many trades, then end it."""
    async with running(config) as sink:
        await until(holds(clickhouse, config, rows), sink)


async def test_every_topic_is_stored_with_its_position(
    config: Config, clickhouse: ClickHouse
) -> None:
    for topic in STORED_TOPICS:
        event = next(iter(EXAMPLES[topic.events[0]].values()))
        if topic in CANDLES.values():
            event = msgspec.structs.replace(event, revision=1)
        await publish(config, topic, [encode(event)], partition=1)
    async with running(config) as sink:
        for topic in STORED_TOPICS:
            table = stored_tables("")[topic.name]

            async def stored(table: str = table.name, topic: Topic = topic) -> bool:
                if not await holds(clickhouse, config, 1, table)():
                    return False
                where = f"k_topic = '{topic.full_name(config.namespace)}' AND k_partition = 1"
                sql = f"SELECT count() FROM {config.database}.{table} WHERE {where}"
                return bool(await one(clickhouse, sql) == 1)

            await until(stored, sink)


async def test_a_second_run_goes_on_where_the_first_ended(
    config: Config, clickhouse: ClickHouse
) -> None:
    await publish(config, TRADES, trades(500))
    await run_until_stored(config, clickhouse, 500)
    assert await settled(clickhouse, config, TRADES) == 500
    await publish(config, TRADES, trades(300, first=500))
    await run_until_stored(config, clickhouse, 800)
    d = config.database
    assert await clickhouse.rows(
        f"SELECT count(), uniqExact(k_topic, k_partition, k_offset), uniqExact(trade_id) "
        f"FROM {d}.trades_log"
    ) == [(800, 800, 800)]
    assert await count(clickhouse, config, "trades") == 800


async def test_offsets_that_no_reader_sees_are_not_missed(
    config: Config, clickhouse: ClickHouse
) -> None:
    values = trades(20)
    await publish(config, TRADES, values[:10], transactional=f"{config.namespace}-a")
    await run_until_stored(config, clickhouse, 10)
    await publish(config, TRADES, values[10:], transactional=f"{config.namespace}-b")
    await run_until_stored(config, clickhouse, 20)
    assert await count(clickhouse, config, "trades_log") == 20
    assert await count(clickhouse, config, "skipped_offsets") == 0


async def test_a_wiped_database_fills_again_from_kafka(
    config: Config, clickhouse: ClickHouse
) -> None:
    await publish(config, TRADES, trades(200))
    await run_until_stored(config, clickhouse, 200)
    await clickhouse.command(f"DROP DATABASE {config.database} SYNC")
    await run_until_stored(config, clickhouse, 200)
    assert await count(clickhouse, config, "trades_log") == 200


async def test_lost_progress_rows_cost_only_time(config: Config, clickhouse: ClickHouse) -> None:
    await publish(config, TRADES, trades(200))
    await run_until_stored(config, clickhouse, 200)
    await clickhouse.command(f"TRUNCATE TABLE {config.database}.sink_progress")
    await publish(config, TRADES, trades(50, first=200))
    await run_until_stored(config, clickhouse, 250)
    assert await count(clickhouse, config, "trades_log") == 250


async def test_rows_deleted_by_hand_come_back_with_a_new_generation(
    config: Config, clickhouse: ClickHouse
) -> None:
    await publish(config, TRADES, trades(200))
    await run_until_stored(config, clickhouse, 200)
    d = config.database
    await clickhouse.command(
        f"ALTER TABLE {d}.trades_log DELETE WHERE k_offset % 2 = 0 SETTINGS mutations_sync = 2"
    )
    await OffsetStore(clickhouse, d).raise_generation(TRADES.full_name(config.namespace))
    await run_until_stored(config, clickhouse, 200)
    assert await clickhouse.rows(
        f"SELECT count(), uniqExact(k_partition, k_offset) FROM {d}.trades_log"
    ) == [(200, 200)]


async def test_a_topic_made_anew_stops_the_sink_until_a_new_epoch_begins(
    config: Config, clickhouse: ClickHouse
) -> None:
    await publish(config, TRADES, trades(200))
    await run_until_stored(config, clickhouse, 200)
    name = TRADES.full_name(config.namespace)
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "test"))
    await admin.start()
    await admin.delete_topics([name])
    while name in await admin.list_topics():  # noqa: ASYNC110 (Kafka tells nobody)
        await asyncio.sleep(0.05)
    await admin.close()
    await ensure_topics(config)
    await publish(config, TRADES, trades(50, first=200))
    with pytest.raises(TopicRecreated, match=f"--begin-epoch {name}"):
        async with asyncio.timeout(PATIENCE_S):
            await Sink(config).run(asyncio.Event())
    await OffsetStore(clickhouse, config.database).begin_epoch(name)
    await run_until_stored(config, clickhouse, 250)
    assert await count(clickhouse, config, "trades") == 250


async def test_retention_that_outran_the_sink_is_recorded(
    config: Config, clickhouse: ClickHouse
) -> None:
    await publish(config, TRADES, trades(100))
    await run_until_stored(config, clickhouse, 100)
    await publish(config, TRADES, trades(100, first=100))
    name = TRADES.full_name(config.namespace)
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "test"))
    await admin.start()
    await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(before_offset=150)})
    await admin.close()
    await run_until_stored(config, clickhouse, 150)
    d = config.database
    assert await clickhouse.rows(
        f"SELECT k_topic, first_offset, last_offset, reason FROM {d}.skipped_offsets"
    ) == [(name, 100, 149, "retention")]
    assert await settled(clickhouse, config, TRADES) == 200


async def test_a_refused_row_becomes_a_dead_letter_and_its_neighbours_are_stored(
    config: Config, clickhouse: ClickHouse
) -> None:
    bad = json.dumps({**json.loads(trades(1)[0]), "price": "1.0000000000001"}).encode()
    await publish(config, TRADES, [*trades(70), bad, *trades(70, first=70), b"rubbish"])
    async with running(config) as sink:
        await until(holds(clickhouse, config, 140), sink)
        await until(holds(clickhouse, config, 2, "dead_letters_log"), sink)
    name = TRADES.full_name(config.namespace)
    d = config.database
    assert await clickhouse.rows(
        f"SELECT identity, reason, topic, partition, offset, base64Decode(payload_base64) "
        f"FROM {d}.dead_letters ORDER BY offset"
    ) == [
        (f"{name}:0:70", "refused_by_clickhouse", name, 0, 70, bad.decode()),
        (f"{name}:0:141", "refused_by_clickhouse", name, 0, 141, "rubbish"),
    ]
    async with running(config) as sink:
        await publish(config, TRADES, trades(1, first=140))
        await until(holds(clickhouse, config, 141), sink)
    letters = await read_all(config, DEAD_LETTERS)
    decode: EventDecoder[DeadLetter] = EventDecoder(DeadLetter)
    assert sorted(str(decode(letter).offset) for letter in letters) == ["141", "70"]


async def read_all(config: Config, topic: Topic) -> list[bytes]:
    consumer = AIOKafkaConsumer(**client_arguments(config.kafka, "test"))
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.full_name(config.namespace), n) for n in range(2)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[bytes] = []
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                found += [record.value for record in records]
        return found
    finally:
        await consumer.stop()


async def test_a_batch_that_spans_two_months_is_stored_once(
    config: Config, clickhouse: ClickHouse
) -> None:
    november_us = 1_793_491_200_000_000
    values = [
        encode(
            msgspec.structs.replace(
                TRADE, trade_id=str(number), trade_time_us=november_us - 50 + number
            )
        )
        for number in range(100)
    ]
    await publish(config, TRADES, values)
    await run_until_stored(config, clickhouse, 100)
    assert await clickhouse.rows(
        f"SELECT toYYYYMM(trade_time) AS month, count() FROM {config.database}.trades_log "
        "GROUP BY month ORDER BY month"
    ) == [(202610, 50), (202611, 50)]


async def test_two_sinks_share_the_partitions_and_store_each_record_once(
    config: Config, clickhouse: ClickHouse
) -> None:
    slow = replace(config, sink=replace(config.sink, batch_age_s_max=0.02))
    total = 0
    async with running(slow) as first:
        for _ in range(3):
            async with running(slow):
                for partition in (0, 1):
                    await publish(config, TRADES, trades(200, first=total), partition)
                    total += 200
                await until(holds(clickhouse, config, total), first)
    d = config.database
    assert await clickhouse.rows(
        f"SELECT count(), uniqExact(k_partition, k_offset) FROM {d}.trades_log"
    ) == [(total, total)]
    assert await count(clickhouse, config, "trades") == total
