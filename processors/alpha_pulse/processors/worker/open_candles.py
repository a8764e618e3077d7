"""Open candles on their way to live charts: outside transactions, and never in the way.

What can't be sent at once is dropped: the next second brings a newer one.
"""

import asyncio

import aiokafka
import structlog

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.roles.batches import Record, fill_batch
from alpha_pulse.contracts.roles.closing import close_within
from alpha_pulse.contracts.topics import OPEN_CANDLES

log = structlog.get_logger()

BATCH_BYTES_MAX = 500_000
CLOSE_S_MAX = 1.0


class OpenCandles:
    """Sends the newest open candles of a partition, one send at a time for each."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._topic = OPEN_CANDLES.full_name(config.namespace)
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self._sending: dict[int, asyncio.Task[None]] = {}
        self.dropped = 0

    async def start(self) -> None:
        """Connect."""
        self._producer = aiokafka.AIOKafkaProducer(
            **client_arguments(self._config.kafka, "alpha-pulse-open-candles"),
            acks=1,
            compression_type="zstd",
            max_batch_size=BATCH_BYTES_MAX,
            linger_ms=0,
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Drop what is under way."""
        for task in self._sending.values():
            task.cancel()
        await asyncio.gather(*self._sending.values(), return_exceptions=True)
        if self._producer is not None:
            await close_within(CLOSE_S_MAX, self._producer.stop(), expected=(Exception,))

    def send(self, partition: int, records: list[Record]) -> None:
        """Send the records, unless the partition's last ones are still under way."""
        if not records:
            return
        before = self._sending.get(partition)
        if before is not None and not before.done():
            self.dropped += len(records)
            return
        self._sending[partition] = asyncio.create_task(self._send(partition, records))

    async def _send(self, partition: int, records: list[Record]) -> None:
        assert self._producer is not None, "start() first"
        try:
            while records:
                batch, count = fill_batch(self._producer, records)
                await (await self._producer.send_batch(batch, self._topic, partition=partition))
                records = records[max(count, 1) :]
        except Exception as error:
            self.dropped += len(records)
            log.debug("open_candles.dropped", error=f"{type(error).__name__}: {error}")
