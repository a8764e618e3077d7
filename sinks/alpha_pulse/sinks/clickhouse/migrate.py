"""The schema: a log table of each kind, `ddl/*.sql` in order and once each, views, retention.

A log table is made in its newest form, and views come last. The numbered files change databases
that are older: each is applied once and its checksum kept. What they say of a table that was just
made, or of a view, is left out. Run all the same, as after a start that was cut short, they find
their work done. Several may start at once: each statement can be repeated (`IF NOT EXISTS`, `OR
REPLACE`), and the row that records a file carries a dedup token, so that it is stored once.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import structlog

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import StorageError
from alpha_pulse.contracts.kinds import KINDS, Kind
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.columns import column_comments, quoted
from alpha_pulse.sinks.clickhouse.generated import changes, create_table
from alpha_pulse.sinks.clickhouse.owner import check_owner, claim
from alpha_pulse.sinks.clickhouse.statements import placeholders, run
from alpha_pulse.sinks.clickhouse.tables import Table, log_tables
from alpha_pulse.sinks.clickhouse.views import View, keep_views, load_views

log = structlog.get_logger(__name__)

_FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
# Its own database: refreshable views fail in the embedded engine's `default`.
_DATABASE = "CREATE DATABASE IF NOT EXISTS {{database}} {{on_cluster}} ENGINE = Atomic"
_MIGRATIONS = """CREATE TABLE IF NOT EXISTS {{database}}.schema_migrations {{on_cluster}}
(
    number UInt32 COMMENT 'number of the DDL file',
    name String COMMENT 'name of the DDL file',
    checksum String COMMENT 'SHA-256 of the file',
    applied_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') COMMENT 'ClickHouse clock, UTC'
)
ENGINE = {{engine}} ORDER BY number SETTINGS {{deduplication_window}} = 10000"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One DDL file. The checksum is of its text, before placeholders are filled in."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, line ends normalized."""
        return hashlib.sha256(self.text.replace("\r\n", "\n").encode()).hexdigest()


@dataclass(frozen=True)
class Schema:
    """What a version brings: a log table of each kind, files that change older ones, and views."""

    migrations: tuple[Migration, ...]
    tables: tuple[Table, ...] = ()
    views: tuple[View, ...] = ()

    @property
    def names(self) -> set[str]:
        """What the log tables and views are called."""
        return {table.name for table in self.tables} | {view.name for view in self.views}


def load_schema(kinds: Sequence[Kind[Any]] = KINDS) -> Schema:
    """Return this version's schema. Raises: StorageError for files that are not all there."""
    tables = log_tables(kinds)
    return Schema(tuple(load_migrations()), tables, load_views(tables))


def load_migrations() -> list[Migration]:
    """Return the DDL files that this version brings, in order.

    Raises: StorageError when two have the same number or one is missing in between.
    """
    found = []
    for entry in files("alpha_pulse.sinks.clickhouse").joinpath("ddl").iterdir():
        match = _FILE_NAME.match(entry.name)
        if match:
            text = entry.read_text(encoding="utf-8")
            found.append(Migration(int(match[1]), entry.name, text))
    found.sort(key=lambda migration: migration.name)
    numbers = [migration.number for migration in found]
    if numbers != list(range(1, len(found) + 1)):
        raise StorageError(
            f"expected DDL files numbered 1 to {len(found)} in clickhouse/ddl, found {numbers}; "
            "reinstall alpha-pulse-sinks"
        )
    return found


async def migrate(
    config: Config, clickhouse: ClickHouse, schema: Schema | None = None
) -> list[str]:
    """Bring the database to this version's schema; return what was applied now, by name.

    Args:
        config: names the database, its namespace and the retention.
        clickhouse: a connection whose user may change the schema, if there is anything to change:
            of a database that is up to date nothing is asked but to be read.
        schema: what to bring it to; None: this version's.

    Raises:
        ConfigError: the database is of another namespace.
        NotAllowed: something is to change, and the user may not.
        StorageError: an applied file was changed or is missing here, or a statement fails.
        PassingFault: ClickHouse is away.
    """
    schema = load_schema() if schema is None else schema
    values = placeholders(config)
    await check_owner(config, clickhouse)
    applied = await _applied(clickhouse, config.database)
    _check(applied, schema.migrations, config.database)
    pending = [migration for migration in schema.migrations if migration.number not in applied]
    done = []
    if pending:
        await run(clickhouse, _DATABASE, values, "the database")
        await claim(config, clickhouse, values)
        await run(clickhouse, _MIGRATIONS, values, "the table schema_migrations")
    made = await _make_tables(clickhouse, config, values, schema.tables)
    done += [f"tables/{name}" for name in made]
    settled = {view.name for view in schema.views}
    if not config.clickhouse.cluster:  # where another replica may have the table in an older form
        settled |= set(made)
    for migration in pending:
        await run(clickhouse, migration.text, values, migration.name, settled)
        await _record(clickhouse, config.database, migration)
        done.append(migration.name)
    done += await _change_tables(clickhouse, config, values, schema.tables)
    await _keep_comments(clickhouse, config, values, schema.tables)
    await _keep_retention(clickhouse, config, values, schema.tables)
    done += await keep_views(clickhouse, config.database, values, schema.views)
    if done:
        log.info("schema.migrated", database=config.database, changes=len(done))
    return done


async def _make_tables(
    clickhouse: ClickHouse, config: Config, values: dict[str, str], tables: Sequence[Table]
) -> list[str]:
    """Make the log tables that are missing, in their newest form; return their names."""
    there = await _columns(clickhouse, config.database)
    missing = [table for table in tables if table.name not in there]
    for table in missing:
        await run(clickhouse, create_table(table), values, f"the table {table.name}")
    return [table.name for table in missing]


async def _change_tables(
    clickhouse: ClickHouse, config: Config, values: dict[str, str], tables: Sequence[Table]
) -> list[str]:
    """Add the columns and values that the kinds have gained since a table was made."""
    there = await _columns(clickhouse, config.database)
    changed = []
    for table in tables:
        types = {name: type for name, (type, _) in there.get(table.name, {}).items()}
        lacking = [c.name for c in table.columns if not c.is_optional and c.name not in types]
        if lacking:
            raise StorageError(
                f"expected the columns {', '.join(lacking)} in {config.database}.{table.name}, "
                "found none; a field that is required can't be added to a table with rows: give it "
                "a default, or write a DDL file that adds the column"
            )
        parts = changes(table, types)
        if parts:
            await _alter(clickhouse, values, table, ", ".join(parts), "the columns")
            changed.append(f"tables/{table.name}")
    return changed


async def _alter(
    clickhouse: ClickHouse, values: dict[str, str], table: Table, parts: str, what: str
) -> None:
    statement = f"ALTER TABLE {{{{database}}}}.{table.name} {{{{on_cluster}}}} {parts}"
    await run(clickhouse, statement, values, f"{what} of {table.name}")


async def _columns(clickhouse: ClickHouse, database: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Return type and comment of each column, by table."""
    rows = await clickhouse.rows(
        "SELECT table, name, type, comment FROM system.columns WHERE database = {database:String}",
        {"database": database},
    )
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for table, name, type_, comment in rows:
        found.setdefault(table, {})[name] = (type_, comment)
    return found


async def _applied(clickhouse: ClickHouse, database: str) -> dict[int, tuple[str, str]]:
    known = await clickhouse.rows(
        "SELECT count() FROM system.tables WHERE database = {database:String} "
        "AND name = 'schema_migrations'",
        {"database": database},
    )
    if not known[0][0]:
        return {}
    rows = await clickhouse.rows(
        f"SELECT DISTINCT number, name, checksum FROM {database}.schema_migrations ORDER BY number"
    )
    return {number: (name, checksum) for number, name, checksum in rows}


def _check(
    applied: dict[int, tuple[str, str]], migrations: Sequence[Migration], database: str
) -> None:
    known = {migration.number: migration for migration in migrations}
    for number, (name, checksum) in applied.items():
        migration = known.get(number)
        if migration is None:
            raise StorageError(
                f"expected the DDL file {name} that database {database} was made with, found no "
                f"such file in this version; install the version that brings it, or a newer one"
            )
        if (migration.name, migration.checksum) != (name, checksum):
            raise StorageError(
                f"expected {name} as it was applied to database {database} (SHA-256 "
                f"{checksum[:12]}…), found {migration.name} with {migration.checksum[:12]}…; "
                "restore the file and put the change into a new one with the next number"
            )


async def _record(clickhouse: ClickHouse, database: str, migration: Migration) -> None:
    row = {"number": migration.number, "name": migration.name, "checksum": migration.checksum}
    await clickhouse.insert(
        f"{database}.schema_migrations",
        list(row),
        json.dumps(row).encode(),
        {"insert_deduplication_token": f"{migration.name}:{migration.checksum}"},
    )


async def _keep_comments(
    clickhouse: ClickHouse, config: Config, values: dict[str, str], tables: Sequence[Table]
) -> None:
    """Write the contracts' words onto the columns where they differ."""
    there = await _columns(clickhouse, config.database)
    for table in tables:
        here = there.get(table.name, {})
        parts = [
            f"COMMENT COLUMN IF EXISTS {column} {quoted(comment)}"
            for column, comment in column_comments(table.columns).items()
            if column in here and here[column][1] != comment
        ]
        if parts:
            await _alter(clickhouse, values, table, ", ".join(parts), "the column comments")


async def _keep_retention(
    clickhouse: ClickHouse, config: Config, values: dict[str, str], tables: Sequence[Table]
) -> None:
    """Set or remove the tables' TTL where it differs from the settings."""
    rows = await clickhouse.rows(
        "SELECT name, engine_full FROM system.tables WHERE database = {database:String}",
        {"database": config.database},
    )
    engines: dict[str, str] = {name: engine for name, engine in rows}
    for table in tables:
        days: int = getattr(config.clickhouse, table.log.retention)
        found = re.search(r"\bTTL .*?toIntervalDay\((\d+)\)", engines.get(table.name, ""))
        if days == (int(found[1]) if found else 0):
            continue
        if days == 0:  # for ever
            await _alter(clickhouse, values, table, "REMOVE TTL", "the retention")
            continue
        # Whole months go at once: a part is dropped when its youngest row is past the retention.
        column = table.column_of(table.time_field)
        ttl = f"MODIFY TTL toDateTime({column}) + toIntervalDay({days})"
        for part in ("MODIFY SETTING ttl_only_drop_parts = 1", ttl):
            await _alter(clickhouse, values, table, part, "the retention")
        log.info("retention.changed", table=table.name, days=days)
