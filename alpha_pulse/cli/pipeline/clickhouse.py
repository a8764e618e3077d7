"""The sinks' connection to ClickHouse, for commands that migrate or read dead letters."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from alpha_pulse.cli.pipeline.servers import reachable_clickhouse
from alpha_pulse.contracts.config import Config
from alpha_pulse.sinks.clickhouse.client import ClickHouse


@contextlib.asynccontextmanager
async def open_clickhouse(settings: Config) -> AsyncIterator[ClickHouse]:
    """Give the sinks' connection to a ClickHouse that answers."""
    async with reachable_clickhouse(settings) as address:
        reachable = replace(settings, clickhouse=address)
        clickhouse = await ClickHouse.connect(reachable.clickhouse)
        try:
            yield clickhouse
        finally:
            await clickhouse.close()
