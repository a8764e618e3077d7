"""`alpha-pulse schema`: what travels, for people and for tools of any language."""

from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.kinds import EVENT_TYPES, event_name
from alpha_pulse.contracts.schema.asyncapi import asyncapi_document
from alpha_pulse.contracts.schema.compatibility import breaking_changes
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.schema.json_schema import json_schema, kind_table, topic_table


def schema(
    event: Annotated[
        str, typer.Argument(help="Such as candle; without it, topics and kinds.")
    ] = "",
    asyncapi: Annotated[
        bool, typer.Option("--asyncapi", help="The AsyncAPI 3.0 document of all topics.")
    ] = False,
    examples: Annotated[
        bool, typer.Option("--examples", help="Messages of that event, one per line.")
    ] = False,
    check: Annotated[
        Path | None,
        typer.Option(help="An AsyncAPI document of an earlier version: exit 1 if this breaks it."),
    ] = None,
) -> None:
    """Print topics and kinds, an event's JSON Schema or examples, or the AsyncAPI document."""
    if check is not None:
        _check(check)
    elif asyncapi:
        typer.echo(_json(asyncapi_document()))
    elif not event:
        typer.echo(topic_table())
        typer.echo(kind_table(), nl=False)
    else:
        events = {event_name(event_type): event_type for event_type in EVENT_TYPES}
        if event not in events:
            raise ValidationError(
                f"expected an event, one of {', '.join(events)}, found {event[:40]!r}"
            )
        if examples:
            for example in EXAMPLES[events[event]].values():
                typer.echo(encode(example).decode())
        else:
            typer.echo(_json(json_schema(events[event])))


def _check(path: Path) -> None:
    try:
        found = breaking_changes(orjson.loads(path.read_bytes()), asyncapi_document())
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValidationError(
            f"expected an AsyncAPI document of these contracts in {path}, found "
            f"{type(error).__name__}: {error}; make one with: alpha-pulse schema --asyncapi"
        ) from error
    for line in found:
        typer.echo(line)
    typer.echo(f"{len(found)} breaking changes against {path}", err=True)
    raise typer.Exit(1 if found else 0)


def _json(document: dict[str, Any]) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
