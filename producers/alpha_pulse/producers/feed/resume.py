"""Where to go on after a restart: each symbol's last trade, from the tail of the log."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from alpha_pulse.contracts.codec import decode_ingest
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import KafkaError, ValidationError
from alpha_pulse.contracts.events import Ids, Trade
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.topics import INGEST
from alpha_pulse.producers.exchanges.tick import time_of

# The tail is read backwards in doubling steps up to so many records of a partition.
TAIL_RECORDS = 5_000
TAIL_RECORDS_MAX = 5_000_000
READ_S_MAX = 60.0
METADATA_S_MAX = 15.0


async def last_trades(
    config: Config, exchange: str, symbols: Sequence[str]
) -> dict[str, tuple[str, int]]:
    """Find each symbol's last live trade in the log.

    Trades with consecutive ids were published in id order, so the last record is the highest id but
    for a late one that filled a gap: the highest of the tail counts.

    Args:
        config: whose Kafka and namespace.
        exchange: the exchange's name in the log.
        symbols: the symbols to look for.

    Returns:
        symbol -> (id, trade time in µs); a symbol that is not in the tail is left out.

    Raises:
        KafkaError: the topic is not there.
    """
    topic = INGEST.full_name(config.namespace)
    consumer = batch_consumer(config.kafka, "alpha-pulse-resume", group_id=None)
    consumer.subscribe([topic])
    await consumer.start()
    try:
        partitions = await _partitions(consumer, topic)
        consumer.unsubscribe()
        partitioner = DefaultPartitioner()
        wanted: dict[int, dict[bytes, str]] = {}
        for symbol in symbols:
            key = message_key(exchange, symbol)
            wanted.setdefault(partitioner(key, partitions, partitions), {})[key] = symbol
        found: dict[str, tuple[str, int]] = {}
        for partition, keys in wanted.items():
            found |= await _tail_of(consumer, TopicPartition(topic, partition), keys)
        return found
    finally:
        await consumer.stop()


async def _partitions(consumer: Any, topic: str) -> list[int]:
    # A topic that was made a moment ago may not be known to every broker yet.
    give_up_at = time.monotonic() + METADATA_S_MAX
    while not (found := sorted(consumer.partitions_for_topic(topic) or ())):
        if time.monotonic() > give_up_at:
            raise KafkaError(
                f"expected the topic {topic}, found none within {METADATA_S_MAX:g} s; create it or "
                "grant the right to describe it"
            )
        await asyncio.sleep(0.1)
    return found


async def _tail_of(
    consumer: Any, partition: TopicPartition, keys: dict[bytes, str]
) -> dict[str, tuple[str, int]]:
    consumer.assign([partition])
    begin = (await consumer.beginning_offsets([partition]))[partition]
    end = (await consumer.end_offsets([partition]))[partition]
    found: dict[str, tuple[str, int]] = {}
    upper, step = end, TAIL_RECORDS
    while upper > begin and len(found) < len(keys) and end - upper < TAIL_RECORDS_MAX:
        lower = max(begin, upper - step)
        missing = {key: symbol for key, symbol in keys.items() if symbol not in found}
        found |= await _newest_in(consumer, partition, lower, upper, missing)
        upper, step = lower, step * 2
    return found


async def _newest_in(
    consumer: Any, partition: TopicPartition, lower: int, upper: int, keys: dict[bytes, str]
) -> dict[str, tuple[str, int]]:
    consumer.seek(partition, lower)
    newest: dict[str, tuple[str, int]] = {}
    position = lower
    give_up_at = time.monotonic() + READ_S_MAX
    while position < upper and time.monotonic() < give_up_at:
        fetched = await consumer.getmany(partition, timeout_ms=500)
        for batch in fetched.get(partition, ()):
            for offset, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
                if offset < upper and key in keys and value is not None:
                    _note(newest, keys[key], value)
            position = batch.next_offset
        if not fetched:
            position = max(position, await consumer.position(partition))
    return newest


def _note(newest: dict[str, tuple[str, int]], symbol: str, value: bytes) -> None:
    if not any(name in value[:60] for name in (b'"trade"', b'"ids"')):
        return
    try:
        event = decode_ingest(value)
    except ValidationError:
        return  # a stranger's record; the processors report it
    if not isinstance(event, Trade | Ids) or event.job is not None:
        return
    trade_id = event.trade_id if isinstance(event, Trade) else event.last_trade_id
    known = newest.get(symbol)
    numbers = known is not None and trade_id.isdigit() and known[0].isdigit()
    if known is None or not numbers or int(trade_id) > int(known[0]):
        newest[symbol] = (trade_id, time_of(event))
