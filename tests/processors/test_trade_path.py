"""The trade path on a real Kafka: exact, fenced, restored; exit codes tell why it ends.

Kills, joins, leaves and freezes under load: tests/faults/test_processor_rebalances.py.
"""

import asyncio
import json
import signal
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import aiokafka
import pytest

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.config import Config, KafkaConfig, ProcessorConfig
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.batches import encoded_consumer
from alpha_pulse.contracts.topics import AUDITS, TRADES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import StateRecord, StateWriter
from alpha_pulse.processors.worker.partition import Partition
from tests.patience import PATIENCE_S
from tests.processors.workers import (
    PARTITIONS,
    START_US,
    Market,
    check_exact,
    publish,
    read_all,
    settled,
    worker,
)


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


async def test_a_worker_processes_what_is_there_and_exits_0_on_sigterm(config: Config) -> None:
    market = Market(Random(1))
    await publish(config, [*market.values(300), *market.rest()])
    async with worker(config) as only:
        await settled(config)
        only.send(signal.SIGTERM)
        assert await only.end() == 0
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
    consumer = encoded_consumer(config.kafka, "test")
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


def whole_state(kernel: Kernel) -> list[StateRecord]:
    kernel.bring_all_back()
    kernel.dirty.update(kernel.symbols)
    return StateWriter(10**9).snapshot(kernel)


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
        assert len(before.kernel.symbols) > 1
        assert whole_state(after.kernel) == whole_state(before.kernel)
    finally:
        await before.close()
        await after.close()


async def test_too_many_dead_letters_stop_the_worker_with_an_error(config: Config) -> None:
    key = message_key("binance", "BTC/USDT")
    await publish(config, [(key, b"rubbish")] * 150)
    async with worker(config) as only:
        assert await only.end() not in (0, None)


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
        async with asyncio.timeout(PATIENCE_S):
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
