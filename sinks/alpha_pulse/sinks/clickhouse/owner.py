"""The namespace that owns a database: `a-b`, `a.b` and `a_b` would share one of the same name.

The first namespace that migrates a database owns it. One that was made before owners were recorded
belongs to the namespace whose topics are stored in it.
"""

import json

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.contracts.topics import STORED_TOPICS
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.statements import run

_TABLE = """CREATE TABLE IF NOT EXISTS {{database}}.schema_owner {{on_cluster}}
(
    namespace String COMMENT 'namespace whose topics are stored here; empty: none',
    at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') COMMENT 'clock of ClickHouse, UTC'
)
ENGINE = {{engine}} ORDER BY at SETTINGS {{deduplication_window}} = 10000"""


async def check_owner(config: Config, clickhouse: ClickHouse) -> None:
    """Return if the database is free, or of the configured namespace. Only reads.

    Raises:
        ConfigError: it is of another namespace.
        PassingFault: ClickHouse is away.
    """
    database = config.database
    rows = await clickhouse.rows(
        "SELECT name FROM system.tables WHERE database = {database:String} "
        "AND name IN ('schema_owner', 'sink_progress')",
        {"database": database},
    )
    tables = {row[0] for row in rows}
    owners: set[str] = set()
    if "schema_owner" in tables:
        rows = await clickhouse.rows(f"SELECT namespace FROM {database}.schema_owner")
        owners = {row[0] for row in rows}
    if not owners and "sink_progress" in tables:
        rows = await clickhouse.rows(f"SELECT DISTINCT k_topic FROM {database}.sink_progress")
        owners = {_namespace_of(row[0]) for row in rows} - {None}  # type: ignore[assignment]
    if owners and config.namespace not in owners:
        raise _refusal(config, sorted(owners))


async def claim(config: Config, clickhouse: ClickHouse, values: dict[str, str]) -> None:
    """Record the configured namespace as the owner, unless there is one.

    Raises:
        ConfigError: another namespace was faster.
        NotAllowed, StorageError, PassingFault: as `statements.run`.
    """
    await run(clickhouse, _TABLE, values, "the table schema_owner")
    row = {"namespace": config.namespace}
    # One token for all namespaces: of those that come at once ClickHouse stores the first.
    await clickhouse.insert(
        f"{config.database}.schema_owner",
        list(row),
        json.dumps(row).encode(),
        {"insert_deduplication_token": "owner"},
    )
    await check_owner(config, clickhouse)


def _namespace_of(k_topic: str) -> str | None:
    topic = k_topic.split("#")[0]  # later epochs have their number behind it
    for known in STORED_TOPICS:
        if topic == known.name:
            return ""
        if topic.endswith(f".{known.name}"):
            return topic.removesuffix(f".{known.name}")
    return None


def _refusal(config: Config, owners: list[str]) -> ConfigError:
    found = " and ".join(f"namespace {owner!r}" if owner else "no namespace" for owner in owners)
    return ConfigError(
        f"expected the database {config.database} to be free or of namespace "
        f"{config.namespace!r}, found that it keeps the topics of {found}; name another one in "
        "[clickhouse] database, or choose another namespace"
    )
