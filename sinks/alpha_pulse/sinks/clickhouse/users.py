"""ClickHouse's users, each with the least that it needs: writer, migrator, reader.

The statements carry salted hashes, never a password; all of them can be repeated.
"""

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from alpha_pulse.contracts.config import Config
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.statements import placeholders

READER_SETTINGS = (
    "readonly = 2, max_execution_time = 60, max_memory_usage = 2147483648, "
    "max_result_rows = 10000000, max_threads = 4"
)


@dataclass(frozen=True)
class Account:
    """A user and what it may do in the pipeline's database. also: rights elsewhere."""

    name: str
    password: str
    rights: str
    also: tuple[str, ...] = ()
    settings: str = ""


def accounts(config: Config) -> list[Account]:
    """Return the users that have a password; one without is not made."""
    setup = config.setup
    everything = [
        Account(
            setup.writer_user,
            setup.writer_password,
            "SELECT, INSERT",
            # A sink waits for inserts of an earlier one that are still running.
            ("SELECT ON system.processes",),
        ),
        Account(
            setup.migrator_user,
            setup.migrator_password,
            "SELECT, INSERT, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP VIEW, ALTER",
            ("CLUSTER ON *.*",) if config.clickhouse.cluster else (),
        ),
        Account(setup.reader_user, setup.reader_password, "SELECT", settings=READER_SETTINGS),
    ]
    return [account for account in everything if account.password]


def user_statements(config: Config) -> Iterator[str]:
    """Yield the statements that make the users, give them their passwords and their rights."""
    values = placeholders(config)
    on_cluster = f" {values['on_cluster']}" if values["on_cluster"] else ""
    for account in accounts(config):
        salt = secrets.token_hex(16)
        digest = hashlib.sha256((account.password + salt).encode()).hexdigest()
        identified = f"IDENTIFIED WITH sha256_hash BY '{digest}' SALT '{salt}'"
        name = _quoted(account.name)
        yield f"CREATE USER IF NOT EXISTS {name}{on_cluster} {identified}"
        settings = f" SETTINGS {account.settings}" if account.settings else ""
        yield f"ALTER USER {name}{on_cluster} {identified}{settings}"
        for right in (f"{account.rights} ON {values['database']}.*", *account.also):
            yield f"GRANT{on_cluster} {right} TO {name}"


async def make_users(config: Config, clickhouse: ClickHouse) -> list[str]:
    """Make or change the users; return their names. Raises: PassingFault, RowsRefused."""
    for statement in user_statements(config):
        await clickhouse.command(statement)
    return [account.name for account in accounts(config)]


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
