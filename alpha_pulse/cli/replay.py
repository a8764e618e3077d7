"""`alpha-pulse replay`: a recording through the whole path, and the verdict."""

import asyncio
import sys
import tempfile
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import orjson
import typer

from alpha_pulse.cli.role_processes import RoleProcesses, role_processes
from alpha_pulse.cli.running import start_runtime, with_servers
from alpha_pulse.cli.stored import (
    connect,
    count_committed,
    count_gaps,
    count_records,
    count_trades,
    processor_lag,
    read_candles,
    read_trades,
)
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import AlphaPulseError, ConfigError
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.topics import CANDLES, EXCHANGE_CANDLES, TRADES
from alpha_pulse.embedded.progress import console_progress
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.faults import REST_FAULTS, STREAM_FAULTS
from alpha_pulse.replay.recording import Recording, RecordingError, load_recording
from alpha_pulse.replay.translated import as_dialect
from alpha_pulse.replay.verdict import (
    compare_with_exchange,
    compare_with_trades,
    count_altered_trades,
)

# Partitions of a run for one symbol: more would only be more transactions to open.
PARTITIONS = 2
STORED_TIMEOUT_S = 600.0
# Tables that a replay waits for, and the topics that fill them.
_WAIT_FOR = {
    "trades_log": (TRADES,),
    "candles_log": tuple(CANDLES.values()),
    "exchange_candles_log": (EXCHANGE_CANDLES,),
}


def replay(
    recording: Annotated[Path, typer.Argument(help="Folder of the recording.", metavar="DIR")],
    json: Annotated[bool, typer.Option("--json", help="Last line: one JSON object.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Keep Kafka's and ClickHouse's files here; default: a fresh one."),
    ] = None,
    dialect: Annotated[
        str, typer.Option(help="Play it as another exchange's frames.", metavar="EXCHANGE")
    ] = "",
    faults: Annotated[
        str,
        typer.Option(help=f"What goes wrong: {','.join(STREAM_FAULTS + REST_FAULTS)}."),
    ] = "",
    seed: Annotated[int, typer.Option(help="The same seed is the same accident.")] = 1,
) -> None:
    """Run a recording at full speed through the whole path and compare what is stored with it.

    Exit code 0 only when every trade is stored once and every candle equals the exchange's own.
    """
    try:
        loaded = load_recording(recording)
        _check_choices(dialect or loaded.exchange, faults)
    except (RecordingError, ConfigError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    market = [str(recording), "--speed", "full", "--seed", str(seed)]
    market += ["--faults", faults] if faults else []
    market += ["--dialect", dialect] if dialect else []
    loaded = as_dialect(loaded, dialect or loaded.exchange)
    with tempfile.TemporaryDirectory(prefix="alpha-pulse-") as fresh:
        result = asyncio.run(_replay(loaded, market, data_dir or Path(fresh)))
    _show(result, as_json=json)
    if not _is_exact(result):
        raise typer.Exit(1)


def _check_choices(dialect: str, faults: str) -> None:
    if dialect not in DIALECTS:
        raise ConfigError(f"expected an exchange, one of {' '.join(DIALECTS)}, found {dialect!r}")
    known = STREAM_FAULTS + REST_FAULTS
    for kind in filter(None, faults.split(",")):
        if kind not in known:
            raise ConfigError(f"expected faults out of {','.join(known)}, found {kind!r}")


async def _replay(recording: Recording, market: list[str], data_dir: Path) -> dict[str, Any]:
    settings = load_config()
    started = time.perf_counter()
    namespace = settings.namespace or f"replay-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(console_progress(sys.stderr))
        runtime = await stack.enter_async_context(start_runtime(settings, data_dir, progress))
        roles = await stack.enter_async_context(role_processes(data_dir / "logs" / namespace))
        url = await roles.start_exchange([*market, "--port", "0"])
        config = _settings(settings, runtime, recording, namespace, url)
        await ensure_topics(config)
        await _run_roles(roles, config)
        ledger = await _ledger(url)
        result = await _verdict(config, recording, ledger)
    result["seconds"] = round(time.perf_counter() - started, 1)
    return result


def _settings(
    settings: Config, runtime: Runtime, recording: Recording, namespace: str, url: str
) -> Config:
    return replace(
        with_servers(settings, runtime),
        namespace=namespace,
        topics=replace(settings.topics, partitions=PARTITIONS),
        producer=replace(
            settings.producer,
            exchange=recording.exchange,
            symbols=(recording.symbol,),
            exchange_url=url,
            clock="event",
            until_us=recording.end_us,
        ),
    )


async def _run_roles(roles: RoleProcesses, config: Config) -> None:
    # The producer ends by itself at the recording's end; then the others have only to catch up.
    for name in ("sink", "processor", "producer"):
        roles.start(name, name, config)
    dead = asyncio.create_task(roles.wait_dead("producer"))
    work = asyncio.create_task(_wait_until_stored(roles, config))
    try:
        await asyncio.wait({dead, work}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise dead.result()
        work.result()
    finally:
        for task in (dead, work):
            task.cancel()
        await asyncio.gather(dead, work, return_exceptions=True)


async def _wait_until_stored(roles: RoleProcesses, config: Config) -> None:
    producer = roles["producer"]
    if await producer.wait() != 0:
        raise producer.death()
    while await processor_lag(config):  # noqa: ASYNC110, the broker is asked, no event tells
        await asyncio.sleep(0.1)
    topics = {topic: None for group in _WAIT_FOR.values() for topic in group}
    committed = await count_committed(config, topics)
    client = connect(config.clickhouse)
    deadline = time.monotonic() + STORED_TIMEOUT_S
    for table, sources in _WAIT_FOR.items():
        expected = sum(committed[topic.name] for topic in sources)
        while (found := count_records(client, config.database, table)) < expected:
            if time.monotonic() > deadline:
                raise AlphaPulseError(
                    f"expected {expected} records in {config.database}.{table}, found {found} "
                    f"after {STORED_TIMEOUT_S:.0f} s; see the sink's log {roles['sink'].log}"
                )
            await asyncio.sleep(0.1)
    client.close()


async def _ledger(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_ledger") as response:
        ledger: dict[str, Any] = orjson.loads(await response.read())
        return ledger


async def _verdict(config: Config, recording: Recording, ledger: dict[str, Any]) -> dict[str, Any]:
    client = connect(config.clickhouse)
    counts = count_trades(client, config.database)
    candles = read_candles(client, config.database)
    altered = count_altered_trades(recording, read_trades(client, config.database))
    gaps = count_gaps(client, config.database)
    client.close()
    return {
        "trades": {
            "sent": ledger["symbols"][recording.symbol]["published"],
            "stored": counts.stored,
            "duplicated": counts.duplicated,
            "republished": counts.republished,
            "altered": altered,
        },
        "gaps": gaps,
        "candles": compare_with_exchange(recording, candles).as_json(),
        "rollups": compare_with_trades(recording, candles).as_json(),
    }


def _is_exact(result: dict[str, Any]) -> bool:
    trades, candles, rollups = result["trades"], result["candles"], result["rollups"]
    return bool(
        trades["sent"] == trades["stored"]
        and trades["duplicated"] == trades["altered"] == 0
        and candles["equal"] == candles["compared"] > 0
        and rollups["equal"] == rollups["compared"]
    )


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(result).decode())
        return
    trades, candles, rollups = result["trades"], result["candles"], result["rollups"]
    typer.echo(
        f"trades   {trades['stored']} of {trades['sent']} stored, {trades['duplicated']} "
        f"duplicated, {trades['republished']} republished, {trades['altered']} altered"
    )
    typer.echo(f"candles  {candles['equal']} of {candles['compared']} equal the exchange's own")
    typer.echo(f"rollups  {rollups['equal']} of {rollups['compared']} equal a recomputation")
    for difference in [*candles["different"], *rollups["different"]]:
        typer.echo(f"  {difference['timeframe']} {difference['open_time_us']}: {difference}")
    typer.echo(f"{result['seconds']} s: {'exact' if _is_exact(result) else 'NOT EXACT'}")
