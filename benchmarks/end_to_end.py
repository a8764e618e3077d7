"""How long from an exchange's frame to a row that SQL sees, all roles on this machine.

`python -m benchmarks end_to_end [--rate N] [--for SECONDS] [--symbols N] [--highest] [--json]`:
replay exchange, producer, processor, sink as processes, embedded Kafka and ClickHouse, default
settings. A trade's time is the exchange's clock, at or before its frame goes out; it is visible in
`market.trades.v1` when a consumer has read it and in ClickHouse when a query has answered with it,
so every figure includes the watching. A closed candle's time is its minute's end plus the grace.
--highest: raises the rate by half from run to run until one is not held.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import uuid
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition

from alpha_pulse.cli.role_processes import role_processes
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    ProducerConfig,
    TopicsConfig,
)
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kafka.batches import batch_consumer
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.contracts.topics import CANDLES, TRADES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.clickhouse import ClickHouse
from alpha_pulse.sinks.migrate import migrate
from benchmarks.processes import usage_by_role

EXCHANGE = Path(__file__).with_name("end_to_end_exchange.py")
TIMEFRAME = "1m"
TABLES = {TRADES: "trades_log", CANDLES[TIMEFRAME]: "candles_log"}
POLL_S = 0.05
START_S_MAX = 120.0
WARM_UP_S = 15.0
# A run is held when the newest visible trade is at most so old at its end.
HELD_LAG_S_MAX = 1.5
STEP = 1.5
STEPS_MAX = 8


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code: 0 when the rate was held."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks end_to_end", description=__doc__)
    parser.add_argument("--rate", type=float, default=5_000.0, help="trades/s over all symbols")
    parser.add_argument("--for", dest="seconds", type=float, default=130.0, help="measured")
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--partitions", type=int, default=TopicsConfig().partitions)
    parser.add_argument("--highest", action="store_true", help="find the highest rate held")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args(arguments)
    runs = asyncio.run(run_all(options))
    held = [run["rate"] for run in runs if run["held"]]
    figures = {**runs[0], "highest_rate_held": max(held, default=None), "runs": runs[1:]}
    if options.json:
        print(json.dumps(figures))
    return 0 if runs[0]["held"] else 1


async def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure at the rate, and with --highest at higher ones until one is not held."""
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="end-to-end-bench-") as directory:
        async with Runtime.start(Path(directory), kafka_port=0, clickhouse_port=0) as runtime:
            rate = options.rate
            for _ in range(STEPS_MAX if options.highest else 1):
                runs.append(await run(runtime, rate, options))
                show(runs[-1])
                if not runs[-1]["held"]:
                    break
                rate *= STEP
    return runs


async def run(runtime: Runtime, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, let it run warm, measure; return the figures."""
    seconds: float = options.seconds
    symbols: int = options.symbols
    names = tuple(f"S{number:03}/USDT" for number in range(symbols))
    config = Config(
        namespace=f"b{uuid.uuid4().hex[:8]}",
        data_dir=str(runtime.data_dir),
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        clickhouse=ClickHouseConfig(url=runtime.clickhouse),
        producer=ProducerConfig(symbols=names),
        topics=TopicsConfig(partitions=options.partitions),
    )
    await ensure_topics(config)
    clickhouse = await ClickHouse.connect(config.clickhouse)
    await migrate(config, clickhouse)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(clickhouse.close)
        url = await stack.enter_async_context(exchange(names, rate))
        config = replace(config, producer=replace(config.producer, exchange_url=url))
        roles = await stack.enter_async_context(
            role_processes(runtime.data_dir / f"logs-{config.namespace}")
        )
        for role in ("sink", "processor", "producer"):
            roles.start(role, role, config)
        watch = await stack.enter_async_context(watching(config, clickhouse))
        died = asyncio.create_task(roles.wait_dead())
        stack.callback(died.cancel)
        await watch.all_symbols(symbols, died)
        await asyncio.sleep(WARM_UP_S)
        usage, from_us = usage_by_role(), time.time_ns() // 1000
        await asyncio.wait([died], timeout=seconds)
        if died.done():
            raise died.result()
        used, until_us = usage_by_role(), time.time_ns() // 1000
        lag_s = (until_us - watch.newest_trade_us) / 1e6
        await asyncio.sleep(5.0)  # what was printed until now may still be on its way
        figures = await watch.figures(from_us, until_us)
    await clickhouse_drop(config)
    elapsed_s = (until_us - from_us) / 1e6
    return {
        "rate": rate,
        "symbols": symbols,
        "partitions": options.partitions,
        "seconds": round(elapsed_s, 1),
        "lag_s_at_end": round(lag_s, 2),
        "held": lag_s <= HELD_LAG_S_MAX,
        **figures,
        "roles": {name: used[name].since(usage[name], elapsed_s) for name in used if name in usage},
        "load": round(os.getloadavg()[0], 1),
    }


async def clickhouse_drop(config: Config) -> None:
    """Remove a run's database, so that the next one meets the same machine."""
    clickhouse = await ClickHouse.connect(config.clickhouse)
    await clickhouse.command(f"DROP DATABASE IF EXISTS {config.database}")
    await clickhouse.close()


@asynccontextmanager
async def exchange(symbols: Sequence[str], rate: float) -> AsyncIterator[str]:
    """Run the exchange in a process of its own; yield its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXCHANGE), ",".join(symbols), str(rate), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


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
        self.newest_trade_us = 0

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
        """Note what a query has answered with, asked again and again."""
        parts = [
            f"SELECT k_topic, k_partition, max(k_offset) + 1 FROM {self._config.database}.{table} "
            f"WHERE k_topic = '{topic}' GROUP BY k_topic, k_partition"
            for topic, table in self._tables.items()
        ]
        while True:
            started_s = time.monotonic()
            for topic, partition, end in await self._clickhouse.rows(" UNION ALL ".join(parts)):
                self._stored.setdefault((topic, partition), Line()).note(end)
            await asyncio.sleep(max(0.0, started_s + POLL_S - time.monotonic()))

    async def follow_newest(self) -> None:
        """Keep the time of the newest trade that is visible."""
        sql = f"SELECT max(trade_time) FROM {self._config.database}.trades_log"
        while True:
            ((newest,),) = await self._clickhouse.rows(f"SELECT toUnixTimestamp64Micro(({sql}))")
            self.newest_trade_us = newest
            await asyncio.sleep(0.25)

    async def all_symbols(self, symbols: int, died: "asyncio.Task[Any]") -> None:
        """Return once trades of every symbol are stored."""
        sql = f"SELECT uniqExact(symbol) FROM {self._config.database}.trades_log"
        async with asyncio.timeout(START_S_MAX):
            while (await self._clickhouse.rows(sql))[0][0] < symbols:
                if died.done():
                    raise died.result()
                await asyncio.sleep(0.2)

    async def figures(self, from_us: int, until_us: int) -> dict[str, Any]:
        """Return the latencies of what happened in a span of time, in milliseconds."""
        d = self._config.database
        trades = await self._clickhouse.rows(
            f"SELECT k_topic, k_partition, k_offset, toUnixTimestamp64Micro(trade_time) AS us, "
            f"toUnixTimestamp64Micro(receive_time) FROM {d}.trades_log "
            f"WHERE us >= {from_us} AND us < {until_us}"
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
            "trades": len(trades),
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


def show(figures: dict[str, Any]) -> None:
    """Print a run on stderr."""
    for name, value in figures.items():
        if name != "roles":
            print(f"{name:26} {value}", file=sys.stderr)
    for name, used in figures["roles"].items():
        print(f"{name:26} {used}", file=sys.stderr)
