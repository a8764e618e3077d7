"""How long SQL users wait: the views' medians on 5,000,000 trades and 1,500,000 candles.

`python -m benchmarks queries [--runs N] [--symbols N] [--json]`: 200 symbols, their candles of
every timeframe and the exchange's own, stored in many inserts as a sink stores them, one in fifty
candles corrected by a later revision and one in fifty different from the exchange's own. Each
query is asked over HTTP and its result read whole, after one run that does not count; CPU is the
engine's. The answers are checked against what was made up: a fast wrong answer is an error.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpha_pulse.contracts.config import ClickHouseConfig, Config
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.migrate import migrate
from benchmarks.processes import usage_by_role

TRADES = 5_000_000
DAYS = 5  # x 1,440 minutes x 200 symbols: 1,440,000 candles of 1m, 1.5 million with what is longer
INSERTS = 60  # per table, each with every symbol in a span of time of its own
START = "2026-11-09 00:00:00"
DAY = "2026-11-11"
MINUTES_OF = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1440}
SETTINGS = {"max_threads": 2, "max_insert_threads": 1, "max_partitions_per_insert_block": 100}
Rows = list[Sequence[Any]]


@dataclass(frozen=True)
class Question:
    """A query, the median that is aimed at, and what its answer must be."""

    sql: str
    aim_ms: int | None
    is_right: Callable[[Rows, int], bool]  # rows, symbols


OF_DAY = (
    "exchange = 'binance' AND timeframe = '1m' "
    f"AND open_time >= '{DAY} 00:00:00' AND open_time < '{DAY} 00:00:00'::DateTime + 86400"
)
QUESTIONS = {
    "last candle of every symbol": Question(
        "SELECT symbol, open_time, open, high, low, close, volume, coverage FROM latest_candles "
        "WHERE exchange = 'binance' AND timeframe = '1m'",
        20,
        lambda rows, symbols: len(rows) == symbols,
    ),
    "a day of 1m candles": Question(
        f"SELECT open_time, open, high, low, close, volume FROM candles WHERE {OF_DAY} "
        "AND symbol = 'S007/USDT' ORDER BY open_time",
        20,
        lambda rows, _: len(rows) == 1440 and len({row[0] for row in rows}) == 1440,
    ),
    "audit of a day: what differs": Question(
        "SELECT symbol, open_time, coverage, close, exchange_close, close_difference, "
        f"volume_difference, trade_count_difference FROM candle_audit WHERE {OF_DAY} AND NOT equal",
        200,
        lambda rows, symbols: len(rows) == sum(differs(s, DAY_MINUTES) for s in range(symbols)),
    ),
    "audit of a day: how many agree": Question(
        "SELECT symbol, count() AS compared, countIf(equal) AS same "
        f"FROM candle_audit WHERE {OF_DAY} GROUP BY symbol ORDER BY symbol",
        200,
        lambda rows, symbols: (
            [row[1:] for row in rows]
            == [(1440, 1440 - differs(s, DAY_MINUTES)) for s in range(symbols)]
        ),
    ),
    "audit of a day of one symbol": Question(
        "SELECT open_time, close, exchange_close, equal "
        f"FROM candle_audit WHERE {OF_DAY} AND symbol = 'S007/USDT'",
        None,
        lambda rows, _: len(rows) == 1440,
    ),
    "last trade of every symbol": Question(
        "SELECT exchange, symbol, trade_time, price, amount, side FROM latest",
        None,
        lambda rows, symbols: len(rows) == symbols,
    ),
    "freshness": Question(
        "SELECT exchange, symbol, trade_age_s, candle_age_s FROM freshness",
        None,
        lambda rows, symbols: len(rows) == symbols,
    ),
    "the last 100 trades of a symbol": Question(
        "SELECT trade_time, side, price, amount, trade_id FROM trades WHERE exchange = 'binance' "
        "AND symbol = 'S007/USDT' AND trade_time >= '2026-11-13 00:00:00' "
        "ORDER BY trade_time DESC, length(trade_id) DESC, trade_id DESC LIMIT 100",
        None,
        lambda rows, _: len(rows) == 100,
    ),
}
DAY_MINUTES = range(2 * 1440, 3 * 1440)
# What is made up of a minute: m minutes after the start, of symbol s.
CORRECTED = "(m + s) % 50 = 3"
DIFFERENT = "(m + s) % 50 = 17"


def differs(symbol: int, minutes: range) -> int:
    """Return in how many minutes a symbol's candle is not the exchange's own."""
    return sum((minute + symbol) % 50 == 17 for minute in minutes)


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code: 0 when every answer was right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks queries", description=__doc__)
    parser.add_argument("--runs", type=int, default=21, help="of each query; the median counts")
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--trades", type=int, default=TRADES)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="queries-bench-") as directory:
        figures = asyncio.run(_run(options, Path(directory)))
    for name, one in figures["queries"].items():
        print(
            f"{name:32} {one['median_ms']:>7} ms (p90 {one['p90_ms']}, aim {one['aim_ms']}), "
            f"{one['cpu_ms']} ms of CPU"
        )
    if options.json:
        print(json.dumps(figures))
    return 0 if not figures["wrong"] else 1


async def _run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    # No Kafka is needed: a given one is not started.
    start = Runtime.start(directory, kafka="127.0.0.1:1", clickhouse_port=0)
    async with start as runtime:
        config = Config(clickhouse=ClickHouseConfig(url=runtime.clickhouse))
        clickhouse = await ClickHouse.connect(config.clickhouse)
        try:
            await migrate(config, clickhouse)
            await fill(clickhouse, config.database, options.symbols, options.trades)
            stored = await _stored(clickhouse, config.database)
            asked = await ask(clickhouse, config.database, options.symbols, options.runs)
        finally:
            await clickhouse.close()
    return {
        "symbols": options.symbols,
        **stored,
        "queries": asked,
        "wrong": [name for name, one in asked.items() if not one["is_right"]],
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


async def fill(clickhouse: ClickHouse, database: str, symbols: int, trades: int) -> None:
    """Store the candles of both sides and the trades."""
    for table in ("candles_log", "exchange_candles_log"):
        for number in range(INSERTS):
            for corrected in (False, True):
                is_ours = table == "candles_log"
                if is_ours or not corrected:
                    sql = candles_sql(f"{database}.{table}", symbols, number, is_ours, corrected)
                    await clickhouse.command(sql, settings=SETTINGS)
        print(f"{table}: filled", file=sys.stderr)
    for number in range(INSERTS):
        sql = trades_sql(f"{database}.trades_log", symbols, trades, number)
        await clickhouse.command(sql, settings=SETTINGS)
    print("trades_log: filled", file=sys.stderr)
    await _merged(clickhouse, database)


def candles_sql(table: str, symbols: int, number: int, is_ours: bool, corrected: bool) -> str:
    """Return the insert of one span of time: every symbol and timeframe, or the corrections."""
    span = DAYS * 1440 // INSERTS
    timeframes = ", ".join(f"('{name}', {minutes})" for name, minutes in MINUTES_OF.items())
    # A corrected candle was first stored with another close and volume.
    wrong = f"if({CORRECTED} AND {int(is_ours and not corrected)}, 1, 0)"
    different = f"if({DIFFERENT} AND {int(not is_ours)}, toDecimal128('0.01', 12), 0)"
    # Eight random digits, as prices and sums have them: they do not compress well.
    digits = "(toDecimal128(cityHash64(s, m) % 1000000000, 12) / 100000000)"
    base = f"(toDecimal128(100 + s, 12) + {digits})"
    return f"""
        INSERT INTO {table} (exchange, symbol, timeframe, open_time, open_dec, high_dec, low_dec,
            close_dec, volume_dec, quote_volume_dec, buy_volume_dec, trade_count, first_trade_id,
            last_trade_id, revision, source, coverage, k_topic, k_partition, k_offset)
        SELECT 'binance', concat('S', leftPad(toString(s), 3, '0'), '/USDT'), tf.1,
            toDateTime64('{START}', 6, 'UTC') + toIntervalMinute(m), {base},
            {base} + {digits} * 2, {base} - {digits} - 3, {base} + {digits} - {wrong} - {different},
            {digits} * 300 + {wrong} + {different}, {digits} * 40000, {digits} * 140, 50 + m % 7,
            toString(1000000 + m * 50),
            toString(1000049 + m * 50), m * 1000 + s + {1 + corrected}, '{_source(is_ours)}',
            '{_coverage(is_ours)}', 'benchmark', s % 8,
            (m * {symbols} + s) * 20 + indexOf({list(MINUTES_OF)}, tf.1) + {10 * corrected}
        FROM (
            SELECT number % {symbols} AS s, intDiv(number, {symbols}) + {number * span} AS m
            FROM numbers({span * symbols})
        ) ARRAY JOIN [{timeframes}] AS tf
        WHERE m % tf.2 = 0 AND ({int(not corrected)} OR ({CORRECTED}))"""


def _source(is_ours: bool) -> str:
    return "trades" if is_ours else "exchange"


def _coverage(is_ours: bool) -> str:
    return "contiguous" if is_ours else "exchange"


def trades_sql(table: str, symbols: int, trades: int, number: int) -> str:
    """Return the insert of one span of time: trades of every symbol, evenly."""
    rows = trades // INSERTS
    step_us = DAYS * 86_400_000_000 // trades
    return f"""
        INSERT INTO {table} (exchange, symbol, trade_id, side, price_dec, amount_dec, trade_time,
            receive_time, k_topic, k_partition, k_offset)
        SELECT 'binance', concat('S', leftPad(toString(n % {symbols}), 3, '0'), '/USDT'),
            toString(3700000000 + n), if(n % 3 = 0, 'sell', 'buy'),
            toDecimal128(60000 + cityHash64(n) % 100000 / 100, 12),
            toDecimal128(1 + cityHash64(n, 1) % 10000000 / 100000, 12),
            toDateTime64('{START}', 6, 'UTC') + toIntervalMicrosecond(n * {step_us}) AS at,
            at + toIntervalMicrosecond(40000), 'benchmark', n % {symbols} % 8, n
        FROM (SELECT number + {number * rows} AS n FROM numbers({rows}))"""


async def _merged(clickhouse: ClickHouse, database: str) -> None:
    # As on any server that has had a minute of rest; no OPTIMIZE: what runs in the background.
    sql = f"SELECT count() FROM system.merges WHERE database = '{database}'"
    quiet = 0
    while quiet < 10:
        quiet = quiet + 1 if (await clickhouse.rows(sql))[0][0] == 0 else 0
        await asyncio.sleep(0.2)


async def _stored(clickhouse: ClickHouse, database: str) -> dict[str, Any]:
    rows = await clickhouse.rows(
        "SELECT table, sum(rows), count(), sum(bytes_on_disk) FROM system.parts WHERE active AND "
        f"database = '{database}' AND table LIKE '%_log' GROUP BY table ORDER BY table"
    )
    return {
        f"{table.removesuffix('_log')}": {"rows": rows, "parts": parts, "mib": size >> 20}
        for table, rows, parts, size in rows
    }


async def ask(
    clickhouse: ClickHouse, database: str, symbols: int, runs: int
) -> dict[str, dict[str, Any]]:
    """Ask each question so often; return its median and whether each answer was right."""
    asked: dict[str, dict[str, Any]] = {}
    for name, question in QUESTIONS.items():
        took_ms = []
        is_right = True
        sql = in_database(question.sql, database)
        before = usage_by_role()["clickhouse"]
        for _ in range(runs + 1):
            started_s = time.perf_counter()
            rows = await clickhouse.rows(sql)
            took_ms.append((time.perf_counter() - started_s) * 1000)
            is_right = is_right and question.is_right(rows, symbols)
        ordered = sorted(took_ms[1:])
        used_s = usage_by_role()["clickhouse"].cpu_s - before.cpu_s
        asked[name] = {
            "median_ms": round(statistics.median(ordered), 1),
            "p90_ms": round(ordered[int(len(ordered) * 0.9)], 1),
            "cpu_ms": round(used_s * 1000 / (runs + 1), 1),
            "aim_ms": question.aim_ms,
            "is_right": is_right,
        }
    return asked


def in_database(sql: str, database: str) -> str:
    """Return a query with its view named in full."""
    return sql.replace(" FROM ", f" FROM {database}.")
