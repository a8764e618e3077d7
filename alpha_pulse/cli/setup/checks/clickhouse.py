"""ClickHouse: reachable, new enough, allowed, and with this version's schema."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from alpha_pulse.cli.pipeline.stored import connect
from alpha_pulse.cli.setup.checks.check import Check, failure, ok, warning
from alpha_pulse.contracts.config import ClickHouseConfig, Config
from alpha_pulse.contracts.config_sources import without_password
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.sinks.clickhouse.migrate import Migration, Schema, load_migrations, load_schema

# The oldest with everything that the schema and the views use.
VERSION_MIN = (25, 3)
CLOCK_S_MAX = 5.0


async def check_clickhouse(config: Config, clickhouse: ClickHouseConfig) -> list[Check]:
    """Return what is found of ClickHouse, the user's rights and the schema."""
    return await asyncio.to_thread(_look, config, clickhouse)


def _look(config: Config, clickhouse: ClickHouseConfig) -> list[Check]:
    try:
        client = connect(clickhouse)
    except AlphaPulseError as error:
        return [failure("clickhouse", str(error), "start it, or correct [clickhouse] in the file")]
    try:
        started_s = time.time()
        version, now, user = client.query(
            "SELECT version(), now64(6, 'UTC'), currentUser()"
        ).result_rows[0]
        checks = [
            check_version(version, without_password(clickhouse.url)),
            _check_clock(now, (started_s + time.time()) / 2),
            _check_grants(client, user, config.database),
        ]
        return [*checks, _check_schema(client, config)]
    except ClickHouseError as error:
        return [failure("clickhouse", str(error)[:300], "look at ClickHouse's log")]
    finally:
        client.close()


def check_version(version: str, url: str) -> Check:
    """Return whether ClickHouse is new enough."""
    found = f"{version} at {url}"
    if tuple(int(part) for part in version.split(".")[:2]) < VERSION_MIN:
        needed = ".".join(map(str, VERSION_MIN))
        return failure("clickhouse", found, f"upgrade to ClickHouse {needed} or newer")
    return ok("clickhouse", found)


def _check_clock(now: datetime, ours_s: float) -> Check:
    aware = now if now.tzinfo else now.replace(tzinfo=UTC)
    ahead_s = aware.timestamp() - ours_s
    if abs(ahead_s) > CLOCK_S_MAX:
        return warning(
            "clickhouse clock",
            f"{ahead_s:+.1f} s from this machine's",
            "set both by NTP: the ages in `freshness` and `status` are wrong by that much",
        )
    return ok("clickhouse clock", f"{ahead_s:+.3f} s from this machine's")


def _check_grants(client: Client, user: str, database: str) -> Check:
    # The sink's own work; DDL is asked for by `migrate` only.
    wanted = {"SELECT": "read", "INSERT": "store", "CREATE TABLE": "migrate"}
    missing = []
    for right in wanted:
        try:
            rows: list[Any] = list(client.query(f"CHECK GRANT {right} ON {database}.*").result_rows)
        except ClickHouseError:
            return warning(
                "grants",
                f"{user}: this server does not say what is granted",
                "try it: alpha-pulse migrate, then start a sink",
            )
        if not rows or not rows[0][0]:
            missing.append(right)
    if not missing:
        return ok("grants", f"{user} may SELECT, INSERT and CREATE TABLE in {database}")
    then = "; ".join(f"GRANT {right} ON {database}.* TO {user}" for right in missing)
    if missing == ["CREATE TABLE"]:
        return warning(
            "grants",
            f"{user} may not CREATE TABLE in {database}",
            f"migrate with a user who may, or: {then}",
        )
    return failure("grants", f"{user} may not {', '.join(missing)} in {database}", then)


def _check_schema(client: Client, config: Config) -> Check:
    database = config.database
    known = client.query(
        "SELECT name FROM system.tables WHERE database = {d:String}", parameters={"d": database}
    ).result_columns
    tables = set(known[0]) if known else set()
    if "schema_migrations" not in tables:
        return warning(
            "schema", f"database {database} has no tables yet", "alpha-pulse migrate, or a sink"
        )
    rows = client.query(
        "SELECT DISTINCT name, checksum FROM {d:Identifier}.schema_migrations",
        parameters={"d": database},
    ).result_rows
    found = check_migrations({name: checksum for name, checksum in rows}, load_migrations())
    if found.verdict != "ok":
        return found
    owners = client.query(
        "SELECT namespace FROM {d:Identifier}.schema_owner", parameters={"d": database}
    ).result_rows
    if owners and config.namespace not in owners[0]:
        return failure(
            "schema",
            f"database {database} keeps the topics of namespace {owners[0][0]!r}",
            "set [clickhouse] database, or choose another namespace",
        )
    return check_parts(tables, load_schema()) or found


def check_parts(there: set[str], schema: Schema) -> Check | None:
    """Return what is missing of this version's tables and views; None: nothing."""
    missing = sorted(schema.names - there)
    if missing:
        return warning("schema", f"to be made: {', '.join(missing)}", "alpha-pulse migrate")
    return None


def check_migrations(applied: dict[str, str], migrations: list[Migration]) -> Check:
    """Return whether the database was made by this version's files. applied: name -> checksum."""
    changed = [m.name for m in migrations if applied.get(m.name, m.checksum) != m.checksum]
    newer = sorted(applied.keys() - {m.name for m in migrations})
    pending = [m.name for m in migrations if m.name not in applied]
    if changed or newer:
        return failure(
            "schema",
            f"made by other files: {', '.join(changed + newer)}",
            "install the version that made it, or a newer one",
        )
    if pending:
        return warning("schema", f"to be applied: {', '.join(pending)}", "alpha-pulse migrate")
    return ok("schema", f"{len(migrations)} files applied")
