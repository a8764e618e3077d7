"""What is in Kafka and in ClickHouse: counts and rows, for the commands that look at a run."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import clickhouse_connect
from aiokafka import TopicPartition
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from alpha_pulse.contracts.config import ClickHouseConfig, Config
from alpha_pulse.contracts.errors import StorageError
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.topics import INGEST, Topic
from alpha_pulse.replay.verdict import StoredCandle, StoredTrade
from alpha_pulse.sinks.clickhouse.client import connection_arguments

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TradeCounts:
    """Figures of the trades table after any fault.

    stored: identities. duplicated: rows beyond one per Kafka record. republished: Kafka records
    beyond one per identity.
    """

    stored: int
    duplicated: int
    republished: int


def connect(clickhouse: ClickHouseConfig, database: str | None = None) -> Client:
    """Return a client of the configured server. Raises StorageError when it can't be reached."""
    arguments = connection_arguments(clickhouse)
    if database:
        arguments["database"] = database
    try:
        return clickhouse_connect.get_client(**arguments)
    except (ClickHouseError, OSError) as error:
        raise StorageError(
            f"expected ClickHouse at {arguments['host']}:{arguments['port']}, found "
            f"{type(error).__name__}: {error}; is it running there, are the credentials right, and "
            f"is there a database {arguments['database']}?"
        ) from error


def count_trades(client: Client, database: str) -> TradeCounts:
    """Return the figures of the trades table."""
    rows, records, identities = client.query(
        "SELECT count(), uniqExact(k_topic, k_partition, k_offset), "
        "uniqExact(exchange, symbol, trade_id) FROM {database:Identifier}.trades_log",
        parameters={"database": database},
    ).result_rows[0]
    return TradeCounts(
        stored=identities, duplicated=rows - records, republished=records - identities
    )


def count_records(client: Client, database: str, table: str) -> int:
    """Return how many distinct Kafka records a log table holds."""
    return int(
        client.query(
            "SELECT uniqExact(k_topic, k_partition, k_offset) "
            "FROM {database:Identifier}.{table:Identifier}",
            parameters={"database": database, "table": table},
        ).result_rows[0][0]
    )


def count_gaps(client: Client, database: str) -> dict[str, int]:
    """Return how many gaps were ever opened, and how many of them are filled or unfillable."""
    opened, filled, unfillable = client.query(
        "SELECT count(), countIf(status = 'filled'), countIf(status = 'unfillable') "
        "FROM {database:Identifier}.gaps",
        parameters={"database": database},
    ).result_rows[0]
    return {"opened": opened, "filled": filled, "unfillable": unfillable}


def read_trades(client: Client, database: str) -> list[StoredTrade]:
    """Return every identity of the `trades` view."""
    rows = client.query(
        "SELECT trade_id, trade_time, price, amount, toString(side) "
        "FROM {database:Identifier}.trades",
        parameters={"database": database},
    ).result_rows
    return [StoredTrade(row[0], _us(row[1]), *row[2:]) for row in rows]


def read_candles(client: Client, database: str) -> list[StoredCandle]:
    """Return the newest revision of every window."""
    rows = client.query(
        "SELECT timeframe, open_time, open, high, low, close, volume, quote_volume, buy_volume, "
        "trade_count, first_trade_id, last_trade_id, toString(source), toString(coverage) "
        "FROM {database:Identifier}.candles",
        parameters={"database": database},
    ).result_rows
    return [StoredCandle(row[0], _us(row[1]), *row[2:]) for row in rows]


def _us(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    difference = aware - _EPOCH
    return (difference.days * 86_400 + difference.seconds) * 1_000_000 + difference.microseconds


async def count_committed(config: Config, topics: Iterable[Topic]) -> dict[str, int]:
    """Return how many committed records each topic holds now, by its name without namespace."""
    names = {topic.full_name(config.namespace): topic.name for topic in topics}
    counts = dict.fromkeys(names.values(), 0)
    consumer = batch_consumer(config.kafka, "alpha-pulse-count", fetch_bytes_max=8 * 2**20)
    await consumer.start()
    try:
        partitions = [
            TopicPartition(name, partition)
            for name in names
            for partition in await _partitions(consumer, name)
        ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        left = {tp for tp in partitions if await consumer.position(tp) < ends[tp]}
        while left:
            for tp, batches in (await consumer.getmany(timeout_ms=200)).items():
                counts[names[tp.topic]] += sum(len(batch.offsets) for batch in batches)
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    finally:
        await consumer.stop()
    return counts


async def processor_lag(config: Config) -> int:
    """Return how many records of the ingest log the processors have not committed yet."""
    name = INGEST.full_name(config.namespace)
    consumer = batch_consumer(
        config.kafka, "alpha-pulse-lag", group_id=config.named(config.processor.group)
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(name, number) for number in await _partitions(consumer, name)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        committed = [await consumer.committed(tp) for tp in partitions]
    finally:
        await consumer.stop()
    done = {tp: offset or 0 for tp, offset in zip(partitions, committed, strict=True)}
    return sum(max(0, ends[tp] - done[tp]) for tp in partitions)


async def _partitions(consumer: Any, name: str) -> list[int]:
    found = consumer.partitions_for_topic(name)
    while not found:
        # The client asks for a topic's partitions only once it has heard of the topic.
        await consumer._client.add_topic(name)
        await asyncio.sleep(0.05)
        found = consumer.partitions_for_topic(name)
    return sorted(found)
