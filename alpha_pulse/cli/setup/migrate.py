"""`alpha-pulse migrate`: bring the database to this version's schema."""

import asyncio

import typer

from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.cli.pipeline.clickhouse import open_clickhouse
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.sinks.clickhouse.migrate import migrate as apply_migrations


def migrate(config: ConfigFile = None) -> None:
    """Create or update tables and views, each file once; safe when several start at once."""
    applied = asyncio.run(_migrate(load_config(config)))
    typer.echo("\n".join(applied) if applied else "nothing to apply: the schema is up to date")


async def _migrate(settings: Config) -> list[str]:
    async with open_clickhouse(settings) as clickhouse:
        return await apply_migrations(settings, clickhouse)
