"""The schema on the real engine: migrations, checks, comments, retention."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ClickHouseConfig, Config
from alpha_pulse.contracts.errors import ConfigError, StorageError
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.client import ClickHouse, ManyMonths, RowsRefused
from alpha_pulse.sinks.clickhouse.columns import column_comments
from alpha_pulse.sinks.clickhouse.migrate import (
    Migration,
    Schema,
    load_migrations,
    migrate,
)
from alpha_pulse.sinks.clickhouse.statements import placeholders, statements
from alpha_pulse.sinks.clickhouse.tables import log_tables, table_of

TRADE = {
    "event": "trade",
    "exchange": "binance",
    "symbol": "BTC/USDT",
    "trade_id": "1",
    "price": "61837.63000000",
    "amount": "0.00000001",
    "side": "buy",
    "trade_time_us": 1_793_491_200_000_000,
    "receive_time_us": 1_793_491_200_000_500,
}
CANDLE = {
    "event": "candle",
    "exchange": "binance",
    "symbol": "BTC/USDT",
    "timeframe": "1m",
    "open_time_us": 1_793_491_200_000_000,
    "open": "2",
    "high": "4",
    "low": "1",
    "close": "3",
    "volume": "9999999999999999999999999.000000000001",
    "quote_volume": None,
    "buy_volume": None,
    "trade_count": None,
    "first_trade_id": None,
    "last_trade_id": None,
    "revision": 1,
    "source": "trades",
    "coverage": "contiguous",
}


@pytest.fixture
def config(runtime: Runtime, namespace: str) -> Config:
    return Config(namespace=namespace, clickhouse=ClickHouseConfig(url=runtime.clickhouse))


@pytest.fixture
async def clickhouse(config: Config) -> AsyncIterator[ClickHouse]:
    connection = await ClickHouse.connect(config.clickhouse)
    try:
        yield connection
    finally:
        await connection.command(f"DROP DATABASE IF EXISTS {config.database}")
        await connection.close()


async def insert(
    clickhouse: ClickHouse, config: Config, kind: kinds.Kind[Any], *values: bytes
) -> None:
    table = table_of(kind)
    batch = Batch("t", 0, range(len(values)), values, len(values), 0)
    await clickhouse.insert(
        f"{config.database}.{table.name}", table.insert_columns, batch.body(), {}
    )


async def test_several_migrations_at_once_apply_each_file_once(
    config: Config, clickhouse: ClickHouse
) -> None:
    await asyncio.gather(*(migrate(config, clickhouse) for _ in range(4)))
    files = await clickhouse.rows(
        f"SELECT number, count() FROM {config.database}.schema_migrations GROUP BY 1 ORDER BY 1"
    )
    assert files == [(migration.number, 1) for migration in load_migrations()]
    assert await migrate(config, clickhouse) == []


async def test_a_changed_file_is_an_error_that_names_it(
    schema: Config, emptied: ClickHouse
) -> None:
    changed = Schema((replace(load_migrations()[0], text="SELECT 1"), *load_migrations()[1:]))
    with pytest.raises(StorageError, match=r"0001_trades_log\.sql as it was applied"):
        await migrate(schema, emptied, changed)


async def test_a_missing_file_is_an_error_that_names_it(
    schema: Config, emptied: ClickHouse
) -> None:
    name = load_migrations()[-1].name
    with pytest.raises(StorageError, match=f"{name}.*no such file"):
        await migrate(schema, emptied, Schema(tuple(load_migrations()[:-1])))


async def test_a_file_that_failed_half_way_is_applied_again(
    config: Config, clickhouse: ClickHouse
) -> None:
    table = "CREATE TABLE IF NOT EXISTS {{database}}.x (a Int8) ENGINE = {{engine}} ORDER BY a;\n"
    broken = Migration(1, "0001_x.sql", table + "SELECT nonsense_function();\n")
    with pytest.raises(StorageError, match=r"expected to apply 0001_x\.sql"):
        await migrate(config, clickhouse, Schema((broken,)))
    mended = Schema((Migration(1, "0001_x.sql", table),))
    assert await migrate(config, clickhouse, mended) == ["0001_x.sql"]


def test_every_statement_can_be_repeated() -> None:
    for migration in load_migrations():
        for statement in statements(migration.text, placeholders(Config())):
            parts = re.split(r",\n *(?=[A-Z]+ [A-Z]+ )", statement)
            if statement.startswith("ALTER TABLE "):
                parts[0] = re.sub(r"ALTER TABLE \S+\s+", "", parts[0])
            for part in parts:
                assert re.match(
                    r"CREATE TABLE IF NOT EXISTS |CREATE OR REPLACE VIEW |"
                    r"(ADD|DROP|MATERIALIZE) (COLUMN|INDEX|PROJECTION|CONSTRAINT) IF |"
                    r"MODIFY SETTING ",
                    part,
                ), f"{migration.name}: {part[:60]}"


def test_a_cluster_makes_the_tables_replicated() -> None:
    config = Config(clickhouse=ClickHouseConfig(cluster="prod"))
    (statement,) = statements(load_migrations()[0].text, placeholders(config))
    assert "alpha_pulse.trades_log ON CLUSTER prod" in statement
    assert "ENGINE = ReplicatedMergeTree\n" in statement
    assert " replicated_deduplication_window = " in statement


def test_a_database_that_is_no_identifier_is_refused() -> None:
    with pytest.raises(ConfigError, match="letters, digits and _"):
        placeholders(Config(clickhouse=ClickHouseConfig(database="a; DROP TABLE x")))


async def test_every_column_says_what_it_holds_in_the_words_of_the_contracts(
    schema: Config, emptied: ClickHouse
) -> None:
    rows = await emptied.rows(
        "SELECT table, name, comment FROM system.columns WHERE database = {d:String} "
        "AND table IN (SELECT name FROM system.tables WHERE database = {d:String} "
        "AND engine LIKE '%MergeTree')",
        {"d": schema.database},
    )
    comments = {(table, name): comment for table, name, comment in rows}
    assert all(comments.values()), [column for column, text in comments.items() if not text]
    for table in log_tables():
        for column, comment in column_comments(table.columns).items():
            assert comments[table.name, column] == comment
    assert comments["trades_log", "price_dec"] == "quote units per base unit"
    assert comments["trades_log", "trade_time"] == "the exchange's clock, UTC, microseconds"


def test_every_field_of_every_event_is_described() -> None:
    for table in log_tables():
        for column in table.columns:
            words = column.field.replace("_", " ")
            assert column.comment != words, f"{table.name}.{column.field}"


async def test_every_example_of_the_contracts_is_stored(
    schema: Config, emptied: ClickHouse
) -> None:
    for table in log_tables():
        for name, event in EXAMPLES[table.event].items():
            if table.kind is kinds.CANDLE and isinstance(event, Candle) and event.revision == 0:
                event = msgspec.structs.replace(event, revision=1)
            await insert(emptied, schema, table.kind, encode(event))
            rows = await emptied.rows(f"SELECT count() FROM {schema.database}.{table.name}")
            assert rows[0][0] >= 1, name


async def test_numbers_and_times_are_stored_to_the_last_digit(
    schema: Config, emptied: ClickHouse
) -> None:
    await insert(emptied, schema, kinds.TRADE, json.dumps(TRADE).encode())
    await insert(emptied, schema, kinds.CANDLE, json.dumps(CANDLE).encode())
    d = schema.database
    trade = await emptied.rows(
        f"SELECT toString(price), toString(amount), toString(trade_time) FROM {d}.trades"
    )
    assert trade == [("61837.63", "0.00000001", "2026-11-01 00:00:00.000000")]
    candle = await emptied.rows(f"SELECT toString(volume), quote_volume FROM {d}.candles")
    assert candle == [("9999999999999999999999999.000000000001", None)]


async def test_fields_of_a_newer_writer_are_passed_over(
    schema: Config, emptied: ClickHouse
) -> None:
    newer = {**TRADE, "new": {"nested": [1, {"price": "9"}]}, "price_dec": "5"}
    await insert(emptied, schema, kinds.TRADE, json.dumps(newer).encode())
    rows = await emptied.rows(
        f"SELECT k_offset, toString(price_dec) FROM {schema.database}.trades_log"
    )
    assert rows == [(0, "61837.63")]


async def test_a_record_can_not_claim_another_position(schema: Config, emptied: ClickHouse) -> None:
    with pytest.raises(RowsRefused, match="Duplicate field"):
        await insert(emptied, schema, kinds.TRADE, json.dumps({"k_offset": 9, **TRADE}).encode())


BAD_TRADES: dict[str, dict[str, Any]] = {
    "13 fraction digits": {"price": "1.0000000000001"},
    "an exponent": {"price": "1E-8"},
    "a negative price": {"price": "-1"},
    "a price of 0": {"price": "0"},
    "21 integer digits": {"price": "1" * 21},
    "an empty amount": {"amount": ""},
    "a null amount": {"amount": None},
    "an unknown side": {"side": "both"},
    "a time in milliseconds": {"trade_time_us": 1_793_491_200_000},
    "a time after 2099": {"trade_time_us": 4_102_444_800_000_000},
    "a null time": {"trade_time_us": None},
    "an empty symbol": {"symbol": ""},
    "a null trade id": {"trade_id": None},
}


@pytest.mark.parametrize("change", BAD_TRADES.values(), ids=BAD_TRADES)
async def test_the_table_refuses_a_trade_with(
    change: dict[str, Any], schema: Config, emptied: ClickHouse
) -> None:
    good, bad = json.dumps(TRADE).encode(), json.dumps({**TRADE, **change}).encode()
    with pytest.raises(RowsRefused):
        await insert(emptied, schema, kinds.TRADE, good, bad)
    assert await emptied.rows(f"SELECT count() FROM {schema.database}.trades_log") == [(0,)]


async def test_the_table_refuses_a_missing_field(schema: Config, emptied: ClickHouse) -> None:
    for kind, event in ((kinds.TRADE, TRADE), (kinds.CANDLE, CANDLE)):
        for field in table_of(kind).fields:
            if field in ("event", "job"):
                continue
            value = {key: value for key, value in event.items() if key != field}
            with pytest.raises(RowsRefused):
                await insert(emptied, schema, kind, json.dumps(value).encode())


@pytest.mark.parametrize(
    "change",
    [{"high": "0.5"}, {"low": "3.5"}, {"revision": 0}, {"trade_count": -1}, {"coverage": "all"}],
)
async def test_the_table_refuses_a_candle_with(
    change: dict[str, Any], schema: Config, emptied: ClickHouse
) -> None:
    with pytest.raises(RowsRefused):
        await insert(emptied, schema, kinds.CANDLE, json.dumps({**CANDLE, **change}).encode())


@pytest.mark.parametrize(
    "value",
    [b"", b"{}", b"[1]", b"nonsense", b"\xff\xfe", b'{"a":', b'{"exchange":"x"}\n{"symbol":"y"}'],
)
async def test_rubbish_is_refused_and_swallows_no_neighbour(
    value: bytes, schema: Config, emptied: ClickHouse
) -> None:
    good = json.dumps(TRADE).encode()
    for values in ((value, good), (good, value), (good, value, good)):
        with pytest.raises(RowsRefused):
            await insert(emptied, schema, kinds.TRADE, *values)
    assert await emptied.rows(f"SELECT count() FROM {schema.database}.trades_log") == [(0,)]


async def test_one_insert_is_one_part_of_one_month(schema: Config, emptied: ClickHouse) -> None:
    october = json.dumps({**TRADE, "trade_time_us": 1_793_491_199_999_999}).encode()
    november = json.dumps(TRADE).encode()
    with pytest.raises(ManyMonths):
        await insert(emptied, schema, kinds.TRADE, october, november)
    assert await emptied.rows(f"SELECT count() FROM {schema.database}.trades_log") == [(0,)]
    await insert(emptied, schema, kinds.TRADE, *[november] * 120_000)
    parts = await emptied.rows(
        "SELECT rows FROM system.parts WHERE active AND database = {d:String} "
        "AND table = 'trades_log'",
        {"d": schema.database},
    )
    assert parts == [(120_000,)]


async def test_retention_follows_the_settings(config: Config, clickhouse: ClickHouse) -> None:
    await migrate(config, clickhouse)
    short = replace(config, clickhouse=replace(config.clickhouse, events_retention_days=30))
    engine = (
        "SELECT engine_full FROM system.tables WHERE database = {d:String} AND name = {t:String}"
    )
    parameters = {"d": config.database, "t": table_of(kinds.STATUS).name}
    for _ in range(2):
        await migrate(short, clickhouse)
        text = (await clickhouse.rows(engine, parameters))[0][0]
        assert "TTL toDateTime(complete_until) + toIntervalDay(30)" in text
        assert "ttl_only_drop_parts = 1" in text
    await migrate(config, clickhouse)
    assert "TTL" not in (await clickhouse.rows(engine, parameters))[0][0]
