"""The shared runtime answers real clients."""

import clickhouse_connect
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from alpha_pulse.embedded.runtime import Runtime


async def test_a_record_written_to_the_embedded_kafka_is_read_back(
    runtime: Runtime, namespace: str
) -> None:
    topic = f"{namespace}.records"
    admin = AIOKafkaAdminClient(bootstrap_servers=runtime.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()
    async with (
        AIOKafkaProducer(
            bootstrap_servers=runtime.kafka,
            acks="all",
            enable_idempotence=True,
            transactional_id=topic,
        ) as producer,
        producer.transaction(),
    ):
        await producer.send_and_wait(topic, b"one")
    async with AIOKafkaConsumer(
        bootstrap_servers=runtime.kafka,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    ) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        record = await consumer.getone()
    assert record.value == b"one"


def test_clickhouse_connect_inserts_and_selects(runtime: Runtime, namespace: str) -> None:
    client = clickhouse_connect.get_client(dsn=runtime.clickhouse)
    client.command(f"CREATE DATABASE {namespace}")
    client.command(
        f"CREATE TABLE {namespace}.prices (symbol String, price Decimal(38, 12)) "
        f"ENGINE = MergeTree ORDER BY symbol"
    )
    client.raw_insert(
        f"{namespace}.prices",
        insert_block=b'{"symbol":"BTC/USDT","price":"1.5"}\n',
        fmt="JSONEachRow",
    )
    found = client.query(
        f"SELECT symbol, toString(price) FROM {namespace}.prices WHERE symbol = {{symbol:String}}",
        parameters={"symbol": "BTC/USDT"},
    )
    client.command(f"DROP DATABASE {namespace}")
    client.close()
    assert found.result_rows == [("BTC/USDT", "1.5")]
