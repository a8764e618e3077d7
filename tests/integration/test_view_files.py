"""Views are applied when their text has changed, by whoever may; a database has one namespace."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from alpha_pulse.cli.setup.checks.clickhouse import check_clickhouse
from alpha_pulse.contracts.config import ClickHouseConfig, Config, SinkConfig
from alpha_pulse.contracts.errors import ConfigError, StorageError
from alpha_pulse.embedded.front.users import Login, Role
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.migrate import (
    Migration,
    Schema,
    load_migrations,
    load_schema,
    migrate,
)
from alpha_pulse.sinks.clickhouse.statements import NotAllowed
from alpha_pulse.sinks.clickhouse.views import View
from alpha_pulse.sinks.lanes.consumer import Sink
from alpha_pulse.sinks.lanes.offsets import OffsetStore
from tests.patience import PATIENCE_S

TABLE = "CREATE TABLE IF NOT EXISTS {{database}}.x (a Int8) ENGINE = {{engine}} ORDER BY a;\n"
X = "CREATE OR REPLACE VIEW {{database}}.x_view {{on_cluster}} AS SELECT a FROM {{database}}.x;\n"
Y = "CREATE OR REPLACE VIEW {{database}}.y_view {{on_cluster}} AS SELECT a FROM {{database}}.x;\n"


class Recording:
    """A connection that remembers the statements which change something."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self.changes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clickhouse, name)

    async def command(self, sql: str, settings: dict[str, Any] | None = None) -> None:
        self.changes.append(sql)
        await self._clickhouse.command(sql, settings)

    async def insert(self, table: str, *arguments: Any) -> None:
        self.changes.append(table)
        await self._clickhouse.insert(table, *arguments)


@pytest.fixture
def config(runtime: Runtime, namespace: str) -> Config:
    return Config(namespace=namespace, clickhouse=ClickHouseConfig(url=runtime.clickhouse))


@pytest.fixture
async def clickhouse(config: Config) -> AsyncIterator[Any]:
    connection = await ClickHouse.connect(config.clickhouse)
    try:
        yield Recording(connection)
    finally:
        await connection.command(f"DROP DATABASE IF EXISTS {config.database}")
        await connection.close()


def small(*views: View) -> Schema:
    return Schema((Migration(1, "0001_x.sql", TABLE),), views=views)


async def names(clickhouse: ClickHouse, config: Config) -> set[str]:
    rows = await clickhouse.rows(
        "SELECT name FROM system.tables WHERE database = {d:String} AND engine = 'View'",
        {"d": config.database},
    )
    return {row[0] for row in rows}


async def columns(clickhouse: ClickHouse, config: Config, view: str) -> list[str]:
    rows = await clickhouse.rows(
        "SELECT name FROM system.columns WHERE database = {d:String} AND table = {t:String} "
        "ORDER BY position",
        {"d": config.database, "t": view},
    )
    return [row[0] for row in rows]


async def test_a_view_is_applied_when_its_text_has_changed_and_only_then(
    config: Config, clickhouse: Any
) -> None:
    assert await migrate(config, clickhouse, small(View("x_view", X))) == [
        "0001_x.sql",
        "views/x_view",
    ]
    clickhouse.changes.clear()
    # A comment is no change: what counts is what ClickHouse is told.
    assert await migrate(config, clickhouse, small(View("x_view", f"-- why\n{X}"))) == []
    assert clickhouse.changes == []
    changed = View("x_view", X.replace("SELECT a", "SELECT a, a + 1 AS b"))
    assert await migrate(config, clickhouse, small(changed)) == ["views/x_view"]
    assert await columns(clickhouse, config, "x_view") == ["a", "b"]
    await clickhouse.command(f"DROP VIEW {config.database}.x_view")
    assert await migrate(config, clickhouse, small(changed)) == ["views/x_view"]
    assert await names(clickhouse, config) == {"x_view"}


async def test_a_view_that_a_version_no_longer_brings_is_dropped_if_we_made_it(
    config: Config, clickhouse: Any
) -> None:
    await migrate(config, clickhouse, small(View("x_view", X), View("y_view", Y)))
    own = f"CREATE VIEW {config.database}.mine AS SELECT a FROM {config.database}.x"
    await clickhouse.command(own)
    assert await migrate(config, clickhouse, small(View("y_view", Y))) == ["views/x_view"]
    assert await names(clickhouse, config) == {"y_view", "mine"}
    assert await migrate(config, clickhouse, small(View("y_view", Y))) == []
    back = small(View("x_view", X), View("y_view", Y))
    assert await migrate(config, clickhouse, back) == ["views/x_view"]


@pytest.mark.parametrize("name", ["x", "y_view; DROP TABLE x", "`x`", "missing"])
async def test_whoever_may_insert_can_not_have_the_migrator_drop_more(
    config: Config, clickhouse: Any, name: str
) -> None:
    await migrate(config, clickhouse, small(View("y_view", Y)))
    row = json.dumps({"name": name, "checksum": "x"}).encode()
    await clickhouse.insert(f"{config.database}.schema_views", ["name", "checksum"], row, {})
    await migrate(config, clickhouse, small(View("y_view", Y)))
    assert await columns(clickhouse, config, "x") == ["a"]
    assert await names(clickhouse, config) == {"y_view"}


async def test_a_name_that_somebody_else_took_is_refused(config: Config, clickhouse: Any) -> None:
    await migrate(config, clickhouse, small())
    own = f"CREATE VIEW {config.database}.x_view AS SELECT 7 AS mine"
    await clickhouse.command(own)
    with pytest.raises(StorageError, match=r"name x_view to be free .* rename it"):
        await migrate(config, clickhouse, small(View("x_view", X)))
    assert await columns(clickhouse, config, "x_view") == ["mine"]


async def test_several_that_migrate_at_once_make_the_same_views(
    config: Config, clickhouse: Any
) -> None:
    views = small(View("x_view", X), View("y_view", Y))
    for schema in (views, small(View("y_view", f"{Y[:-2]} WHERE a > 0;\n"))):
        await asyncio.gather(*(migrate(config, clickhouse, schema) for _ in range(4)))
        assert await migrate(config, clickhouse, schema) == []
    assert await names(clickhouse, config) == {"y_view"}


# -- a user who may only read and insert ----------------------------------------------------------


@asynccontextmanager
async def server(tmp_path: Any, kafka: str) -> AsyncIterator[tuple[Config, Config]]:
    """Give settings of the migrator and of the writer of a ClickHouse with users."""
    logins = [Login("migrator", "secret", Role.ADMIN), Login("writer", "secret", Role.WRITER)]
    async with Runtime.start(
        tmp_path, kafka=kafka, clickhouse_port=0, clickhouse_logins=logins
    ) as own:
        port = own.clickhouse.rsplit(":", 1)[1]
        both = [
            Config(
                namespace="rights",
                sink=SinkConfig(retry_wait_s_max=0.1),
                clickhouse=ClickHouseConfig(
                    url=f"http://127.0.0.1:{port}", user=user, password="secret"
                ),
            )
            for user in ("migrator", "writer")
        ]
        yield both[0], both[1]


async def test_a_sink_without_rights_waits_for_the_schema_and_says_so(
    runtime: Runtime, tmp_path: Any
) -> None:
    async with server(tmp_path, runtime.kafka) as (migrator, writer):
        admin = await ClickHouse.connect(migrator.clickhouse)
        own = await ClickHouse.connect(writer.clickhouse)
        try:
            with pytest.raises(NotAllowed, match="alpha-pulse migrate"):
                await migrate(writer, own)
            schema = load_schema()
            older = replace(schema, views=schema.views[:-1])
            await migrate(migrator, admin, older)
            # Up to date, nothing is asked of a sink's user but to read.
            assert await migrate(writer, own, older) == []
            with pytest.raises(NotAllowed, match=f"the view {schema.views[-1].name}"):
                await migrate(writer, own)

            stop = asyncio.Event()
            sink = Sink(writer)
            waiting = asyncio.create_task(sink.run(stop))
            async with asyncio.timeout(PATIENCE_S):
                while "alpha-pulse migrate" not in sink.problem():
                    assert not waiting.done() or waiting.result()
                    await asyncio.sleep(0.02)
                await migrate(migrator, admin)
                while "alpha-pulse migrate" in sink.problem():
                    assert not waiting.done() or waiting.result()
                    await asyncio.sleep(0.02)
            stop.set()
            await waiting
        finally:
            await admin.close()
            await own.close()


# -- one database, one namespace ------------------------------------------------------------------


async def test_namespaces_that_share_the_name_of_a_database_do_not_share_it(
    config: Config, clickhouse: Any
) -> None:
    name = config.namespace
    dash, dot, underscore = (replace(config, namespace=f"{name}{mark}b") for mark in "-._")
    assert dash.database == dot.database == underscore.database
    try:
        await migrate(dash, clickhouse)
        for other in (dot, underscore):
            clickhouse.changes.clear()
            with pytest.raises(ConfigError) as raised:
                await migrate(other, clickhouse)
            assert clickhouse.changes == []  # nothing was written
            message = str(raised.value)
            assert "\n" not in message
            assert f"of namespace {other.namespace!r}" in message
            assert f"the topics of namespace {dash.namespace!r}" in message
            assert "[clickhouse] database" in message
            with pytest.raises(ConfigError, match="the topics of namespace"):
                await Sink(other).run(asyncio.Event())
        assert await migrate(dash, clickhouse) == []
        for asking, verdict in ((dash, "ok"), (dot, "failure")):
            (schema,) = [
                check
                for check in await check_clickhouse(asking, asking.clickhouse)
                if check.name == "schema"
            ]
            assert schema.verdict == verdict, schema
        assert f"keeps the topics of namespace {dash.namespace!r}" in schema.found
        elsewhere = replace(dot, clickhouse=replace(dot.clickhouse, database="elsewhere"))
        await migrate(elsewhere, clickhouse)
        await clickhouse.command(f"DROP DATABASE {elsewhere.database}")
    finally:
        await clickhouse.command(f"DROP DATABASE IF EXISTS {dash.database}")


async def test_of_namespaces_that_come_at_once_one_gets_the_database(
    config: Config, clickhouse: Any
) -> None:
    rivals = [replace(config, namespace=f"{config.namespace}{mark}b") for mark in "-._"]
    try:
        done = await asyncio.gather(
            *(migrate(one, clickhouse) for one in rivals), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in done) == ["ConfigError", "ConfigError", "list"]
    finally:
        await clickhouse.command(f"DROP DATABASE IF EXISTS {rivals[0].database}")


@pytest.mark.parametrize(
    ("stored", "wanted", "others"),
    [
        ("{}-b.market.trades.v1", "{}-b", "{}.b"),
        ("{}.b.market.candles.1m.v1#3", "{}.b", "{}-b"),
        ("{}_b.market.deadletters.v1", "{}_b", "{}-b"),
    ],
)
async def test_a_database_of_4d9f32e_belongs_to_whose_topics_it_keeps(
    config: Config, clickhouse: Any, stored: str, wanted: str, others: str
) -> None:
    name = config.namespace
    owner = replace(config, namespace=wanted.format(name))
    other = replace(config, namespace=others.format(name))
    old = Schema(tuple(load_migrations()[:13]))
    try:
        await migrate(owner, clickhouse, old)
        # 4d9f32e recorded no owner.
        await clickhouse.command(f"DROP TABLE {owner.database}.schema_owner")
        offsets = OffsetStore(clickhouse, owner.database)
        await offsets.save_progress([(stored.format(name), 0, 1, 5)])
        with pytest.raises(ConfigError, match=f"the topics of namespace '{owner.namespace}'"):
            await migrate(other, clickhouse)
        await migrate(owner, clickhouse)
        rows = await clickhouse.rows(f"SELECT namespace FROM {owner.database}.schema_owner")
        assert rows == [(owner.namespace,)]
    finally:
        await clickhouse.command(f"DROP DATABASE IF EXISTS {owner.database}")


async def test_an_old_database_without_rows_goes_to_the_first_that_migrates_it(
    config: Config, clickhouse: Any
) -> None:
    first = replace(config, namespace=f"{config.namespace}.b")
    second = replace(config, namespace=f"{config.namespace}-b")
    try:
        await migrate(first, clickhouse, Schema(tuple(load_migrations()[:13])))
        await clickhouse.command(f"DROP TABLE {first.database}.schema_owner")
        await migrate(second, clickhouse)
        with pytest.raises(ConfigError, match="the topics of namespace"):
            await migrate(first, clickhouse)
    finally:
        await clickhouse.command(f"DROP DATABASE IF EXISTS {first.database}")


async def test_no_namespace_is_one_too(config: Config, clickhouse: Any) -> None:
    named = config
    plain = Config(clickhouse=replace(config.clickhouse, database=config.database))
    await migrate(plain, clickhouse)
    with pytest.raises(ConfigError, match="the topics of no namespace"):
        await migrate(named, clickhouse)
    assert await migrate(plain, clickhouse) == []
