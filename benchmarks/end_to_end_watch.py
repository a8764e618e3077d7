"""When a record became visible: followed at both ends while a run goes on.

What is seen is seen late, never early: a trade counts as visible in a topic once a consumer has
read it, and in ClickHouse once a query has answered with it.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.topics import CANDLES, TRADES
from alpha_pulse.sinks.clickhouse.client import ClickHouse

TIMEFRAME = "1m"
TABLES = {TRADES: "trades_log", CANDLES[TIMEFRAME]: "candles_log"}
# Asking costs ClickHouse 2 ms and more each time, as much as an insert: not too often.
POLL_S = {"trades_log": 0.1, "candles_log": 0.25}
LAG_POLL_S = 1.0
START_S_MAX = 180.0
# Latencies are taken of at most so many trades of a run, chosen by a hash of their ids.
SAMPLE_MAX = 200_000


@dataclass
class Line:
    """When the offsets before which all is visible were seen: one partition at one place."""

    ends: list[int] = field(default_factory=list)
    times_us: list[int] = field(default_factory=list)

    def note(self, end: int) -> None:
        """Note that every offset before `end` is visible by now."""
        if not self.ends or end > self.ends[-1]:
            self.ends.append(end)
            self.times_us.append(time.time_ns() // 1000)

    def seen_us(self, offset: int) -> int | None:
        """Return when an offset was seen first; None when it was not."""
        place = bisect_left(self.ends, offset + 1)
        return self.times_us[place] if place < len(self.times_us) else None


class Watch:
    """Looks at both ends, from its start on."""

    def __init__(self, config: Config, clickhouse: ClickHouse) -> None:
        self._config = config
        self._clickhouse = clickhouse
        self._tables = {t.full_name(config.namespace): table for t, table in TABLES.items()}
        self._topics: dict[tuple[str, int], Line] = {}
        self._stored: dict[tuple[str, int], Line] = {}
        self._lags: list[tuple[int, float]] = []  # Unix µs, age of the newest visible trade in s

    async def follow_topics(self) -> None:
        """Note what a consumer of the market topics has read, as soon as it has."""
        consumer = batch_consumer(self._config.kafka, "bench-watch", group_id=None)
        partitions = [
            TopicPartition(topic, number)
            for topic in self._tables
            for number in range(self._config.topics.partitions)
        ]
        consumer.assign(partitions)
        await consumer.start()
        try:
            await consumer.seek_to_beginning(*partitions)
            while True:
                for where, batches in (await consumer.getmany(timeout_ms=100)).items():
                    line = self._topics.setdefault((where.topic, where.partition), Line())
                    line.note(batches[-1].next_offset)
        finally:
            await consumer.stop()

    async def follow_tables(self) -> None:
        """Note what a query has answered with, asked again and again; a projection answers."""
        await asyncio.gather(*(self._follow_table(*each) for each in self._tables.items()))

    async def _follow_table(self, topic: str, table: str) -> None:
        sql = (
            f"SELECT k_partition, max(k_offset) + 1 FROM {self._config.database}.{table} "
            f"WHERE k_topic = '{topic}' GROUP BY k_topic, k_partition SETTINGS max_threads = 1"
        )
        while True:
            started_s = time.monotonic()
            for partition, end in await self._clickhouse.rows(sql):
                self._stored.setdefault((topic, partition), Line()).note(end)
            await asyncio.sleep(max(0.0, started_s + POLL_S[table] - time.monotonic()))

    async def follow_newest(self) -> None:
        """Note the age of the newest trade that is visible."""
        table = f"{self._config.database}.trades_log"
        sql = f"SELECT toUnixTimestamp64Micro(max(trade_time)) FROM {table} SETTINGS max_threads=1"
        while True:
            ((newest,),) = await self._clickhouse.rows(sql)
            now_us = time.time_ns() // 1000
            self._lags.append((now_us, (now_us - newest) / 1e6))
            await asyncio.sleep(LAG_POLL_S)

    async def all_symbols(self, symbols: int, died: "asyncio.Task[Any]") -> None:
        """Return once trades of every symbol are stored."""
        topic = TRADES.full_name(self._config.namespace)
        sql = (
            f"SELECT uniqExact(symbol) FROM {self._config.database}.trades_log "
            f"WHERE k_topic = '{topic}'"
        )
        async with asyncio.timeout(START_S_MAX):
            while (await self._clickhouse.rows(sql))[0][0] < symbols:
                if died.done():
                    raise died.result()
                await asyncio.sleep(0.5)

    def lags(self, from_us: int, until_us: int) -> dict[str, float]:
        """Return the median age of the newest visible trade in the first and last third."""
        lags = [lag for at_us, lag in self._lags if from_us <= at_us <= until_us]
        third = max(1, len(lags) // 3)
        first, last = sorted(lags[:third]), sorted(lags[-third:])
        return {
            "first_third": round(first[len(first) // 2], 2),
            "last_third": round(last[len(last) // 2], 2),
            "largest": round(max(lags), 2),
        }

    async def figures(self, from_us: int, until_us: int) -> dict[str, Any]:
        """Return the latencies of what happened in a span of time, in milliseconds."""
        d = self._config.database
        topic = TRADES.full_name(self._config.namespace)
        within = (
            f"FROM {d}.trades_log WHERE k_topic = '{topic}' "
            f"AND trade_time >= fromUnixTimestamp64Micro({from_us}, 'UTC') "
            f"AND trade_time < fromUnixTimestamp64Micro({until_us}, 'UTC')"
        )
        ((count,),) = await self._clickhouse.rows(f"SELECT count() {within}")
        trades = await self._clickhouse.rows(
            "SELECT k_topic, k_partition, k_offset, toUnixTimestamp64Micro(trade_time), "
            f"toUnixTimestamp64Micro(receive_time) {within} "
            f"AND cityHash64(symbol, trade_id) % {1 + count // SAMPLE_MAX} = 0"
        )
        grace_us = int(self._config.processor.grace_s * 1e6)
        candles = await self._clickhouse.rows(
            f"SELECT k_topic, k_partition, min(k_offset), due FROM (SELECT *, "
            f"toUnixTimestamp64Micro(open_time) + {MINUTE_US + grace_us} AS due "
            f"FROM {d}.candles_log WHERE timeframe = '{TIMEFRAME}' "
            f"AND due >= {from_us} AND due < {until_us}) "
            f"GROUP BY k_topic, k_partition, symbol, due"
        )
        return {
            "trades": count,
            "trade_received_ms": percentiles([row[4] - row[3] for row in trades]),
            "trade_in_topic_ms": percentiles(self._waited(self._topics, trades)),
            "trade_in_clickhouse_ms": percentiles(self._waited(self._stored, trades)),
            "candles": len(candles),
            "candle_in_topic_ms": percentiles(self._waited(self._topics, candles)),
            "candle_in_clickhouse_ms": percentiles(self._waited(self._stored, candles)),
        }

    @staticmethod
    def _waited(lines: dict[tuple[str, int], Line], rows: Sequence[Sequence[Any]]) -> list[int]:
        waited = []
        for topic, partition, offset, since_us, *_ in rows:
            line = lines.get((topic, partition))
            seen_us = line.seen_us(offset) if line else None
            if seen_us is not None:
                waited.append(seen_us - since_us)
        return waited


@asynccontextmanager
async def watching(config: Config, clickhouse: ClickHouse) -> AsyncIterator[Watch]:
    """Watch topics and tables while the block runs."""
    watch = Watch(config, clickhouse)
    tasks = [
        asyncio.create_task(work)
        for work in (watch.follow_topics(), watch.follow_tables(), watch.follow_newest())
    ]
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def percentiles(values_us: list[int]) -> dict[str, float]:
    """Return p50, p99 and the largest, in milliseconds."""
    if not values_us:
        return {}
    ordered = sorted(values_us)
    last = len(ordered) - 1
    chosen = {"p50": last // 2, "p99": int(last * 0.99), "max": last}
    return {name: round(ordered[place] / 1000, 1) for name, place in chosen.items()}
