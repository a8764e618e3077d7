"""Rows that are in the trades table before a run begins: a table that has grown."""

import asyncio
from collections.abc import Sequence

from alpha_pulse.sinks.clickhouse.client import ClickHouse

BLOCK_ROWS = 1_000_000
MERGE_WAIT_S_MAX = 240.0
# The rows end a day before today, and go back a month: as many months as a run of its own has.
SPAN_S = 30 * 86_400
TOPIC = "stored-before"


async def fill(database: str, clickhouse: ClickHouse, symbols: Sequence[str], rows: int) -> None:
    """Store so many trades of the symbols, then wait until ClickHouse has merged what it will."""
    if not rows:
        return
    step_us = SPAN_S * 1_000_000 / rows
    for first in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - first)
        await clickhouse.command(
            f"INSERT INTO {database}.trades_log (exchange, symbol, trade_id, side, price_dec, "
            "amount_dec, trade_time, receive_time, k_topic, k_partition, k_offset) "
            f"SELECT 'binance', concat('S', leftPad(toString(n % {len(symbols)}), 4, '0'), "
            f"'/USDT'), toString(intDiv(n, {len(symbols)}) + 1), if(n % 3 = 0, 'buy', 'sell'), "
            "toDecimal128(60000 + n % 997, 12), toDecimal128(1 + n % 89, 12) / 100, "
            f"fromUnixTimestamp64Micro(toInt64(at + n * {step_us}), 'UTC') AS made, made, "
            f"'{TOPIC}', 0, n FROM (SELECT number + {first} AS n, "
            f"toUnixTimestamp64Micro(toDateTime64(toStartOfDay(now('UTC')), 6, 'UTC')) - "
            f"{(SPAN_S + 86_400) * 1_000_000} AS at FROM numbers({count})) "
            "SETTINGS max_partitions_per_insert_block = 0"
        )
    sql = f"SELECT count() FROM system.merges WHERE database = '{database}'"
    deadline_s = asyncio.get_running_loop().time() + MERGE_WAIT_S_MAX
    while asyncio.get_running_loop().time() < deadline_s:
        if not (await clickhouse.rows(sql))[0][0]:
            return
        await asyncio.sleep(1.0)
