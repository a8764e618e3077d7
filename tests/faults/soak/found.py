"""What Kafka and ClickHouse hold after a soak, symbol by symbol."""

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from aiokafka import TopicPartition
from clickhouse_connect.driver.client import Client

from alpha_pulse.contracts.codec import EventDecoder
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.replay.verdict import StoredCandle, StoredTrade

_decode: EventDecoder[Trade] = EventDecoder(Trade)


async def read_kafka(config: Config) -> dict[str, list[StoredTrade]]:
    """Return every committed record of `market.trades.v1` by symbol, in the order of offsets."""
    found: dict[str, list[StoredTrade]] = defaultdict(list)
    name = TRADES.full_name(config.namespace)
    consumer = batch_consumer(config.kafka, "soak-oracle", fetch_bytes_max=8 * 2**20)
    await consumer.start()
    try:
        partitions = [TopicPartition(name, n) for n in range(config.topics.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        while [tp for tp in partitions if await consumer.position(tp) < ends[tp]]:
            for batches in (await consumer.getmany(timeout_ms=200)).values():
                for value in (value for batch in batches for value in batch.values if value):
                    trade = _decode(value)
                    found[trade.symbol].append(
                        StoredTrade(
                            trade.trade_id,
                            trade.trade_time_us,
                            Decimal(trade.price),
                            Decimal(trade.amount),
                            str(trade.side),
                        )
                    )
    finally:
        await consumer.stop()
    return found


def read_trades_of(client: Client, database: str, symbol: str) -> list[StoredTrade]:
    """Return every identity of a symbol in the `trades` view."""
    rows = _rows(
        client,
        "SELECT trade_id, toUnixTimestamp64Micro(trade_time), price, amount, toString(side) "
        "FROM {database:Identifier}.trades WHERE symbol = {symbol:String}",
        database,
        symbol,
    )
    return [StoredTrade(*row) for row in rows]


def read_candles_of(client: Client, database: str, symbol: str) -> list[StoredCandle]:
    """Return the newest revision of every window of a symbol."""
    rows = _rows(
        client,
        "SELECT timeframe, toUnixTimestamp64Micro(open_time), open, high, low, close, volume, "
        "quote_volume, buy_volume, trade_count, first_trade_id, last_trade_id, toString(source), "
        "toString(coverage) FROM {database:Identifier}.candles WHERE symbol = {symbol:String}",
        database,
        symbol,
    )
    return [StoredCandle(*row) for row in rows]


def read_gaps(client: Client, database: str) -> dict[str, list[tuple[int, int]]]:
    """Return the gaps that were not filled, by symbol, as inclusive ranges of ids."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    rows = _rows(
        client,
        "SELECT symbol, toInt64(first_trade_id), toInt64(last_trade_id) FROM "
        "{database:Identifier}.gaps WHERE status != 'filled' AND first_trade_id IS NOT NULL",
        database,
    )
    for symbol, first, last in rows:
        found[symbol].append((first, last))
    return found


def count_by(client: Client, database: str, table: str, column: str) -> dict[str, int]:
    """Return how many rows a table has of each value of a column."""
    rows = client.query(
        "SELECT toString({column:Identifier}), count() FROM "
        "{database:Identifier}.{table:Identifier} GROUP BY 1 ORDER BY 1",
        parameters={"database": database, "table": table, "column": column},
    ).result_rows
    return {value: count for value, count in rows}


def unseen(client: Client, database: str, wanted: dict[str, range]) -> int:
    """Return how many trades are neither stored nor in a gap that is recorded, quickly."""
    stored = {
        symbol: client.query(
            "SELECT uniqExact(trade_id) FROM {database:Identifier}.trades_log WHERE "
            "symbol = {symbol:String} AND toInt64(trade_id) >= {first:Int64} "
            "AND toInt64(trade_id) < {end:Int64}",
            parameters={
                "database": database,
                "symbol": symbol,
                "first": ids.start,
                "end": ids.stop,
            },
        ).result_rows[0][0]
        for symbol, ids in wanted.items()
    }
    gaps = read_gaps(client, database)
    return sum(
        max(0, len(ids) - stored[symbol] - _covered(gaps.get(symbol, ()), ids))
        for symbol, ids in wanted.items()
    )


def newest_minutes(client: Client, database: str) -> dict[str, int]:
    """Return when the newest closed 1m candle of each symbol opens, Unix µs."""
    return dict(
        client.query(
            "SELECT symbol, toUnixTimestamp64Micro(max(open_time)) "
            "FROM {database:Identifier}.candles_log WHERE timeframe = '1m' GROUP BY symbol",
            parameters={"database": database},
        ).result_rows
    )


def _covered(gaps: Sequence[tuple[int, int]], ids: range) -> int:
    return sum(max(0, min(last + 1, ids.stop) - max(first, ids.start)) for first, last in gaps)


def _rows(client: Client, sql: str, database: str, symbol: str = "") -> Sequence[Any]:
    parameters = {"database": database, "symbol": symbol}
    rows: Sequence[Any] = client.query(sql, parameters=parameters).result_rows
    return rows
