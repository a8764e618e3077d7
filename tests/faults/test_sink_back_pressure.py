"""ClickHouse away for a while: memory stays bounded, partitions are paused, all is stored later."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import Config, SinkConfig
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from tests.faults.clickhouse_proxy import FullDisk, Proxy
from tests.patience import FULL, PATIENCE_S

TRADE: Any = EXAMPLES[Trade]["binance"]
ROWS = 400_000
AWAY_S = 600.0
# By then the buffers are full many times over: from here on memory is what the limits leave it.
FILLED_S = 60.0
GROWTH_MAX = 1.10


@pytest.fixture
def sink_settings() -> SinkConfig:
    return SinkConfig(
        batch_rows_max=20_000,
        buffered_bytes_max=16 * 2**20,
        progress_interval_s=1.0,
        retry_wait_s_max=0.3,
    )


def rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


async def publish(config: Config) -> None:
    publisher = Publisher(config.kafka, "load")
    await publisher.start()
    topic = TRADES.full_name(config.namespace)
    for first in range(0, ROWS, 1000):
        symbol = f"S{first // 1000 % 8}/USDT"
        values = [
            encode(msgspec.structs.replace(TRADE, symbol=symbol, trade_id=str(first + number)))
            for number in range(1000)
        ]
        await publisher.publish(topic, message_key(TRADE.exchange, symbol), values)
    await publisher.stop()


async def test_memory_is_bounded_while_clickhouse_is_away(
    config: Config,
    clickhouse: ClickHouse,
    proxy: Proxy,
    through: Config,
    new_sink: Callable[[Config], Any],
) -> None:
    full = proxy.before = FullDisk()
    sink = new_sink(through)
    await sink.start()
    await sink.resumed()
    idle_bytes = rss_bytes(sink.process.pid)
    await publish(config)
    async with asyncio.timeout(PATIENCE_S):
        while len(full.refused) < 30:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    # 400,000 trades are about 85 MB: the bound is 16 MB of rows, plus what is read ahead.
    grown_bytes = rss_bytes(sink.process.pid) - idle_bytes
    print(f"idle {idle_bytes >> 20} MiB, grown {grown_bytes >> 20} MiB")
    assert grown_bytes < 110 * 2**20
    proxy.before = None
    sql = f"SELECT count(), uniqExact(k_partition, k_offset) FROM {config.database}.trades_log"
    async with asyncio.timeout(PATIENCE_S):
        while (await clickhouse.rows(sql))[0][0] < ROWS:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert await clickhouse.rows(sql) == [(ROWS, ROWS)]
    assert await sink.terminate() == 0
    assert b"not enough space" in sink.log_path.read_bytes()


@pytest.mark.skipif(not FULL, reason="ten minutes: make faults, or ALPHA_PULSE_FAULTS=full")
@pytest.mark.timeout(1_800)
async def test_ten_minutes_without_clickhouse_under_load_cost_no_memory_and_are_stored_afterwards(
    load: Any,
    stored: Any,
    proxy: Proxy,
    through: Config,
    new_sink: Callable[[Config], Any],
) -> None:
    proxy.before = FullDisk()
    sink = new_sink(through)
    await sink.start()
    await sink.resumed()
    filled_bytes, most_bytes, began_s = 0, 0, time.monotonic()
    async with load.running():
        while (away_s := time.monotonic() - began_s) < AWAY_S:
            most_bytes = max(most_bytes, rss_bytes(sink.process.pid))
            if away_s < FILLED_S:
                filled_bytes = most_bytes
            await asyncio.sleep(1.0)
    assert await stored.rows() == 0
    print(
        f"{load.sent / away_s:.0f} trades/s for {away_s:.0f} s; "
        f"MiB after {FILLED_S:.0f} s: {filled_bytes >> 20}, at most: {most_bytes >> 20}"
    )
    proxy.before = None
    await stored.reaches(load.sent)
    print(f"drained after {time.monotonic() - began_s - away_s:.0f} s")
    assert await sink.terminate() == 0
    assert await stored.figures() == (load.sent, load.sent, load.sent)
    assert most_bytes <= GROWTH_MAX * filled_bytes


async def test_records_deleted_while_a_partition_was_paused_are_recorded_as_lost(
    config: Config,
    clickhouse: ClickHouse,
    proxy: Proxy,
    through: Config,
    new_sink: Callable[[Config], Any],
) -> None:
    kept = 100
    sink = new_sink(through)
    await sink.start()
    await sink.resumed()
    proxy.before = FullDisk()
    await publish(config)
    name = TRADES.full_name(config.namespace)
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "test"))
    await admin.start()
    consumer = AIOKafkaConsumer(**client_arguments(config.kafka, "test"))
    await consumer.start()
    ends = await consumer.end_offsets([TopicPartition(name, number) for number in range(4)])
    await consumer.stop()
    ends = {where: end for where, end in ends.items() if end > kept}
    await admin.delete_records(
        {where: RecordsToDelete(before_offset=end - kept) for where, end in ends.items()}
    )
    await admin.close()
    proxy.before = None
    d = config.database
    stored = f"SELECT count(), uniqExact(k_partition, k_offset) FROM {d}.trades_log"
    lost = f"SELECT sum(last_offset - first_offset + 1) FROM {d}.skipped_offsets"
    async with asyncio.timeout(PATIENCE_S):
        while True:
            rows, missing = (await clickhouse.rows(stored))[0][0], await clickhouse.rows(lost)
            if rows + (missing[0][0] or 0) >= ROWS:
                break
            await asyncio.sleep(0.2)
    assert await sink.terminate() == 0
    (rows, positions), (missing_rows,) = (await clickhouse.rows(stored))[0], missing[0]
    assert rows == positions
    assert rows + missing_rows == ROWS
    assert missing_rows > 0
    assert b"records.lost_to_retention" in sink.log_path.read_bytes()
