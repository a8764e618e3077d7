"""`alpha-pulse migrate`: bring the database to this version's schema."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import typer

from alpha_pulse.cli.roles import ConfigFile
from alpha_pulse.cli.running import reachable_clickhouse
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.migrate import migrate as apply_migrations


def migrate(config: ConfigFile = None) -> None:
    """Create or update tables and views, each file once; safe when several start at once."""
    applied = asyncio.run(_migrate(load_config(config)))
    typer.echo("\n".join(applied) if applied else "nothing to apply: the schema is up to date")


async def _migrate(settings: Config) -> list[str]:
    async with open_clickhouse(settings) as clickhouse:
        return await apply_migrations(settings, clickhouse)


@asynccontextmanager
async def open_clickhouse(settings: Config) -> AsyncIterator[ClickHouse]:
    """Give the sinks' connection to a ClickHouse that answers."""
    async with reachable_clickhouse(settings) as address:
        reachable = replace(settings, clickhouse=address)
        clickhouse = await ClickHouse.connect(reachable.clickhouse)
        try:
            yield clickhouse
        finally:
            await clickhouse.close()
