"""`alpha-pulse replay`: a recording through the whole path, and the verdict."""

import asyncio
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from alpha_pulse.cli.replay.accidents import plan_accidents
from alpha_pulse.cli.replay.run import ReplayPlan, run_replay
from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.exchange.faults import REST_FAULTS, STREAM_FAULTS
from alpha_pulse.replay.markets.recording import RecordingError, load_recording
from alpha_pulse.replay.translated import as_dialect


class Role(StrEnum):
    """What can be killed, by the name of its command."""

    PRODUCE = "produce"
    PROCESS = "process"
    SINK = "sink"


ROLE_OF = {Role.PRODUCE: "producer", Role.PROCESS: "processor", Role.SINK: "sink"}


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
    kill: Annotated[
        Role | None, typer.Option(help="Kill this role with SIGKILL while it works.")
    ] = None,
    kills: Annotated[int, typer.Option(min=1, help="How often.")] = 1,
    workers: Annotated[
        int, typer.Option(min=1, max=2, help="2: a second processor joins and leaves.")
    ] = 1,
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
    market = [str(recording), "--seed", str(seed)]
    market += ["--faults", faults] if faults else []
    market += ["--dialect", dialect] if dialect else []
    accidents = plan_accidents(ROLE_OF[kill] if kill else "", kills if kill else 0, workers, seed)
    loaded = as_dialect(loaded, dialect or loaded.exchange)
    with tempfile.TemporaryDirectory(prefix="alpha-pulse-") as fresh:
        result = asyncio.run(
            run_replay(ReplayPlan(loaded, market, data_dir or Path(fresh), accidents))
        )
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
