"""`alpha-pulse demo`: a market, the whole path and a live view, in one command."""

import asyncio
import contextlib
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.live import Live

from alpha_pulse.cli.pipeline.role_processes import RoleProcesses, role_processes
from alpha_pulse.cli.pipeline.servers import announced, start_runtime, with_partitions, with_servers
from alpha_pulse.cli.pipeline.stored import connect
from alpha_pulse.cli.run.live_view import MarketWatch, Snapshot, as_line, as_table
from alpha_pulse.cli.run.page import page_beside, page_reader
from alpha_pulse.contracts.config import Config, ProducerConfig, load_config
from alpha_pulse.contracts.config_sources import without_password
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.roles.stopping import stop_on_signal
from alpha_pulse.embedded.progress import console_progress
from alpha_pulse.replay.markets.recording import RecordingError, load_recording

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
LINE_INTERVAL_S = 5.0
# So much of the made-up market's past is brought as history: a chart needs something to show.
HISTORY = timedelta(hours=1)


def demo(
    recording: Annotated[
        Path | None,
        typer.Option(help="Play this recording, over and over, instead of a made-up market."),
    ] = None,
    for_seconds: Annotated[
        float, typer.Option("--for", help="End after so many seconds; 0: on Ctrl-C.")
    ] = 0.0,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where Kafka and ClickHouse keep their files.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="No view; a summary as one object.")] = False,
) -> None:
    """Show candles moving: exchange, Kafka, processor and ClickHouse, all on this machine."""
    settings = load_config()
    if data_dir is not None:
        settings = replace(settings, data_dir=str(data_dir))
    market = ["--synthetic", ",".join(SYMBOLS)]
    producer = replace(settings.producer, exchange=ProducerConfig.exchange, symbols=SYMBOLS)
    if recording is not None:
        try:
            loaded = load_recording(recording)
        except RecordingError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
        market = [str(recording), "--loop", "--shift-to-now"]
        producer = replace(producer, exchange=loaded.exchange, symbols=(loaded.symbol,))
    settings = replace(settings, producer=producer)
    history = HISTORY if recording is None else None
    summary = asyncio.run(_demo(settings, market, history, for_seconds, quiet=json))
    if json:
        typer.echo(orjson.dumps(summary).decode())
    else:
        _show_summary(summary)


async def _demo(
    settings: Config,
    market: list[str],
    history: timedelta | None,
    for_seconds: float,
    *,
    quiet: bool,
) -> dict[str, Any]:
    stop = asyncio.Event()
    stop_on_signal(stop)
    page, logins = page_reader(settings)
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(console_progress(sys.stderr))
        runtime = await stack.enter_async_context(
            start_runtime(settings, Path(settings.data_dir), progress, logins)
        )
        config = await with_partitions(with_servers(settings, runtime), runtime)
        stack.enter_context(announced(config))
        await ensure_topics(config)
        roles = await stack.enter_async_context(role_processes(runtime.data_dir / "logs"))
        url = await roles.start_exchange([*market, "--speed", "1.0", "--port", "0"])
        config = replace(config, producer=replace(config.producer, exchange_url=url))
        for name in ("sink", "processor", "producer"):
            roles.start(name, name, config)
        if history is not None:
            start = (datetime.now(UTC) - history).isoformat()
            followed = (config.producer.exchange, *config.producer.symbols)
            roles.start_backfill(config, [*followed, "--trades", "--start", start, "--json"])
        await stack.enter_async_context(page_beside(config, page))
        ended = [
            asyncio.create_task(stop.wait()),
            asyncio.create_task(roles.wait_dead("history")),
            asyncio.create_task(runtime.wait_dead()),
        ]
        async with MarketWatch(config) as watch:
            started = time.monotonic()
            view = asyncio.create_task(_view(watch, quiet=quiet))
            timeout_s = for_seconds or None
            await asyncio.wait(
                [*ended, view], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            await _finish(view, ended)
            await _drain(roles)
            return {
                "seconds": round(time.monotonic() - started, 1),
                "kafka": config.kafka.bootstrap,
                "clickhouse": without_password(config.clickhouse.url),
                "database": config.database,
                **_stored(config),
            }


async def _view(watch: MarketWatch, *, quiet: bool) -> None:
    console = Console(stderr=quiet)
    if quiet or not console.is_terminal:
        while True:
            await asyncio.sleep(LINE_INTERVAL_S)
            snapshot = await watch.look()
            if not quiet:
                typer.echo(as_line(snapshot))
    with Live(as_table(Snapshot()), console=console, refresh_per_second=4) as live:
        while True:
            live.update(as_table(await watch.look()))
            await asyncio.sleep(0.5)


async def _finish(view: asyncio.Task[None], ended: list[asyncio.Task[Any]]) -> None:
    """Stop watching; raise the error of a role or server that ended by itself."""
    failures: list[BaseException] = []
    for task in (view, *ended):
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            try:
                result = await task
            except AlphaPulseError as error:
                failures.append(error)
            else:
                if isinstance(result, AlphaPulseError):
                    failures.append(result)
    if failures:
        raise failures[0]


async def _drain(roles: RoleProcesses) -> None:
    typer.echo("stopping: producer, processor, sink", err=True)
    await roles.stop_all()


def _stored(config: Config) -> dict[str, Any]:
    client = connect(config.clickhouse)
    parameters = {"database": config.database}
    trades = client.query(
        "SELECT count() FROM {database:Identifier}.trades", parameters=parameters
    ).result_rows[0][0]
    candles = client.query(
        "SELECT timeframe, toString(coverage), count() FROM {database:Identifier}.candles "
        "GROUP BY 1, 2 ORDER BY 1, 2",
        parameters=parameters,
    ).result_rows
    client.close()
    return {
        "trades": trades,
        "candles": [
            {"timeframe": timeframe, "coverage": coverage, "count": count}
            for timeframe, coverage, count in candles
        ],
    }


def _show_summary(summary: dict[str, Any]) -> None:
    typer.echo(f"\n{summary['trades']} trades stored in {summary['seconds']} s; candles:")
    for row in summary["candles"]:
        typer.echo(f"  {row['timeframe']:>3}  {row['coverage']:<11} {row['count']}")
    typer.echo(
        "\nThe data stay. To look further:\n"
        '  .venv/bin/alpha-pulse sql "SELECT * FROM latest_candles"\n'
        '  .venv/bin/alpha-pulse sql "SELECT symbol, open_time, open, high, low, close, volume, '
        "coverage FROM candles WHERE timeframe = '1m' ORDER BY open_time DESC LIMIT 10\""
    )
