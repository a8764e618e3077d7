"""Waiting until ClickHouse shows what stood in the ingest log: before it is asked what it has.

A run that was killed may have left events on their way; without waiting the next run would fetch
them once more.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.topics import INGEST, Topic
from alpha_pulse.data_pipeline.history.stored import StoredMarket
from alpha_pulse.data_pipeline.history.stored_rows import Market

log = structlog.get_logger()

POLL_S = 0.2
# A pipeline that stands still is not waited for: what is fetched twice is harmless.
STILL_S_MAX = 20.0
# Reads without a record, of 0.2 s each, until the rest of a topic counts as having none.
EMPTY_READS_MAX = 5


async def wait_until_settled(
    config: Config, stored: StoredMarket, markets: Sequence[Market], topic: Topic, table: str
) -> bool:
    """Return once what stands in the ingest log now is in a table; False when it stands still.

    topic, table: of the events that are waited for, such as the 1m candles.
    """
    group = config.named(config.processor.group)
    consumer = batch_consumer(config.kafka, "alpha-pulse-settled", group_id=group)
    await consumer.start()
    try:
        ingest = INGEST.full_name(config.namespace)
        numbers = await _partitions_of(consumer, ingest, markets)
        partitions = [TopicPartition(ingest, number) for number in numbers]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        for tp, end in ends.items():
            if not await _processed(consumer, tp, end):
                return False
    finally:
        await consumer.stop()
    reader = batch_consumer(config.kafka, "alpha-pulse-settled")
    await reader.start()
    try:
        name = topic.full_name(config.namespace)
        await _partitions_of(reader, name, markets)
        for number in numbers:
            if not await _stored(reader, stored, TopicPartition(name, number), table):
                return False
    finally:
        await reader.stop()
    return True


async def _partitions_of(consumer: Any, topic: str, markets: Sequence[Market]) -> list[int]:
    while not (found := sorted(consumer.partitions_for_topic(topic) or ())):
        await consumer._client.add_topic(topic)
        await asyncio.sleep(0.05)
    pick = DefaultPartitioner()
    return sorted({pick(message_key(m.exchange, m.symbol), found, found) for m in markets})


async def _processed(consumer: Any, tp: TopicPartition, end: int) -> bool:
    loop = asyncio.get_running_loop()
    best, moved_at = -1, loop.time()
    while True:
        done = await consumer.committed(tp) or 0
        if done >= end:
            return True
        if done > best:
            best, moved_at = done, loop.time()
        elif loop.time() - moved_at > STILL_S_MAX:
            log.warning("processors.behind", partition=tp.partition, committed=done, end=end)
            return False
        await asyncio.sleep(POLL_S)


async def _stored(reader: Any, stored: StoredMarket, tp: TopicPartition, table: str) -> bool:
    loop = asyncio.get_running_loop()
    best, moved_at = -1, loop.time()
    reader.assign([tp])
    begin = (await reader.beginning_offsets([tp]))[tp]
    end = (await reader.end_offsets([tp]))[tp]
    while True:
        rows = await stored.rows(
            f"SELECT max(k_offset) FROM {{db}}.{table} WHERE k_topic = {{topic:String}} "
            "AND k_partition = {partition:Int32}",
            {"topic": tp.topic, "partition": tp.partition},
        )
        first = max(begin, int(rows[0][0] or -1) + 1)
        if first >= end or not await _has_records(reader, tp, first, end):
            return True
        if first > best:
            best, moved_at = first, loop.time()
        elif loop.time() - moved_at > STILL_S_MAX:
            log.warning("sinks.behind", topic=tp.topic, partition=tp.partition, stored_before=first)
            return False
        await asyncio.sleep(POLL_S)


async def _has_records(reader: Any, tp: TopicPartition, first: int, end: int) -> bool:
    # Offsets of transactions' ends hold no record: reading on shows whether anything is there.
    reader.seek(tp, first)
    empty = 0
    while empty < EMPTY_READS_MAX and await reader.position(tp) < end:
        found = await reader.getmany(tp, timeout_ms=200)
        if any(offset < end for batch in found.get(tp, ()) for offset in batch.offsets):
            return True
        empty = 0 if found else empty + 1
    return False
