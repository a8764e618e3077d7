"""Every view and every documented query, on the real engine, with values worked out by hand."""

import itertools
import re
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import clickhouse_connect
import msgspec
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.events import Gap, StreamStatus, Trade
from alpha_pulse.contracts.market import TIMEFRAMES, Timeframe
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.client import ClickHouse, connection_arguments
from alpha_pulse.sinks.clickhouse.migrate import load_migrations
from alpha_pulse.sinks.clickhouse.tables import table_of
from tests.integration.market import candle

DOCUMENT = Path(__file__).parents[2] / "docs" / "sql.md"
QUERIES = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
START_US = 1_794_700_800_000_000  # 2026-11-15 00:00:00 UTC, a Sunday
MONDAY_US = START_US + 86_400 * SECOND_US

_offsets = itertools.count()


def trade(number: int, time_us: int, price: str, amount: str = "1", **changes: Any) -> Trade:
    event = Trade(
        exchange="binance",
        symbol="BTC/USDT",
        trade_id=str(number),
        price=price,
        amount=amount,
        side="buy",
        trade_time_us=time_us,
        receive_time_us=time_us + 500,
    )
    return msgspec.structs.replace(event, **changes)


class Database:
    """A migrated database, and a client that queries it."""

    def __init__(self, config: Config, clickhouse: ClickHouse, client: Any) -> None:
        self.config = config
        self.clickhouse = clickhouse
        self.client = client

    async def insert(self, kind: kinds.Kind[Any], *events: msgspec.Struct) -> None:
        table = table_of(kind)
        values = [encode(event) for event in events]
        offsets = [next(_offsets) for _ in values]
        await self.clickhouse.insert(
            f"{self.config.database}.{table.name}",
            table.insert_columns,
            Batch("t", 0, offsets, values, 0, 0).body(),
            {},
        )

    async def rows(self, sql: str) -> list[Sequence[Any]]:
        result = await self.client.query(sql)
        rows: list[Sequence[Any]] = result.result_rows
        return rows


@pytest.fixture
async def database(schema: Config, emptied: ClickHouse) -> AsyncIterator[Database]:
    arguments = {**connection_arguments(schema.clickhouse), "database": schema.database}
    client = await clickhouse_connect.create_async_client(**arguments)
    try:
        yield Database(schema, emptied, client)
    finally:
        await client.close()


async def test_every_documented_query_runs(database: Database) -> None:
    assert len(QUERIES) > 15
    for query in QUERIES:
        await database.rows(query)


def test_every_view_is_documented_and_has_a_query() -> None:
    names = [
        name
        for migration in load_migrations()
        for name in re.findall(r"CREATE OR REPLACE VIEW \{\{database\}\}\.(\w+)", migration.text)
    ]
    assert len(names) >= 13
    text = "\n".join(QUERIES)
    for name in names:
        assert f"| `{name}" in DOCUMENT.read_text(), name
        assert re.search(rf"\b{name}\b", text) or name == "exchange_candles", name


async def test_a_trade_that_came_twice_is_shown_once(database: Database) -> None:
    first, second = trade(1, START_US, "10"), trade(2, START_US, "11")
    await database.insert(kinds.TRADE, first, second, first)
    await database.insert(kinds.TRADE, first)
    assert await database.rows("SELECT trade_id, price FROM trades ORDER BY trade_id") == [
        ("1", Decimal(10)),
        ("2", Decimal(11)),
    ]


async def test_the_newest_revision_of_a_candle_stands(database: Database) -> None:
    await database.insert(kinds.CANDLE, candle(START_US, "7", 3), candle(START_US, "6", 2))
    await database.insert(kinds.CANDLE, candle(START_US, "8", 9))
    await database.insert(kinds.CANDLE, candle(START_US, "5", 1))
    assert await database.rows("SELECT close, revision FROM candles") == [(Decimal(8), 9)]
    # A filter on a value sees the newest revision only.
    assert await database.rows("SELECT close FROM candles WHERE close < 8") == []
    assert await database.rows("SELECT close, revision FROM latest_candles") == [(Decimal(8), 9)]


async def test_the_audit_holds_each_field_against_the_exchanges(database: Database) -> None:
    same, other, alone = (START_US + number * MINUTE_US for number in range(3))
    await database.insert(
        kinds.CANDLE,
        candle(same, "8"),
        candle(other, "8"),
        candle(other, "9", 2),
        candle(alone, "7"),
    )
    unknown: dict[str, Any] = {"quote_volume": None, "trade_count": None, "source": "exchange"}
    await database.insert(
        kinds.EXCHANGE_CANDLE,
        candle(same, "8", 0, **unknown),
        candle(other, "8.5", 0, volume="2.500000000001"),
    )
    rows = await database.rows(
        "SELECT open_time, equal, close_difference, volume_difference, quote_volume_difference "
        "FROM candle_audit ORDER BY open_time"
    )
    assert [row[1:] for row in rows] == [
        (True, Decimal(0), Decimal(0), None),
        (False, Decimal("0.5"), Decimal("-0.000000000001"), Decimal(0)),
    ]


async def test_the_audit_of_a_day_reads_both_sides_in_the_order_of_time(
    database: Database,
) -> None:
    # In two months and several parts, so that the day is a slice of what is there.
    for revision in (1, 2):
        for day in (0, 1, 20):
            candles = [
                candle(START_US + (day * 1440 + minute) * MINUTE_US, "8", revision, symbol=symbol)
                for minute in range(100)
                for symbol in ("BTC/USDT", "ETH/USDT")
            ]
            for kind in (kinds.CANDLE, kinds.EXCHANGE_CANDLE):
                await database.insert(kind, *candles)
    audit = (
        "SELECT symbol, open_time, revision, equal FROM candle_audit WHERE exchange = 'binance' "
        "AND timeframe = '1m' AND open_time >= '2026-11-16' AND open_time < '2026-11-17'"
    )
    plan = "\n".join(str(row[0]) for row in await database.rows(f"EXPLAIN {audit}"))
    assert plan.count("ReadFromMergeTree (p_time)") == 2, plan
    rows = await database.rows(audit)
    assert len(rows) == 200
    assert {row[2:] for row in rows} == {(2, True)}


async def test_the_latest_trade_is_the_last_by_time_and_then_by_number(database: Database) -> None:
    last_us = START_US + 5
    await database.insert(
        kinds.TRADE,
        trade(9, last_us, "1"),
        trade(10, last_us, "2"),
        trade(11, START_US, "3"),
    )
    assert await database.rows("SELECT trade_id, price, side FROM latest") == [
        ("10", Decimal(2), "buy")
    ]


async def test_what_projections_tell_is_the_same_before_between_and_after_merges(
    database: Database,
) -> None:
    # Those of trades are made when parts are merged; a query meets parts with and without.
    name = f"{database.config.database}.trades_log"
    made = (
        "SELECT name, sum(parent_rows) FROM system.projection_parts WHERE active AND "
        f"database = '{database.config.database}' AND table = 'trades_log' "
        "GROUP BY name ORDER BY name"
    )
    answers = []
    for number in range(4):
        await database.insert(
            kinds.TRADE,
            *(trade(number * 100 + n, START_US + number * 100 + n, "7") for n in range(9)),
        )
        latest = await database.rows("SELECT trade_id, trade_time FROM latest")
        offsets = await database.rows(
            "SELECT k_topic, k_partition, max(k_offset) - min(k_offset), count() FROM trades_log "
            "GROUP BY k_topic, k_partition"
        )
        answers.append((latest[0][0], offsets))
        if number == 1:
            assert await database.rows(made) == []
            await database.clickhouse.command(f"OPTIMIZE TABLE {name} FINAL")
            assert await database.rows(made) == [("p_latest", 18), ("p_offsets", 18)]
    assert [latest for latest, _ in answers] == ["8", "108", "208", "308"]
    assert [offsets for _, offsets in answers] == [
        [("t", 0, 9 * (number + 1) - 1, 9 * (number + 1))] for number in range(4)
    ]


async def test_freshness_tells_ages_also_of_a_symbol_without_trades(database: Database) -> None:
    await database.insert(kinds.TRADE, trade(1, START_US, "1"))
    await database.insert(
        kinds.CANDLE, candle(START_US, "8"), candle(START_US, "8", symbol="ETH/USDT")
    )
    rows = await database.rows(
        "SELECT symbol, last_trade_time IS NULL, trade_age_s IS NULL, "
        "trade_age_s - candle_age_s FROM freshness ORDER BY symbol"
    )
    assert [row[:3] for row in rows] == [("BTC/USDT", 0, 0), ("ETH/USDT", 1, 1)]
    assert rows[0][3] == pytest.approx(60, abs=0.1)


async def test_a_gap_shows_its_newest_state(database: Database) -> None:
    gap = Gap(
        exchange="binance",
        symbol="BTC/USDT",
        first_trade_id="5",
        last_trade_id="9",
        start_time_us=START_US,
        end_time_us=START_US + 2_500_000,
        status="open",
        reason="hole in the stream",
        revision=4,
    )
    other = msgspec.structs.replace(gap, first_trade_id=None, last_trade_id=None)
    filled = msgspec.structs.replace(gap, status="filled", revision=6)
    await database.insert(kinds.GAP, filled, gap, other)
    rows = await database.rows("SELECT first_trade_id, status, length_s FROM gaps ORDER BY status")
    assert rows == [(None, "open", 2.5), ("5", "filled", 2.5)]


async def test_the_status_is_the_newest_one(database: Database) -> None:
    status = StreamStatus(
        exchange="binance",
        symbol="BTC/USDT",
        state="disconnected",
        complete_until_us=START_US,
        last_trade_time_us=None,
        last_trade_id=None,
        revision=2,
    )
    live = msgspec.structs.replace(status, state="live", revision=5)
    await database.insert(kinds.STATUS, live, status)
    assert await database.rows("SELECT state, last_trade_id FROM status") == [("live", None)]


def ohlc(view: str, interval_s: int, **more: str) -> str:
    parameters = {
        "exchange": "binance",
        "symbol": "BTC/USDT",
        **more,
        "start": "2026-11-01 00:00:00",
        "end": "2026-12-01 00:00:00",
    }
    values = ", ".join(f"{name} = '{value}'" for name, value in parameters.items())
    return f"SELECT * FROM {view}(interval_s = {interval_s}, {values})"


async def test_candles_of_any_length_from_trades_are_exact(database: Database) -> None:
    window_us = 90 * SECOND_US
    await database.insert(
        kinds.TRADE,
        trade(10, START_US, "10.000000000001", "0.5"),
        trade(9, START_US, "10.5", "1"),  # the same time: id 9 comes first
        trade(11, START_US + window_us - 1, "30", "0.000000000001", side="sell"),
        trade(12, START_US + window_us, "7", "2", side="unknown"),
        trade(12, START_US + window_us, "7", "2", side="unknown"),
    )
    rows = await database.rows(ohlc("ohlc_from_trades", 90))
    assert [row[1:] for row in rows] == [
        (
            Decimal("10.5"),
            Decimal(30),
            Decimal("10.000000000001"),
            Decimal(30),
            Decimal("1.500000000001"),
            # 5.0000000000005 + 10.5 + 0.00000000003, half to even at the twelfth digit
            Decimal("15.500000000030"),
            Decimal("1.5"),
            3,
        ),
        (Decimal(7), Decimal(7), Decimal(7), Decimal(7), Decimal(2), Decimal(14), None, 1),
    ]
    assert rows[1][0].strftime("%F %T") == "2026-11-15 00:01:30"


async def test_candles_of_any_length_from_candles_tell_what_is_missing(database: Database) -> None:
    times = [START_US + number * MINUTE_US for number in (0, 1, 3)]
    await database.insert(
        kinds.CANDLE,
        candle(times[0], "11", open="9"),
        candle(times[1], "12", coverage="partial"),
        candle(times[1], "13", 2, coverage="exchange", quote_volume=None),
        candle(times[2], "14", coverage="unverified", high="99"),
    )
    (row,) = await database.rows(ohlc("ohlc_from_candles", 300, timeframe="1m"))
    assert row[1:] == (
        Decimal(9),
        Decimal(99),
        Decimal(5),
        Decimal(14),
        Decimal("7.5"),
        None,
        Decimal(3),
        12,
        "unverified",
        3,
        5,
    )


@pytest.mark.parametrize("timeframe", TIMEFRAMES.values(), ids=str)
async def test_every_timeframe_of_the_contracts_has_its_length(
    database: Database, timeframe: Timeframe
) -> None:
    open_us = timeframe.open_time_us(START_US)
    await database.insert(kinds.CANDLE, candle(open_us, "11", timeframe=timeframe.name))
    seconds = 4 * timeframe.duration_us // SECOND_US
    query = ohlc("ohlc_from_candles", seconds, timeframe=timeframe.name)
    (row,) = await database.rows(query)
    assert row[-2:] == (1, 4)


@pytest.mark.parametrize("timeframe", ["7m", "", "1M", "1m ", "60"])
async def test_an_unknown_timeframe_is_refused_even_where_nothing_is_stored(
    database: Database, timeframe: str
) -> None:
    with pytest.raises(DatabaseError, match=r"expected a timeframe, one of 1s 1m .* 1d 1w"):
        await database.rows(ohlc("ohlc_from_candles", 300, timeframe=timeframe))


async def test_a_week_starts_on_monday(database: Database) -> None:
    await database.insert(kinds.TRADE, trade(1, MONDAY_US - 1, "1"), trade(2, MONDAY_US, "2"))
    rows = await database.rows(ohlc("ohlc_from_trades", 604_800))
    assert [row[0].strftime("%F") for row in rows] == ["2026-11-09", "2026-11-16"]
