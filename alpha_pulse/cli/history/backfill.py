"""`alpha-pulse backfill`: the past of a market, through Kafka, complete or with what is missing."""

import asyncio
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from alpha_pulse.cli.history.run import (
    EXIT_MISSING,
    missing_json,
    missing_line,
    now_us,
    running_pipeline,
    time_us,
)
from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import ConfigError, format_us
from alpha_pulse.contracts.market import (
    PUBLISHED_TIMEFRAMES,
    TIMEFRAMES,
    check_symbol,
    get_timeframe,
)
from alpha_pulse.data_pipeline.history.pipeline import for_exchange, open_pipeline
from alpha_pulse.data_pipeline.history.report import Report


def backfill(
    exchange: Annotated[str, typer.Argument(help="ccxt's id, such as binance.")],
    symbols: Annotated[list[str], typer.Argument(help="Such as BTC/USDT ETH/USDT.")],
    start: Annotated[str, typer.Option(help="ISO time, UTC.")],
    end: Annotated[str, typer.Option(help="ISO time, UTC; default: now.")] = "",
    timeframe: Annotated[str, typer.Option(help="Of the candles to fetch.")] = "1m",
    trades: Annotated[bool, typer.Option("--trades", help="Trades by id; builds candles.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
    config: ConfigFile = None,
) -> None:
    """Fetch what is missing of a window and bring it through Kafka; run it again to go on.

    Exit code 3: something stays missing; the list says what and why.
    """
    if timeframe not in PUBLISHED_TIMEFRAMES:
        raise ConfigError(
            f"expected --timeframe as one that is stored, one of {' '.join(PUBLISHED_TIMEFRAMES)}, "
            f"found {timeframe!r}; the views make any other from 1m"
        )
    settings = for_exchange(load_config(config), exchange)
    window = (time_us(start, "--start"), time_us(end, "--end") if end else now_us())
    if window[0] >= window[1]:
        raise ConfigError(f"expected --start before --end, found {start} and {end or 'now'}")
    wanted = [check_symbol(symbol) for symbol in dict.fromkeys(symbols)]
    reports = asyncio.run(_run(settings, wanted, timeframe, window, trades=trades, quiet=json))
    if json:
        typer.echo(orjson.dumps({"symbols": [report_json(r) for r in reports]}).decode())
    else:
        for report in reports:
            _tell(report)
    if not all(report.is_complete for report in reports):
        raise typer.Exit(EXIT_MISSING)


async def _run(
    settings: Config, symbols: list[str], timeframe: str, window: tuple[int, int],
    *, trades: bool, quiet: bool,
) -> list[Report]:  # fmt: skip
    with _progress(quiet) as progress:
        bars: dict[str, TaskID] = {}

        def moved(report: Report) -> None:
            symbol = report.market.symbol
            if symbol not in bars:
                # What was there before is no work: rate and time left are of what is fetched.
                bars[symbol] = progress.add_task(symbol, total=None)
            absent = sum(run.end_us - run.start_us for run in report.missing)
            total = report.wanted - report.had
            if not trades:
                total -= absent // TIMEFRAMES[timeframe].duration_us
            progress.update(bars[symbol], completed=report.fetched, total=max(total, 0))

        async with (
            running_pipeline(settings) as config,
            open_pipeline(config, on_progress=moved) as pipeline,
        ):
            return await pipeline.backfill.run(symbols, timeframe, *window, trades=trades)


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


def report_json(report: Report) -> dict[str, Any]:
    """Return a report as `--json` tells it."""
    frame = get_timeframe(report.timeframe or "1m")
    return {
        "exchange": report.market.exchange,
        "symbol": report.market.symbol,
        "kind": report.kind,
        "timeframe": report.timeframe or None,
        "start": format_us(report.start_us),
        "end": format_us(report.end_us),
        "wanted": report.wanted,
        "had": report.had,
        "fetched": report.fetched,
        "longer_candles_fetched": report.rebuilt,
        "requests": report.requests,
        "missing": [missing_json(run, frame) for run in report.missing],
        "missing_trade_ids": [list(run) for run in report.missing_ids],
        "error": report.error or None,
    }


def _tell(report: Report) -> None:
    what = f"{report.timeframe} candles" if report.kind == "candles" else "trades"
    typer.echo(
        f"{report.market.exchange} {report.market.symbol} {what}: wanted {report.wanted}, had "
        f"{report.had}, fetched {report.fetched} in {report.requests} requests"
    )
    for run in report.missing:
        typer.echo(f"  missing {missing_line(run, get_timeframe(report.timeframe))}")
    for first, last in report.missing_ids:
        typer.echo(f"  missing trades {first} to {last}")
    if report.error:
        typer.echo(f"  {report.error}", err=True)
