"""The schema: `ddl/*.sql` applied in order, once each, with checksums; comments and retention.

Several may start at once: each statement can be repeated (`IF NOT EXISTS`, `OR REPLACE`), and the
row that records a file carries a dedup token, so that it is stored once.
"""

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files

import structlog

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import ConfigError, StorageError
from alpha_pulse.sinks.clickhouse.client import ClickHouse, PassingFault
from alpha_pulse.sinks.clickhouse.columns import column_comments
from alpha_pulse.sinks.clickhouse.tables import LOG_TABLES

log = structlog.get_logger(__name__)

_FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
# What two migrations that run at once may meet: the other one is just making or replacing it.
_RACES = ("TABLE_ALREADY_EXISTS", "UNKNOWN_TABLE", "DDL_GUARD_IS_ACTIVE", "CANNOT_ASSIGN_ALTER")
_ATTEMPTS_MAX = 5


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


def placeholders(config: Config) -> dict[str, str]:
    """Return what fills the `{{…}}` of the DDL: names, engines, settings.

    Raises: ConfigError when the database or cluster is no plain identifier.
    """
    clickhouse = config.clickhouse
    for setting, name in (("database", config.database), ("cluster", clickhouse.cluster)):
        if name and not _IDENTIFIER.match(name):
            raise ConfigError(
                f"expected letters, digits and _ in [clickhouse] {setting}, found {name!r}"
            )
    replicated = "Replicated" if clickhouse.cluster else ""
    return {
        "database": config.database,
        "on_cluster": f"ON CLUSTER {clickhouse.cluster}" if clickhouse.cluster else "",
        "engine": f"{replicated}MergeTree",
        "replacing_engine": f"{replicated}ReplacingMergeTree",
        "deduplication_window": f"{'' if replicated else 'non_'}replicated_deduplication_window",
    }


def statements(text: str, values: dict[str, str]) -> list[str]:
    """Return a DDL file's statements, comments dropped, placeholders filled in.

    A statement ends with `;` at a line's end; a `--` comment has its line for itself.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    filled = _PLACEHOLDER.sub(lambda match: values[match[1]], "\n".join(lines))
    parts = re.split(r";[ \t]*(?:\n|$)", filled)
    return [part.strip() for part in parts if part.strip()]


async def migrate(
    config: Config, clickhouse: ClickHouse, migrations: list[Migration] | None = None
) -> list[str]:
    """Bring the database to this version's schema; return the names of the files applied now.

    Raises: StorageError when an applied file was changed or is missing here, or a statement fails;
    PassingFault while ClickHouse is away.
    """
    migrations = load_migrations() if migrations is None else migrations
    values = placeholders(config)
    applied = await _applied(clickhouse, config.database)
    _check(applied, migrations, config.database)
    fresh = [migration for migration in migrations if migration.number not in applied]
    if fresh:
        # Nothing is asked for when nothing is to do: a sink's user needs no right to make tables.
        await _prepare(clickhouse, values)
    for migration in fresh:
        for statement in statements(migration.text, values):
            await _run(clickhouse, statement, migration.name)
        await _record(clickhouse, config.database, migration)
    await _keep_comments(clickhouse, config, values)
    await _keep_retention(clickhouse, config, values)
    if fresh:
        log.info("schema.migrated", database=config.database, files=len(fresh))
    return [migration.name for migration in fresh]


async def _prepare(clickhouse: ClickHouse, values: dict[str, str]) -> None:
    # Its own database: refreshable views fail in the embedded engine's `default`.
    await _run(
        clickhouse,
        "CREATE DATABASE IF NOT EXISTS {database} {on_cluster} ENGINE = Atomic".format(**values),
        "the database",
    )
    await _run(
        clickhouse,
        """CREATE TABLE IF NOT EXISTS {database}.schema_migrations {on_cluster}
        (
            number UInt32 COMMENT 'number of the DDL file',
            name String COMMENT 'name of the DDL file',
            checksum String COMMENT 'SHA-256 of the file',
            applied_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') COMMENT 'ClickHouse clock, UTC'
        )
        ENGINE = {engine} ORDER BY number SETTINGS {deduplication_window} = 10000""".format(
            **values
        ),
        "the table schema_migrations",
    )


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


def _check(applied: dict[int, tuple[str, str]], migrations: list[Migration], database: str) -> None:
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


async def _run(clickhouse: ClickHouse, statement: str, where: str) -> None:
    for attempt in range(1, _ATTEMPTS_MAX + 1):
        try:
            await clickhouse.command(statement)
        except PassingFault as error:
            if error.code is None:
                raise  # ClickHouse is away: the caller decides how long to wait
            if attempt == _ATTEMPTS_MAX or not any(race in str(error) for race in _RACES):
                raise StorageError(f"expected to apply {where}: {error}") from error
            await asyncio.sleep(0.1 * attempt)
        else:
            return


async def _keep_comments(clickhouse: ClickHouse, config: Config, values: dict[str, str]) -> None:
    """Write the contracts' words onto the columns where they differ."""
    rows = await clickhouse.rows(
        "SELECT table, name, comment FROM system.columns WHERE database = {database:String}",
        {"database": config.database},
    )
    current = {(table, name): comment for table, name, comment in rows}
    for table in LOG_TABLES:
        changes = [
            f"COMMENT COLUMN IF EXISTS {column} {_quoted(comment)}"
            for column, comment in column_comments(table).items()
            if current.get((table.name, column), comment) != comment
        ]
        if changes:
            statement = (
                f"ALTER TABLE {values['database']}.{table.name} {values['on_cluster']} "
                + ", ".join(changes)
            )
            await _run(clickhouse, statement, f"the column comments of {table.name}")


async def _keep_retention(clickhouse: ClickHouse, config: Config, values: dict[str, str]) -> None:
    """Set or remove the tables' TTL where it differs from the settings."""
    rows = await clickhouse.rows(
        "SELECT name, engine_full FROM system.tables WHERE database = {database:String}",
        {"database": config.database},
    )
    engines: dict[str, str] = {name: engine for name, engine in rows}
    for table in LOG_TABLES:
        days = retention_days(config, table.name)
        found = re.search(r"\bTTL .*?toIntervalDay\((\d+)\)", engines.get(table.name, ""))
        current_days = int(found[1]) if found else 0
        if days == current_days:
            continue
        alter = f"ALTER TABLE {values['database']}.{table.name} {values['on_cluster']} "
        if days == 0:
            await _run(clickhouse, alter + "REMOVE TTL", f"the retention of {table.name}")
            continue
        column = table.column_of(table.time_field)
        # Whole months go at once: a part is dropped when its youngest row is past the retention.
        await _run(
            clickhouse,
            alter + "MODIFY SETTING ttl_only_drop_parts = 1",
            f"the retention of {table.name}",
        )
        await _run(
            clickhouse,
            alter + f"MODIFY TTL toDateTime({column}) + toIntervalDay({days})",
            f"the retention of {table.name}",
        )
        log.info("retention.changed", table=table.name, days=days)


def retention_days(config: Config, table: str) -> int:
    """Return for how many days a table keeps its rows; 0: for ever."""
    if table == "trades_log":
        return config.clickhouse.trades_retention_days
    if table in ("candles_log", "exchange_candles_log"):
        return config.clickhouse.candles_retention_days
    return config.clickhouse.events_retention_days


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
