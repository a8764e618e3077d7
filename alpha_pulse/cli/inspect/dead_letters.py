"""`alpha-pulse deadletters list | show | replay`: what could not be accepted."""

import asyncio
from typing import Annotated, Any

import orjson
import typer

from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.cli.pipeline.clickhouse import open_clickhouse
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.sinks.clickhouse.dead_letters import (
    Replay,
    StoredDeadLetter,
    list_dead_letters,
    replay_dead_letters,
    show_dead_letter,
)

app = typer.Typer(name="deadletters", help="What could not be accepted, with its bytes.")
Reason = Annotated[str, typer.Option(help="Only those with this reason, such as bad_schema.")]
Topic = Annotated[str, typer.Option(help="Only those from this topic.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per dead letter.")]
EXCERPT_CHARACTERS = 100


@app.command("list")
def list_(
    config: ConfigFile = None,
    reason: Reason = "",
    topic: Topic = "",
    limit: Annotated[int, typer.Option(min=1)] = 100,
    json: AsJson = False,
) -> None:
    """List dead letters, the newest first."""
    for letter in asyncio.run(_list(load_config(config), reason, topic, limit)):
        if json:
            typer.echo(_as_json(letter))
        else:
            error = letter.error[:EXCERPT_CHARACTERS]
            typer.echo(f"{letter.time:%F %T} {letter.identity} {letter.reason}: {error}")


@app.command()
def show(
    identity: Annotated[str, typer.Argument(help="As `list` prints it.")],
    config: ConfigFile = None,
) -> None:
    """Show one dead letter whole, its bytes as text."""
    typer.echo(_as_json(asyncio.run(_show(load_config(config), identity)), indent=True))


@app.command()
def replay(
    identities: Annotated[list[str] | None, typer.Argument(help="None: all that match.")] = None,
    config: ConfigFile = None,
    reason: Reason = "",
    topic: Topic = "",
    limit: Annotated[int, typer.Option(min=1)] = 1000,
) -> None:
    """Publish the bytes again to the topic that they came from, once their cause is mended."""
    result = asyncio.run(_replay(load_config(config), identities, reason, topic, limit))
    for identity in result.published:
        typer.echo(f"published {identity}")
    for identity, why in result.refused:
        typer.echo(f"left alone {identity}: {why}", err=True)
    if result.refused:
        raise typer.Exit(1)


async def _list(settings: Config, reason: str, topic: str, limit: int) -> list[StoredDeadLetter]:
    async with open_clickhouse(settings) as clickhouse:
        return await list_dead_letters(
            clickhouse, settings.database, reason=reason or None, topic=topic or None, limit=limit
        )


async def _show(settings: Config, identity: str) -> StoredDeadLetter:
    async with open_clickhouse(settings) as clickhouse:
        return await show_dead_letter(clickhouse, settings.database, identity)


async def _replay(
    settings: Config, identities: list[str] | None, reason: str, topic: str, limit: int
) -> Replay:
    if identities:
        letters = [await _show(settings, identity) for identity in identities]
    else:
        letters = await _list(settings, reason, topic, limit)
    return await replay_dead_letters(settings, letters)


def _as_json(letter: StoredDeadLetter, *, indent: bool = False) -> str:
    fields: dict[str, Any] = {
        "identity": letter.identity,
        "time": letter.time,
        "reason": letter.reason,
        "error": letter.error,
        "exchange": letter.exchange,
        "symbol": letter.symbol,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "payload": letter.payload.decode(errors="backslashreplace"),
        "payload_bytes": letter.payload_bytes,
    }
    return orjson.dumps(fields, option=orjson.OPT_INDENT_2 if indent else None).decode()
