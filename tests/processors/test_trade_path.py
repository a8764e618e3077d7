"""The trade path on a real Kafka: exact through kill -9, joins, leaves, freezes and a zombie."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import aiokafka
import pytest

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.config import Config, KafkaConfig, ProcessorConfig, config_environment
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kafka.batches import RecordBatch, batch_consumer
from alpha_pulse.contracts.kafka.publisher import Publisher
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.topics import AUDITS, CANDLES, DEAD_LETTERS, GAPS, INGEST, TRADES, Topic
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.processors.kernel import Kernel
from alpha_pulse.processors.partition import Partition

START_US = 1_763_942_400_000_000
PARTITIONS = 4
SYMBOLS = [f"C{number}/USDT" for number in range(12)]


@pytest.fixture
async def config(runtime: Runtime, namespace: str, tmp_path: Path) -> Config:
    config = Config(
        namespace=namespace,
        data_dir=str(tmp_path),
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        processor=ProcessorConfig(session_timeout_s=6.0, stall_s_max=30.0),
    )
    config = replace(config, topics=replace(config.topics, partitions=PARTITIONS))
    await ensure_topics(config)
    return config


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
        async with asyncio.timeout(60):
            while self.log.read_text().count("partitions.assigned") < times:
                assert self.process.returncode is None, self.log.read_text()[-3000:]
                await asyncio.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self, within_s: float = 10) -> int:
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
        async with asyncio.timeout(60):
            for part in parts:
                while await consumer.position(part) < ends[part]:
                    records = await consumer.getmany(part, timeout_ms=200)
                    found[part.partition] += [(r.key, r.value) for r in records.get(part, [])]
        return found
    finally:
        await consumer.stop()


async def settled(config: Config, within_s: float = 90) -> None:
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
                    kernel.process(b.offsets, b.keys, b.values, b.timestamp_ms, b.next_offset)
            for topic, records in kernel.take_outputs().items():
                outputs.setdefault(topic, {})[number] = records
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


async def test_a_worker_processes_what_is_there_and_exits_0_on_sigterm(config: Config) -> None:
    market = Market(Random(1))
    await publish(config, [*market.values(300), *market.rest()])
    async with worker(config) as only:
        await settled(config)
        only.send(signal.SIGTERM)
        assert await only.end(within_s=10) == 0
    await check_exact(config, market)


@pytest.mark.parametrize("seed", [int(os.environ.get("ALPHA_PULSE_TEST_SEED", "7"))])
async def test_nothing_is_lost_changed_or_published_twice_through_kill_9(
    config: Config, seed: int
) -> None:
    random, market = Random(seed), Market(Random(seed))
    feeding = asyncio.create_task(publish(config, market.values(3000), pause_s=0.1))
    for _ in range(3):
        async with worker(config) as victim:
            await victim.holds()
            await asyncio.sleep(random.uniform(0.3, 2.0))
            victim.send(signal.SIGKILL)
    await feeding
    await publish(config, market.rest())
    async with worker(config):
        await settled(config)
    await check_exact(config, market)


async def test_a_second_worker_joins_leaves_and_freezes(config: Config) -> None:
    market = Market(Random(5))
    feeding = asyncio.create_task(publish(config, market.values(3500), pause_s=0.1))
    async with worker(config) as first:
        await first.holds()
        async with worker(config) as second:
            await second.holds()
            await asyncio.sleep(2)
            second.send(signal.SIGTERM)
            assert await second.end() == 0
        async with worker(config) as third:
            await third.holds()
            third.send(signal.SIGSTOP)
            await asyncio.sleep(9)  # longer than the session: its partitions are taken over
            third.send(signal.SIGCONT)
            await feeding
            await publish(config, market.rest())
            await settled(config)
            assert first.process.returncode is None
    await check_exact(config, market)


async def test_a_zombie_is_fenced_and_commits_nothing(config: Config) -> None:
    market = Market(Random(9))
    await publish(config, market.values(50))
    zombie, heir = Partition(config, 0), Partition(config, 0)
    await zombie.open()
    try:
        await take_in(config, zombie)
        await heir.open()
        with pytest.raises(aiokafka.errors.ProducerFenced):
            await zombie.begin_commit()
        await take_in(config, heir)
        await heir.begin_commit()
        assert heir.committed == zombie.kernel.position
    finally:
        await zombie.close()
        await heir.close()
    trades = (await read_all(config, TRADES))[0]
    assert trades
    assert len(set(trades)) == len(trades)


async def take_in(config: Config, partition: Partition) -> None:
    consumer = batch_consumer(config.kafka, "test")
    await consumer.start()
    try:
        consumer.assign([partition.ingest])
        await consumer.seek_to_beginning(partition.ingest)
        end = (await consumer.end_offsets([partition.ingest]))[partition.ingest]
        while partition.kernel.position < end:
            found = await consumer.getmany(partition.ingest, timeout_ms=200)
            for batch in found.get(partition.ingest, []):
                partition.process(batch)
    finally:
        await consumer.stop()


async def test_state_that_is_split_by_symbol_is_read_back_whole(config: Config) -> None:
    config = replace(config, processor=replace(config.processor, state_record_bytes_max=2000))
    market = Market(Random(3))
    await publish(config, market.values(400))
    before, after = Partition(config, 1), Partition(config, 1)
    await before.open()
    try:
        await take_in(config, before)
        await before.begin_commit()
        await after.open()
        assert after.committed == before.kernel.position > 0
        assert {k: s.live for k, s in after.kernel.symbols.items()}.keys() == {
            k: s.live for k, s in before.kernel.symbols.items()
        }.keys()
        for key, symbol in before.kernel.symbols.items():
            assert after.kernel.symbols[key].live.windows == symbol.live.windows
    finally:
        await before.close()
        await after.close()


async def test_too_many_dead_letters_stop_the_worker_with_an_error(config: Config) -> None:
    key = message_key("binance", "BTC/USDT")
    await publish(config, [(key, b"rubbish")] * 150)
    async with worker(config) as only:
        assert await only.end(within_s=60) not in (0, None)


async def test_audits_hold_our_candles_against_the_exchanges(config: Config) -> None:
    key = message_key("binance", "BTC/USDT")
    trades = [
        Trade(
            exchange="binance",
            symbol="BTC/USDT",
            trade_id=str(number),
            price="10.0",
            amount="1",
            side="buy",
            trade_time_us=START_US + number * 30_000_000,
            receive_time_us=START_US,
        )
        for number in range(8)
    ]
    theirs = [
        Candle(
            exchange="binance",
            symbol="BTC/USDT",
            timeframe="1m",
            open_time_us=START_US + number * 60_000_000,
            open="10",
            high="10.00",
            low="10",
            close="10",
            volume=volume,
            quote_volume="20",
            buy_volume=None,
            trade_count=2,
            first_trade_id=None,
            last_trade_id=None,
            revision=0,
            source="exchange",
            coverage="exchange",
        )
        for number, volume in ((1, "2.0"), (2, "3.0"))
    ]
    await publish(config, [(key, encode(event)) for event in (*trades, *theirs)])
    async with worker(config):
        async with asyncio.timeout(60):
            found: list[Any] = []
            while len(found) < 2:
                await asyncio.sleep(0.5)
                audits = await read_all(config, AUDITS)
                found = [decode_event(v) for records in audits.values() for _, v in records]
    results = {(a.open_time_us - START_US) // 60_000_000: a for a in found}
    assert results[1].result == "equal"
    assert results[2].result == "different"
    assert json.loads(encode(results[2]))["differences"] == [
        {"field": "volume", "ours": "2", "exchange": "3.0"}
    ]
