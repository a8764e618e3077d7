"""From Kafka into ClickHouse: our sink, ClickHouse's own Kafka engine, row inserts, and the limit.

`python -m benchmarks sinks [--rows N] [--rounds N] [--json]`: every path fills the same tables with
the same CHECKs and projections on one embedded engine, one after the other, from one topic, round
after round. `limit` inserts ready bytes without Kafka: what ClickHouse itself takes. Each path is
watched by the same query, ten times a second, which costs ClickHouse the same. A ratio is made
within each round, where both sides met much the same machine; its median counts, and the smallest
and largest tell how far it can be trusted.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import clickhouse_connect
from aiokafka import TopicPartition

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.codec import EventDecoder, encode
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    TopicsConfig,
    config_environment,
)
from alpha_pulse.contracts.decimals import AMOUNT
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.client import ClickHouse, PassingFault, connection_arguments
from alpha_pulse.sinks.clickhouse.migrate import migrate
from alpha_pulse.sinks.clickhouse.tables import table_of

PARTITIONS = 4
SYMBOLS = 40
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START_US = 1_794_700_800_000_000
BATCH_ROWS = 100_000
POLL_S = 0.1
PATH_S_MAX = 300.0


@dataclass(frozen=True)
class Result:
    """One path. seconds: from when it has its partitions; joining a group counts for nobody.

    cpu_s and rss_mib: of the path's own process; None where the work is inside ClickHouse.
    """

    path: str
    rows: int
    seconds: float
    rows_per_s: int
    cpu_s: float | None = None
    rss_mib: int | None = None


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sinks", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--paths", default=",".join(PATHS), help="some of them only")
    parser.add_argument("--rounds", type=int, default=3, help="each path so often, medians count")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args(arguments)
    names = options.paths.split(",") * options.rounds
    results = asyncio.run(run(options.rows, names))
    rates = {name: statistics.median(rates_of(results, name)) for name in dict.fromkeys(names)}
    kafka_engine, limits = ratios(results, "kafka_engine"), ratios(results, "limit")
    summary = {
        "rows": options.rows,
        "paths": [asdict(result) for result in results],
        "median_rows_per_s": rates,
        "spread_rows_per_s": {name: spread(rates_of(results, name)) for name in rates},
        "times_kafka_engine": median_of(kafka_engine),
        "times_kafka_engine_spread": spread(kafka_engine),
        "share_of_limit": median_of(limits),
        "share_of_limit_spread": spread(limits),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    if options.json:
        print(json.dumps(summary))
    else:
        for result in results:
            print(f"{result.path:14} {result.rows_per_s:>9,} rows/s   {result}")
        print(f"sink / Kafka engine: {summary['times_kafka_engine']} in {spread(kafka_engine)}")
        print(f"sink / limit: {summary['share_of_limit']} in {spread(limits)}")
    return 0


def rates_of(results: list[Result], path: str) -> list[float]:
    """Return the rows per second of a path, round by round."""
    return [one.rows_per_s for one in results if one.path == path]


def ratios(results: list[Result], below: str) -> list[float]:
    """Return our sink's rate over another path's, round by round."""
    pairs = zip(rates_of(results, "sink"), rates_of(results, below), strict=False)
    return [round(ours / other, 2) for ours, other in pairs]


def median_of(values: list[float]) -> float | None:
    """Return the median; None of nothing."""
    return round(statistics.median(values), 2) if values else None


def spread(values: list[float]) -> list[float]:
    """Return the smallest and the largest."""
    return [min(values), max(values)] if values else []


async def run(rows: int, names: list[str]) -> list[Result]:
    """Return the result of each path, on a Kafka and ClickHouse of its own."""
    with tempfile.TemporaryDirectory(prefix="alpha-pulse-bench-") as folder:
        start = Runtime.start(Path(folder), kafka_port=0, clickhouse_port=0)
        async with start as runtime:
            config = Config(
                kafka=KafkaConfig(bootstrap=runtime.kafka),
                clickhouse=ClickHouseConfig(url=runtime.clickhouse),
                topics=TopicsConfig(partitions=PARTITIONS),
            )
            await ensure_topics(config)
            await publish(config, rows)
            results = []
            for number, name in enumerate(names):
                async with database(config, f"{name}_{number}") as (own, clickhouse):
                    result = await PATHS[name](name, own, clickhouse, rows)
                    print(f"{name}: {result.rows_per_s:,} rows/s", file=sys.stderr)
                    results.append(result)
            return results


async def publish(config: Config, rows: int) -> None:
    """Fill the topic of trades."""
    publisher = Publisher(config.kafka, "benchmark")
    await publisher.start()
    topic = TRADES.full_name(config.namespace)
    page = 500
    for first in range(0, rows, page):
        symbol = f"S{first // page % SYMBOLS}/USDT"
        values = [encode(trade(symbol, number)) for number in range(first, first + page)]
        await publisher.publish(topic, message_key("binance", symbol), values)
    await publisher.stop()


def trade(symbol: str, number: int) -> Trade:
    """Return a trade that looks like one of Binance."""
    time_us = START_US + number * 50
    return Trade(
        exchange="binance",
        symbol=symbol,
        trade_id=str(3_700_000_000 + number),
        price=f"{60_000 + number * 7919 % 100_000 / 100:.8f}",
        amount=f"{number * 104_729 % 999_983 / 100_000 + 0.00001:.8f}",
        side="buy" if number % 3 else "sell",
        trade_time_us=time_us,
        receive_time_us=time_us + 40_000,
    )


@asynccontextmanager
async def database(config: Config, name: str) -> AsyncIterator[tuple[Config, ClickHouse]]:
    """A database of its own for a path, dropped after it."""
    own = replace(config, clickhouse=replace(config.clickhouse, database=f"bench_{name}"))
    clickhouse = await ClickHouse.connect(own.clickhouse)
    await migrate(own, clickhouse)
    try:
        yield own, clickhouse
    finally:
        await clickhouse.command(f"DROP DATABASE {own.database} SYNC")
        await clickhouse.close()


async def watch(
    name: str,
    config: Config,
    clickhouse: ClickHouse,
    rows: int,
    is_reading: Callable[[], Coroutine[Any, Any, bool]],
) -> Result:
    """Return when all rows are visible; time runs from when the path has its partitions."""
    sql = f"SELECT count() FROM {config.database}.trades_log"
    seen = 0
    async with asyncio.timeout(PATH_S_MAX):
        while not await is_reading():  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        started_s = time.perf_counter()
        while seen < rows:
            seen = (await clickhouse.rows(sql))[0][0]
            await asyncio.sleep(POLL_S)
    seconds = time.perf_counter() - started_s
    return Result(name, seen, round(seconds, 2), round(seen / seconds))


async def sink(name: str, config: Config, clickhouse: ClickHouse, rows: int) -> Result:
    """Our sink, in a process of its own, as it runs in production."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "alpha_pulse.sinks",
        env={**os.environ, **config_environment(config)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    log = process.stderr

    async def is_reading() -> bool:
        return b"partitions.resumed" in await log.readline()

    try:
        result = await watch(name, config, clickhouse, rows, is_reading)
        return _with_process_figures(result, process.pid)
    finally:
        process.terminate()
        await process.communicate()


def _with_process_figures(result: Result, pid: int) -> Result:
    status = Path(f"/proc/{pid}/status").read_text()
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return replace(result, cpu_s=round(cpu_s, 2), rss_mib=peak_kib // 1024)


async def kafka_engine(name: str, config: Config, clickhouse: ClickHouse, rows: int) -> Result:
    """ClickHouse's own Kafka engine with a materialized view into the same table."""
    d = config.database
    create = f"""CREATE TABLE {d}.queue (exchange String, symbol String, trade_id String,
        price String, amount String, side String, trade_time_us Int64, receive_time_us Int64)
        ENGINE = Kafka SETTINGS kafka_broker_list = '{config.kafka.bootstrap}',
        kafka_topic_list = '{TRADES.full_name(config.namespace)}', kafka_group_name = '{d}',
        kafka_format = 'JSONEachRow', kafka_num_consumers = 1,
        kafka_max_block_size = {BATCH_ROWS}, kafka_flush_interval_ms = 1000"""
    try:
        await clickhouse.command(create)
    except PassingFault as error:
        # The embedded engine says so when its pool for message brokers starts, and goes on: the
        # table is there and reads.
        if "Shutdown was called" not in str(error):
            raise
    pattern = AMOUNT.sql_pattern.replace("{", "{{").replace("}", "}}")
    number = f"if(match({{0}}, '{pattern}'), "
    number += "toDecimal128OrZero({0}, 12), toDecimal128(-1, 12)) AS {0}_dec"
    await clickhouse.command(
        f"""CREATE MATERIALIZED VIEW {d}.queue_view TO {d}.trades_log AS
        SELECT exchange, symbol, trade_id, side, {number.format("price")},
        {number.format("amount")},
        fromUnixTimestamp64Micro(trade_time_us, 'UTC') AS trade_time,
        fromUnixTimestamp64Micro(receive_time_us, 'UTC') AS receive_time,
        _topic AS k_topic, _partition AS k_partition, _offset AS k_offset FROM {d}.queue"""
    )

    async def is_reading() -> bool:
        assigned = await clickhouse.rows(
            "SELECT sum(length(assignments.topic)) FROM system.kafka_consumers "
            f"WHERE database = '{d}'"
        )
        return bool(assigned[0][0])

    try:
        return await watch(name, config, clickhouse, rows, is_reading)
    finally:
        await clickhouse.command(f"DROP TABLE {d}.queue_view SYNC")
        await clickhouse.command(f"DROP TABLE {d}.queue SYNC")


async def row_inserts(name: str, config: Config, clickhouse: ClickHouse, rows: int) -> Result:
    """What most people write: decode each message, insert rows with clickhouse-connect.

    A fifth of the rows only: it is slow.
    """
    rows //= 5
    decode: EventDecoder[Trade] = EventDecoder(Trade)
    client = await clickhouse_connect.create_async_client(**connection_arguments(config.clickhouse))
    consumer = batch_consumer(config.kafka, "benchmark")
    topic = TRADES.full_name(config.namespace)
    consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
    columns = ["exchange", "symbol", "trade_id", "side", "price_dec", "amount_dec", "trade_time"]
    columns += ["receive_time", "k_topic", "k_partition", "k_offset"]
    await consumer.start()

    async def is_reading() -> bool:
        return bool(consumer.assignment())

    watching = asyncio.create_task(watch(name, config, clickhouse, rows, is_reading))
    page: list[tuple[Any, ...]] = []
    started_s = time.process_time()
    read = 0
    while read < rows:
        for where, batches in (await consumer.getmany(timeout_ms=200)).items():
            for batch in batches:
                for offset, value in zip(batch.offsets, batch.values, strict=True):
                    event = decode(value or b"")
                    page.append(_row(event, topic, where.partition, offset))
                read += len(batch.offsets)
        if len(page) >= BATCH_ROWS or read >= rows:
            table = f"{config.database}.trades_log"
            await client.insert(table, page, column_names=columns)
            page = []
    result = await watching
    cpu_s = time.process_time() - started_s
    await consumer.stop()
    await client.close()
    return replace(result, cpu_s=round(cpu_s, 2))


def _row(event: Trade, topic: str, partition: int, offset: int) -> tuple[Any, ...]:
    return (
        event.exchange,
        event.symbol,
        event.trade_id,
        event.side,
        Decimal(event.price),
        Decimal(event.amount),
        EPOCH + timedelta(microseconds=event.trade_time_us),
        EPOCH + timedelta(microseconds=event.receive_time_us),
        topic,
        partition,
        offset,
    )


async def limit(name: str, config: Config, clickhouse: ClickHouse, rows: int) -> Result:
    """Ready bytes without Kafka, two inserts at a time: what ClickHouse itself takes."""
    bodies = []
    for first in range(0, rows, BATCH_ROWS):
        numbers = range(first, min(first + BATCH_ROWS, rows))
        values = [encode(trade(f"S{number // 500 % SYMBOLS}/USDT", number)) for number in numbers]
        partition = first // BATCH_ROWS % PARTITIONS
        bodies.append(Batch("limit", partition, list(numbers), values, 0, 0).body())
    table = f"{config.database}.{table_of(kinds.TRADE).name}"
    slots = asyncio.Semaphore(2)
    took: list[float] = []

    async def insert(body: bytes) -> None:
        async with slots:
            started_s = time.perf_counter()
            await clickhouse.insert(table, table_of(kinds.TRADE).insert_columns, body, {})
            took.append(time.perf_counter() - started_s)

    async def is_reading() -> bool:
        return True

    watching = asyncio.create_task(watch(name, config, clickhouse, rows, is_reading))
    await asyncio.gather(*map(insert, bodies))
    result = await watching
    print(f"limit: median insert {statistics.median(took):.2f} s", file=sys.stderr)
    return result


PATHS: dict[str, Callable[[str, Config, ClickHouse, int], Coroutine[Any, Any, Result]]] = {
    "limit": limit,
    "sink": sink,
    "kafka_engine": kafka_engine,
    "row_inserts": row_inserts,
}
