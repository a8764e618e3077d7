"""`alpha-pulse status`: lag, freshness, gaps, coverage, dead letters and rates, now."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alpha_pulse.cli.inspect.pipeline_status import PipelineStatus, SymbolStatus, read_status
from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.cli.pipeline.servers import reachable_clickhouse, with_running_kafka
from alpha_pulse.contracts.config import ClickHouseConfig, Config, load_config
from alpha_pulse.contracts.config_sources import without_password
from alpha_pulse.contracts.errors import AlphaPulseError

_COLUMNS = ("symbol", "state", "trades/s", "last trade", "last minute", "coverage of 24 h")
_MORE = ("gaps", "unequal", "dead letters")


def status(
    config: ConfigFile = None,
    json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Show what the pipeline is doing: of Kafka's groups and of every exchange and symbol.

    Exit code 1 when Kafka or ClickHouse can't be reached.
    """
    found = asyncio.run(_status(load_config(config)))
    if json:
        typer.echo(orjson.dumps(found.as_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        _show(found)
    if found.kafka_problem or found.clickhouse_problem:
        raise typer.Exit(1)


async def _status(settings: Config) -> PipelineStatus:
    settings = with_running_kafka(settings)
    async with _clickhouse(settings) as (clickhouse, shown):
        return await read_status(settings, clickhouse, shown)


@contextlib.asynccontextmanager
async def _clickhouse(settings: Config) -> AsyncIterator[tuple[ClickHouseConfig | None, str]]:
    """Give the ClickHouse that answers and its address; None and why, where none does."""
    default = settings.clickhouse.url == ClickHouseConfig().url
    if default and not (Path(settings.data_dir) / "clickhouse").exists():
        yield settings.clickhouse, settings.clickhouse.url
        return
    async with contextlib.AsyncExitStack() as stack:
        try:
            address = await stack.enter_async_context(reachable_clickhouse(settings))
        except AlphaPulseError as error:
            yield None, str(error)
            return
        yield address, without_password(address.url)


def _show(found: PipelineStatus) -> None:
    console = Console()
    rows = [_row(one) for one in found.symbols]
    if console.is_terminal:
        table = Table(*_COLUMNS, *_MORE, box=None, header_style="bold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
    else:
        for row in [[*_COLUMNS, *_MORE], *rows]:
            typer.echo("\t".join(row))
    for group, topics in found.lag.items():
        most = ", ".join(f"{name} {count}" for name, count in topics.items() if count)
        typer.echo(f"lag of {group}: {sum(topics.values())} records{f' ({most})' if most else ''}")
    for reason, count in found.dead_letters_of_day.items():
        typer.echo(f"dead letters of 24 h: {reason} {count}")
    for line in found.attention():
        typer.echo(f"! {line}")


def _row(one: SymbolStatus) -> list[str]:
    candles = sum(one.coverage_of_day.values())
    coverage = ", ".join(
        f"{name} {count / candles:.1%}" for name, count in sorted(one.coverage_of_day.items())
    )
    open_gaps = sum(n for status, n in one.gaps_of_day.items() if status != "filled")
    return [
        f"{one.exchange} {one.symbol}",
        one.state or "-",
        f"{one.trades_per_s:.1f}",
        _age(one.trade_age_s),
        _age(one.candle_age_s),
        coverage or "-",
        f"{open_gaps} ({one.gap_seconds_of_day:.0f} s)",
        str(one.audits_of_day.get("different", 0)),
        str(one.dead_letters_of_day),
    ]


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
