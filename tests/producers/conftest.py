"""Shared by the producer tests: the live producer against the replay exchange, without Kafka."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from alpha_pulse.contracts.codec import decode_event, decode_ingest
from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.events import Candle, DeadLetter, Gap, Heartbeat, Trade
from alpha_pulse.contracts.kinds import IngestEvent
from alpha_pulse.contracts.topics import DEAD_LETTERS, INGEST
from alpha_pulse.producers.live import LiveProducer
from tests.patience import PATIENCE_S


@dataclass
class MemoryPublisher:
    """A publisher that keeps what it is given; it can be slow, as Kafka can."""

    pending_bytes: int = 0
    values: dict[tuple[str, bytes], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    may_take: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_take.set()

    async def publish(self, topic: str, key: bytes, values: Sequence[bytes]) -> None:
        await self.may_take.wait()
        self.values[topic, key] += values

    async def flush(self) -> None:
        await self.may_take.wait()

    def log(self, symbol: str | None = None) -> list[IngestEvent]:
        return [
            decode_ingest(value)
            for (topic, key), values in self.values.items()
            if topic == INGEST.name and (symbol is None or key.endswith(f":{symbol}".encode()))
            for value in values
        ]

    def trades(self, symbol: str | None = None) -> list[Trade]:
        return [event for event in self.log(symbol) if isinstance(event, Trade)]

    def candles(self, symbol: str | None = None) -> list[Candle]:
        return [event for event in self.log(symbol) if isinstance(event, Candle)]

    def heartbeats(self, symbol: str | None = None) -> list[Heartbeat]:
        return [event for event in self.log(symbol) if isinstance(event, Heartbeat)]

    def gaps(self, symbol: str | None = None) -> list[Gap]:
        return [event for event in self.log(symbol) if isinstance(event, Gap)]

    def dead_letters(self) -> list[DeadLetter]:
        letters = []
        for (topic, _), values in self.values.items():
            if topic == DEAD_LETTERS.name:
                letters += [decode_event(value) for value in values]
        return [letter for letter in letters if isinstance(letter, DeadLetter)]


@dataclass
class Following:
    """A live producer that runs, and what it published."""

    producer: LiveProducer
    published: MemoryPublisher
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def until(self, condition: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
        """Wait until a condition holds; fail when the producer ends before, or time runs out."""
        async with asyncio.timeout(seconds):
            while not condition():
                if self.task.done():
                    self.task.result()
                    assert condition(), "the producer ended before the condition held"
                    return
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Stop as SIGTERM does."""
        self.stop.set()
        await asyncio.wait_for(self.task, PATIENCE_S)


Follow = Callable[..., Awaitable[Following]]


@pytest.fixture
async def follow() -> Any:
    """Start live producers; all are stopped when the test ends."""
    running: list[Following] = []

    async def start(
        config: ProducerConfig,
        *,
        resume: dict[str, tuple[str, int]] | None = None,
        published: MemoryPublisher | None = None,
    ) -> Following:
        published = published or MemoryPublisher()
        producer = LiveProducer(config, published, resume=resume)
        stop = asyncio.Event()
        following = Following(producer, published, stop, asyncio.create_task(producer.run(stop)))
        running.append(following)
        return following

    yield start
    for following in running:
        following.published.may_take.set()
        following.stop.set()
        await asyncio.wait([following.task], timeout=10)
        following.task.cancel()
        await asyncio.gather(following.task, return_exceptions=True)
