"""`alpha-pulse sql`: one query, as a table or as JSON."""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import orjson
import typer
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.query import QueryResult
from rich.console import Console
from rich.table import Table

from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.cli.pipeline.servers import reachable_clickhouse
from alpha_pulse.cli.pipeline.stored import connect
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import StorageError


def sql(
    query: Annotated[str, typer.Argument(help='For example "SELECT * FROM latest".')],
    config: ConfigFile = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per row.")] = False,
) -> None:
    """Run a query in the pipeline's database; a running demo is used, else the engine is opened."""
    result = asyncio.run(_query(load_config(config), query))
    if json:
        for row in result.named_results():
            typer.echo(orjson.dumps(row, default=_text).decode())
        return
    rows = [[_text(value) for value in values] for values in result.result_rows]
    console = Console()
    if not console.is_terminal:
        for values in [list(result.column_names), *rows]:
            typer.echo("\t".join(values))
        return
    table = Table(*result.column_names, box=None, header_style="bold")
    for values in rows:
        table.add_row(*values)
    console.print(table)


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case Decimal():
            return format(value.normalize(), "f") if value else "0"
        case datetime():
            return value.isoformat(" ").removesuffix("+00:00")
    return str(value)


async def _query(settings: Config, query: str) -> QueryResult:
    async with reachable_clickhouse(settings) as clickhouse:
        try:
            client = connect(clickhouse, settings.database)
            return await asyncio.to_thread(client.query, query)
        except ClickHouseError as error:
            raise StorageError(
                f"expected a query that ClickHouse can run in the database {settings.database}, "
                f"found: {error}"
            ) from error
