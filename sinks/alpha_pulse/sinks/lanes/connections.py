"""The sink's connections to Kafka, made however long Kafka takes to come up."""

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import KafkaError
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.topics import DEAD_LETTERS
from alpha_pulse.sinks.clickhouse.client import PassingFault, retries


async def start_consumer(config: Config) -> AIOKafkaConsumer:
    """Return a consumer of the sinks' group, not subscribed yet, that starts nowhere by itself.

    An offset that Kafka does not have any more is an error, never a silent jump.
    """
    session_ms = int(config.sink.session_timeout_s * 1000)
    async for attempt in retries(config.sink.retry_wait_s_max):
        with attempt:
            consumer = batch_consumer(
                config.kafka,
                "alpha-pulse-sinks",
                group_id=config.named(config.sink.group),
                auto_offset_reset="none",
                session_timeout_ms=session_ms,
                heartbeat_interval_ms=min(1000, max(1, session_ms // 3)),
                fetch_max_wait_ms=100,
            )
            try:
                await ensure_topics(config)
                await consumer.start()
            except (KafkaError, AiokafkaError, OSError) as error:
                await consumer.stop()
                raise PassingFault(f"expected to start reading: {error}") from error
    return consumer


class DeadLetterPublisher:
    """Puts dead letters into their topic; connects with the first one."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._publisher: Publisher | None = None

    async def publish(self, key: bytes, value: bytes) -> None:
        """Return once Kafka has acknowledged the dead letter."""
        async for attempt in retries(self._config.sink.retry_wait_s_max):
            with attempt:
                try:
                    publisher = await self._connected()
                except KafkaError as error:
                    raise PassingFault(str(error)) from error
        await publisher.publish(DEAD_LETTERS.full_name(self._config.namespace), key, [value])
        await publisher.flush()

    async def stop(self) -> None:
        """Close the connection, if there is one."""
        if self._publisher is not None:
            await self._publisher.stop()

    async def _connected(self) -> Publisher:
        if self._publisher is None:
            publisher = Publisher(self._config.kafka, "alpha-pulse-sink-dead-letters")
            await publisher.start()
            self._publisher = publisher
        return self._publisher
