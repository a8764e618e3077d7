"""Log tables and identity views follow from the kinds: on the real engine, old databases too."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from msgspec import Meta

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    SinkConfig,
    TopicsConfig,
)
from alpha_pulse.contracts.events import Event, Price, Revision, TimeUs, Volume
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kinds import KINDS, Kind, Log
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.client import ClickHouse, RowsRefused
from alpha_pulse.sinks.clickhouse.generated import view_name
from alpha_pulse.sinks.clickhouse.migrate import Schema, load_migrations, load_schema, migrate
from alpha_pulse.sinks.clickhouse.tables import log_tables, table_of
from alpha_pulse.sinks.lanes.consumer import Sink
from tests.patience import PATIENCE_S

# What databases of commit 4d9f32e were made by, with the start of each SHA-256. They never change.
FILES_OF_4D9F32E = {
    "0001_trades_log.sql": "2d8a5fd34cfa",
    "0002_candles_log.sql": "93b93cf2b834",
    "0003_exchange_candles_log.sql": "e6b0918d8025",
    "0004_gaps_log.sql": "7fbf6a657166",
    "0005_status_log.sql": "45a319435753",
    "0006_audits_log.sql": "92abd9e54efe",
    "0007_dead_letters_log.sql": "b0ddfe451cba",
    "0008_offsets.sql": "9f5759f2764d",
    "0009_views.sql": "feecf290b37e",
    "0010_ohlc_views.sql": "b91d4538fe3f",
    "0011_candle_audit.sql": "72ec8ef06fcf",
    "0012_candle_audit_by_time.sql": "1a2103d68eec",
    "0013_small_inserts.sql": "7f7541182aae",
}


CONSTRAINT = re.compile(r"CONSTRAINT (\w+) CHECK (.*?)(?=, (?:CON|PRO|IND)|\) ENG)")


@pytest.fixture
def config(runtime: Runtime, namespace: str) -> Config:
    return Config(
        namespace=namespace,
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        clickhouse=ClickHouseConfig(url=runtime.clickhouse),
        topics=TopicsConfig(partitions=1),
        sink=SinkConfig(batch_age_s_max=0.1, progress_interval_s=0.2, retry_wait_s_max=0.2),
    )


@pytest.fixture
def other(config: Config) -> Config:
    return replace(config, namespace=f"{config.namespace}o")


@pytest.fixture
async def clickhouse(config: Config, other: Config) -> AsyncIterator[ClickHouse]:
    connection = await ClickHouse.connect(config.clickhouse)
    try:
        yield connection
    finally:
        for one in (config, other):
            await connection.command(f"DROP DATABASE IF EXISTS {one.database}")
        await connection.close()


offsets = itertools.count()


def old_schema() -> Schema:
    """What 4d9f32e made of an empty database: its files alone."""
    return Schema(tuple(load_migrations()[: len(FILES_OF_4D9F32E)]))


async def facts(clickhouse: ClickHouse, database: str, table: str) -> dict[str, Any]:
    """Return all that ClickHouse says of a table, but for the order of its columns."""
    at = {"d": database, "t": table}
    where = "WHERE database = {d:String} AND table = {t:String}"
    columns = await clickhouse.rows(
        "SELECT name, type, default_kind, default_expression, compression_codec, comment, "
        "is_in_partition_key, is_in_sorting_key, is_in_primary_key, is_in_sampling_key "
        f"FROM system.columns {where} ORDER BY name",
        at,
    )
    ((engine, partition, sorting, primary, full, create),) = await clickhouse.rows(
        "SELECT engine, partition_key, sorting_key, primary_key, engine_full, create_table_query "
        "FROM system.tables WHERE database = {d:String} AND name = {t:String}",
        at,
    )
    return {
        "columns": columns,
        "keys": (engine, partition, sorting, primary),
        "ttl": re.findall(r" TTL (.*?) SETTINGS", full),
        "settings": set(full.split(" SETTINGS ")[1].split(", ")),
        "constraints": dict(CONSTRAINT.findall(create)),
        "projections": await clickhouse.rows(
            f"SELECT name, type, sorting_key, query FROM system.projections {where} ORDER BY name",
            at,
        ),
        "indices": await clickhouse.rows(
            f"SELECT name, type, expr, granularity FROM system.data_skipping_indices {where}", at
        ),
    }


async def view_texts(clickhouse: ClickHouse, database: str) -> dict[str, str]:
    rows = await clickhouse.rows(
        "SELECT name, create_table_query FROM system.tables WHERE database = {d:String} "
        "AND engine = 'View'",
        {"d": database},
    )
    return {name: text.replace(database, "db") for name, text in rows}


def test_the_files_of_databases_that_exist_never_change() -> None:
    files = {migration.name: migration.checksum[:12] for migration in load_migrations()}
    assert FILES_OF_4D9F32E.items() <= files.items()


async def test_a_table_made_from_its_kind_equals_the_one_that_the_files_made(
    config: Config, other: Config, clickhouse: ClickHouse
) -> None:
    schema = load_schema()
    await migrate(config, clickhouse, Schema(schema.migrations))  # the files alone
    await migrate(config, clickhouse)  # comments and views
    await migrate(other, clickhouse)  # the tables from the kinds alone
    for table in log_tables():
        by_files = await facts(clickhouse, config.database, table.name)
        generated = await facts(clickhouse, other.database, table.name)
        assert len(by_files["constraints"]) >= 3, by_files  # the fewest that a kind has
        assert by_files["projections"]
        for fact, value in by_files.items():
            assert generated[fact] == value, f"{fact} of {table.name}"


async def test_the_files_find_their_work_done_on_tables_of_a_start_that_was_cut_short(
    config: Config, other: Config, clickhouse: ClickHouse
) -> None:
    schema = load_schema()
    await migrate(config, clickhouse, Schema((schema.migrations[7],), tables=schema.tables))
    await migrate(config, clickhouse)
    await migrate(other, clickhouse)
    for table in log_tables():
        found = await facts(clickhouse, config.database, table.name)
        assert found == await facts(clickhouse, other.database, table.name)
    views = await view_texts(clickhouse, config.database)
    assert views == await view_texts(clickhouse, other.database)


async def test_a_database_of_4d9f32e_becomes_what_a_new_one_is(
    config: Config, other: Config, clickhouse: ClickHouse
) -> None:
    await migrate(config, clickhouse, old_schema())
    before = await view_texts(clickhouse, config.database)
    kept = {kind.log.table: kind for kind in KINDS if kind.log}
    # A kind that came later has no table yet, and gets one.
    later = kept.keys() - {name[5:-4] for name in FILES_OF_4D9F32E}
    for kind in (kind for name, kind in kept.items() if name not in later):
        for event in EXAMPLES[kind.event].values():
            if kind is kinds.CANDLE:
                event = msgspec.structs.replace(event, revision=1)
            # 4d9f32e inserted as today's sinks do: these columns, in front the position.
            await insert(clickhouse, config, kind, encode(event), first=next(offsets))
    rows = await contents(clickhouse, config, later)
    assert all(rows.values())
    applied = await migrate(config, clickhouse)
    assert await contents(clickhouse, config, later) == rows
    assert "0014_constraints_by_type.sql" in applied
    made = {name.removeprefix("tables/") for name in applied if name.startswith("tables/")}
    assert made == later
    await migrate(other, clickhouse)
    for table in log_tables():
        old = await facts(clickhouse, config.database, table.name)
        assert old == await facts(clickhouse, other.database, table.name)
    views = await view_texts(clickhouse, config.database)
    assert views == await view_texts(clickhouse, other.database)
    # The generated views are among them, and say what the files said.
    assert views.keys() - before.keys() == {
        view_name(table) for table in log_tables() if table.name in later
    }
    changed = {name for name in before if views[name] != before[name]}
    assert changed == {"ohlc_from_candles"}
    assert await migrate(config, clickhouse) == []


async def contents(
    clickhouse: ClickHouse, config: Config, without: set[str]
) -> dict[str, list[Sequence[Any]]]:
    """Return the rows of each identity view, but for some log tables."""
    return {
        name: await clickhouse.rows(f"SELECT * FROM {config.database}.{name} ORDER BY ALL")
        for name in (view_name(table) for table in log_tables() if table.name not in without)
    }


async def test_every_identity_view_shows_every_field(
    config: Config, clickhouse: ClickHouse
) -> None:
    await migrate(config, clickhouse)
    for table in log_tables():
        rows = await clickhouse.rows(
            "SELECT name FROM system.columns WHERE database = {d:String} AND table = {t:String}",
            {"d": config.database, "t": view_name(table)},
        )
        shown = {row[0] for row in rows}
        wanted = {column.name.removesuffix("_dec") for column in table.columns}
        assert wanted <= shown, view_name(table)


# -- a kind that no file speaks of -----------------------------------------------------------------


class Level(msgspec.Struct, frozen=True, kw_only=True):
    price: str
    orders: int | None


class Probe(Event, frozen=True, kw_only=True, tag="probe"):
    """A kind with a field of every sort."""

    number: Annotated[int, Meta(ge=0, description="which probe it is")]
    bid: Annotated[Price, Meta(description="best price to sell at, decimal text")]
    spread: Volume | None
    depth: Annotated[int, Meta(ge=-5, le=5)]
    side: Literal["both", "one"]
    why: Literal["moved", "asked"] | None
    note: str
    is_whole: bool
    levels: list[Level]
    seen_us: TimeUs
    sent_us: TimeUs | None
    revision: Revision
    memo: str | None = None
    fee: Price | None = None
    is_test: bool = False


class GrownProbe(Event, frozen=True, kw_only=True, tag="probe"):
    """The same one release later: a new value, and new fields that may be left out."""

    number: Annotated[int, Meta(ge=0, description="which probe it is")]
    bid: Annotated[Price, Meta(description="best price to sell at, decimal text")]
    spread: Volume | None
    depth: Annotated[int, Meta(ge=-5, le=5)]
    side: Literal["both", "one", "none"]
    why: Literal["moved", "asked"] | None
    note: str
    is_whole: bool
    levels: list[Level]
    seen_us: TimeUs
    sent_us: TimeUs | None
    revision: Revision
    memo: str | None = None
    fee: Price | None = None
    is_test: bool = False
    ended_us: TimeUs | None = None
    tax: Price | None = None
    tries: Annotated[int, Meta(ge=1)] = 1


def probe_kind(event: type[Any] = Probe) -> Kind[Any]:
    return Kind(
        name="probe",
        event=event,
        description="What the tests made up.",
        identity=("exchange", "symbol", "number"),
        topic="market.probes.v1",
        log=Log(
            table="probes_log",
            time="seen_us",
            order=("exchange", "symbol", "seen_us", "revision"),
            checks={"bid_small": "bid_dec < 1000"},
        ),
    )


PROBE = Probe(
    exchange="binance",
    symbol="BTC/USDT",
    number=7,
    bid="61.50",
    spread=None,
    depth=-5,
    side="one",
    why=None,
    note="it's \\ fine",
    is_whole=False,
    levels=[Level(price="1", orders=None), Level(price="2", orders=3)],
    seen_us=1_793_491_200_000_000,
    sent_us=None,
    revision=1,
)


async def insert(
    clickhouse: ClickHouse, config: Config, kind: Kind[Any], *values: bytes, first: int = 0
) -> None:
    table = table_of(kind)
    offsets = range(first, first + len(values))
    batch = Batch("t", 0, offsets, values, first + len(values), 0)
    await clickhouse.insert(
        f"{config.database}.{table.name}", table.insert_columns, batch.body(), {}
    )


async def test_a_new_kind_needs_no_file(config: Config, clickhouse: ClickHouse) -> None:
    """Table, comments, retention and view come by themselves, and a sink stores it."""
    await migrate(config, clickhouse)  # the database was there before
    kind = probe_kind()
    config = replace(config, clickhouse=replace(config.clickhouse, events_retention_days=20_000))
    schema = load_schema((*KINDS, kind))
    applied = await migrate(config, clickhouse, schema)
    assert applied == ["tables/probes_log", "views/probes"]
    assert await migrate(config, clickhouse, schema) == []

    found = await facts(clickhouse, config.database, "probes_log")
    comments = {column[0]: column[5] for column in found["columns"]}
    assert comments["bid_dec"] == "best price to sell at"
    assert comments["bid"] == "on the wire only, see bid_dec"
    assert comments["number"] == "which probe it is"
    assert all(comments.values())
    assert found["ttl"] == ["toDateTime(seen) + toIntervalDay(20000)"]
    assert found["constraints"]["bid_small"] == "bid_dec < 1000"

    await ensure_topics(config, [*kind.topics.values()])
    topic = kind.topics[""].full_name(config.namespace)
    newer = msgspec.structs.replace(PROBE, revision=2, bid="62", memo="later", fee="0.1")
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap)
    await producer.start()
    for event in (PROBE, newer, PROBE, msgspec.structs.replace(PROBE, number=8)):
        await producer.send_and_wait(topic, encode(event))
    await producer.send_and_wait(topic, encode(msgspec.structs.replace(PROBE, depth=6)))
    await producer.stop()
    stop = asyncio.Event()
    sink = Sink(config, kinds=(*KINDS, kind))
    task = asyncio.create_task(sink.run(stop))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while sink.rows_stored < 4 or sink.writer is None or not sink.writer.rows_refused:
                assert not task.done() or task.result()
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await task
    rows = await clickhouse.rows(
        "SELECT number, toString(bid), spread, depth, toString(side), why, note, is_whole, "
        "arrayMap(level -> (level.price, level.orders), levels), toString(seen), sent, revision, "
        f"memo, toString(fee), is_test FROM {config.database}.probes ORDER BY number"
    )
    same = (None, -5, "one", None, "it's \\ fine", False, [("1", None), ("2", 3)])
    seen = "2026-11-01 00:00:00.000000"
    assert rows == [
        (7, "62", *same, seen, None, 2, "later", "0.1", False),
        (8, "61.5", *same, seen, None, 1, None, None, False),
    ]


BAD: dict[str, Any] = {
    "13 fraction digits": {"bid": "1.0000000000001"},
    "no price": {"bid": ""},
    "a price of 0": {"bid": "0"},
    "its own check": {"bid": "1000"},
    "text for an optional price": {"fee": "x"},
    "a negative sum": {"spread": "-1"},
    "below the range": {"depth": -6},
    "above the range": {"depth": 6},
    "an unknown choice": {"side": "all"},
    "an unknown choice that may be null": {"why": "because"},
    "null for a choice": {"side": None},
    "null for a flag": {"is_whole": None},
    "a time in milliseconds": {"seen_us": 1_793_491_200_000},
    "a nullable time in milliseconds": {"sent_us": 1_793_491_200_000},
    "an empty symbol": {"symbol": ""},
}


async def test_the_table_of_a_new_kind_refuses_what_its_types_refuse(
    config: Config, clickhouse: ClickHouse
) -> None:
    kind = probe_kind()
    await migrate(config, clickhouse, load_schema((*KINDS, kind)))
    good = msgspec.json.decode(encode(PROBE))
    for change in BAD.values():
        with pytest.raises(RowsRefused):
            await insert(clickhouse, config, kind, msgspec.json.encode({**good, **change}))
    # Text, lists and revisions have no value that a writer could not mean.
    for field in set(good) - {"event", "note", "levels", "revision"}:
        missing = {name: value for name, value in good.items() if name != field}
        with pytest.raises(RowsRefused):
            await insert(clickhouse, config, kind, msgspec.json.encode(missing))
    await insert(clickhouse, config, kind, encode(PROBE))
    count = f"SELECT count() FROM {config.database}.probes_log"
    assert await clickhouse.rows(count) == [(1,)]


async def test_a_new_field_and_a_new_choice_need_no_file(
    config: Config, other: Config, clickhouse: ClickHouse
) -> None:
    old, grown = probe_kind(), probe_kind(GrownProbe)
    await migrate(config, clickhouse, load_schema((*KINDS, old)))
    await insert(clickhouse, config, old, encode(PROBE))
    schema = load_schema((*KINDS, grown))
    applied = await asyncio.gather(*(migrate(config, clickhouse, schema) for _ in range(3)))
    assert any("tables/probes_log" in one and "views/probes" in one for one in applied)
    assert await migrate(config, clickhouse, schema) == []
    await migrate(other, clickhouse, schema)
    changed = await facts(clickhouse, config.database, "probes_log")
    assert changed == await facts(clickhouse, other.database, "probes_log")

    values: dict[str, Any] = msgspec.structs.asdict(PROBE)
    newer = GrownProbe(
        **{**values, "number": 8, "side": "none", "tax": "2", "ended_us": PROBE.seen_us, "tries": 3}
    )
    await insert(clickhouse, config, grown, encode(newer), encode(PROBE), first=1)
    late = msgspec.structs.replace(newer, tax="2.0000000000001")
    with pytest.raises(RowsRefused):
        await insert(clickhouse, config, grown, encode(late), first=3)
    rows = await clickhouse.rows(
        "SELECT number, toString(side), toString(tax), toString(ended), tries "
        f"FROM {config.database}.probes ORDER BY number"
    )
    assert rows == [
        (7, "one", None, None, 1),
        (8, "none", "2", "2026-11-01 00:00:00.000000", 3),
    ]


def test_a_field_without_a_rule_names_the_way_out() -> None:
    class Floating(Event, frozen=True, kw_only=True, tag="floating"):
        share: float
        seen_us: TimeUs

    kind = probe_kind(Floating)
    with pytest.raises(TypeError, match=r"found FloatType.*Log\.columns"):
        assert table_of(kind).columns
    log = replace(kind.log or Log(table="", time="", order=()), columns={"share": "Float64"})
    assert "share" in table_of(replace(kind, log=log)).fields


def test_the_tables_are_those_of_the_kinds() -> None:
    names: Sequence[str] = [kind.log.table for kind in KINDS if kind.log]
    assert [table.name for table in log_tables()] == list(names)
    assert table_of(kinds.TRADE) is table_of(kinds.TRADE)
    with pytest.raises(ValueError, match="found heartbeat"):
        table_of(kinds.HEARTBEAT)
