"""Processors in processes of their own, a market for them, and what an undisturbed run gives."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiokafka

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import Config, config_environment
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.batches import RecordBatch, batch_consumer
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.topics import CANDLES, DEAD_LETTERS, GAPS, INGEST, TRADES, Topic
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.wire.records import EncodedRecords
from tests.patience import PATIENCE_S

START_US = 1_763_942_400_000_000
PARTITIONS = 4
SYMBOLS = [f"C{number}/USDT" for number in range(12)]


@dataclass
class Market:
    """Trades of several symbols in id order; now and then one comes late, twice or malformed."""

    random: Random
    sent: dict[str, bytes] = field(default_factory=dict)
    next_id: int = 1000
    time_us: int = START_US
    held: list[tuple[str, bytes]] = field(default_factory=list)
    rubbish: int = 0

    def values(self, count: int) -> list[tuple[bytes, bytes]]:
        """Return the next records: key and value."""
        records: list[tuple[bytes, bytes]] = []
        for _ in range(count):
            self.next_id += 1
            self.time_us += self.random.randint(0, 200_000)
            for symbol in SYMBOLS:
                key = message_key("binance", symbol)
                value = encode(self._trade(symbol))
                self.sent[f"{symbol} {self.next_id}"] = value
                # Not the very first: what lies before it is not followed.
                if self.next_id > 1001 and self.random.random() < 0.005:
                    self.held.append((symbol, value))
                    continue
                records.append((key, value))
                if self.random.random() < 0.001:
                    records.append((key, value))
                if self.random.random() < 0.0005:
                    records.append((key, value[:50]))
                    self.rubbish += 1
            if self.held and self.random.random() < 0.3:
                symbol, value = self.held.pop(0)
                records.append((message_key("binance", symbol), value))
        return records

    def rest(self) -> list[tuple[bytes, bytes]]:
        """Return what was held back, and a last trade each that closes the minutes."""
        records = [(message_key("binance", symbol), value) for symbol, value in self.held]
        self.held.clear()
        self.time_us += 180_000_000
        self.next_id += 1
        for symbol in SYMBOLS:
            value = encode(self._trade(symbol))
            self.sent[f"{symbol} {self.next_id}"] = value
            records.append((message_key("binance", symbol), value))
        return records

    def _trade(self, symbol: str) -> Trade:
        return Trade(
            exchange="binance", symbol=symbol, trade_id=str(self.next_id),
            price=f"{self.random.randint(9900, 10100) / 100:.2f}",
            amount=f"{self.random.randint(1, 99999) / 1000:.3f}",
            side=self.random.choice(["buy", "sell"]),
            trade_time_us=self.time_us, receive_time_us=self.time_us,
        )  # fmt: skip


async def publish(config: Config, records: list[tuple[bytes, bytes]], pause_s: float = 0) -> None:
    publisher = Publisher(config.kafka, "test")
    await publisher.start()
    try:
        topic = INGEST.full_name(config.namespace)
        for start in range(0, len(records), 500):
            for key, value in records[start : start + 500]:
                await publisher.publish(topic, key, [value])
            await asyncio.sleep(pause_s)
    finally:
        await publisher.stop()


@dataclass
class Worker:
    """A processor in a process of its own, as it runs in production."""

    process: asyncio.subprocess.Process
    log: Path

    async def holds(self, times: int = 1) -> None:
        """Return once it was given partitions so many times."""
        async with asyncio.timeout(PATIENCE_S):
            while self.log.read_text().count("partitions.assigned") < times:
                assert self.process.returncode is None, self.log.read_text()[-3000:]
                await asyncio.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self, within_s: float = PATIENCE_S) -> int:
        """Return its exit code."""
        async with asyncio.timeout(within_s):
            return await self.process.wait()


@asynccontextmanager
async def worker(config: Config) -> AsyncIterator[Worker]:
    """Start a worker; it is killed at the end if it still runs."""
    log = Path(config.data_dir) / f"worker-{time.monotonic_ns()}.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "alpha_pulse.processors",
            env={**os.environ, **config_environment(config)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=file,
        )
    try:
        yield Worker(process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def read_all(config: Config, topic: Topic) -> dict[int, list[tuple[bytes, bytes]]]:
    """Return every committed record of a topic, per partition, in order."""
    name = topic.full_name(config.namespace)
    parts = [aiokafka.TopicPartition(name, number) for number in range(PARTITIONS)]
    # A transaction that is committed becomes visible a little later; the log's end tells.
    async with aiokafka.AIOKafkaConsumer(bootstrap_servers=config.kafka.bootstrap) as any_consumer:
        ends = await any_consumer.end_offsets(parts)
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=config.kafka.bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        consumer.assign(parts)
        found: dict[int, list[tuple[bytes, bytes]]] = {part.partition: [] for part in parts}
        async with asyncio.timeout(PATIENCE_S):
            for part in parts:
                while await consumer.position(part) < ends[part]:
                    records = await consumer.getmany(part, timeout_ms=200)
                    found[part.partition] += [(r.key, r.value) for r in records.get(part, [])]
        return found
    finally:
        await consumer.stop()


async def settled(config: Config, within_s: float = PATIENCE_S) -> None:
    """Return once the processors have committed everything in the ingest log."""
    name = INGEST.full_name(config.namespace)
    parts = [aiokafka.TopicPartition(name, number) for number in range(PARTITIONS)]
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=config.kafka.bootstrap, enable_auto_commit=False,
        group_id=config.named(config.processor.group),
    )  # fmt: skip
    consumer.assign(parts)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(parts)
        async with asyncio.timeout(within_s):
            while True:
                done = [await consumer.committed(part) or 0 for part in parts]
                if all(done[part.partition] >= ends[part] for part in parts):
                    return
                await asyncio.sleep(0.2)
    finally:
        await consumer.stop()


async def expected_outputs(config: Config) -> dict[str, dict[int, list[tuple[bytes, bytes]]]]:
    """Run the pure kernel over the ingest log, once and in one go."""
    outputs: dict[str, dict[int, list[tuple[bytes, bytes]]]] = {}
    name = INGEST.full_name(config.namespace)
    consumer = batch_consumer(config.kafka, "reference")
    await consumer.start()
    try:
        for number in range(PARTITIONS):
            part = aiokafka.TopicPartition(name, number)
            consumer.assign([part])
            await consumer.seek_to_beginning(part)
            end = (await consumer.end_offsets([part]))[part]
            kernel = Kernel(config.processor, name, number)
            while kernel.position < end:
                batches: list[RecordBatch] = (await consumer.getmany(part, timeout_ms=200)).get(
                    part, []
                )
                for b in batches:
                    batch = EncodedRecords.of(b.offsets, b.keys, b.values)
                    kernel.process(batch, b.timestamp_ms, b.next_offset)
            for topic, records in kernel.drain_outputs().items():
                outputs.setdefault(topic, {})[number] = list(records)
    finally:
        await consumer.stop()
    return outputs


async def check_exact(config: Config, market: Market) -> None:
    """Lost 0, duplicated 0, and every output byte is what one undisturbed run gives."""
    trades = await read_all(config, TRADES)
    found = Counter(value for records in trades.values() for _, value in records)
    assert set(found) == set(market.sent.values()), "lost or invented"
    assert max(found.values()) == 1, "republished"
    expected = await expected_outputs(config)
    for topic in (TRADES, *CANDLES.values(), GAPS, DEAD_LETTERS):
        stored = {n: r for n, r in (await read_all(config, topic)).items() if r}
        wanted = {n: r for n, r in expected.get(topic.name, {}).items() if r}
        assert stored == wanted, topic.name
    letters = expected[DEAD_LETTERS.name]
    assert sum(map(len, letters.values())) == market.rubbish
