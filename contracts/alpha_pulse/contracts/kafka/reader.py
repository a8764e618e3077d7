"""The typed reader for downstream users: events instead of bytes."""

from collections.abc import AsyncIterator

import aiokafka

from alpha_pulse.contracts.codec import EventDecoder
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.events import AnyEvent
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.topics import Topic


async def read(
    topic: Topic,
    config: Config | None = None,
    *,
    group: str | None = None,
    from_earliest: bool = True,
) -> AsyncIterator[AnyEvent]:
    """Yield the committed events of a topic, for ever, in order per symbol.

    The same candle may come again with a higher `revision`, which replaces the earlier one. With a
    group, offsets are committed and several readers share the partitions; without, all is read.
    Raises: ValidationError when a record breaks the contract.

    >>> async def main():
    ...     async for candle in read(CANDLES["1m"]):
    ...         print(candle.symbol, candle.close, candle.coverage)
    """
    config = config or Config()
    decode: EventDecoder[AnyEvent] = EventDecoder(topic.events[0])
    consumer = aiokafka.AIOKafkaConsumer(
        topic.full_name(config.namespace),
        **client_arguments(config.kafka, "alpha-pulse-reader"),
        group_id=group,
        auto_offset_reset="earliest" if from_earliest else "latest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        async for record in consumer:
            if record.value is not None:
                yield decode(record.value)
    finally:
        await consumer.stop()
