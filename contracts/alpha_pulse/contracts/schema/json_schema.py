"""JSON Schemas, example messages and the docs' tables, all written from the table of kinds.

`python -m alpha_pulse.contracts.schema` writes `schemas/`, `examples/` and `asyncapi.json` beside
this file; a test compares what is there with what would be written.
"""

import json
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.kinds import EVENT_TYPES, KINDS, event_name
from alpha_pulse.contracts.schema.asyncapi import asyncapi_document
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import INGEST, TOPICS

HERE = Path(__file__).parent


def json_schema(event_type: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one event.

    Args:
        event_type: a Struct of `events`.

    Returns:
        Plain data, ready for JSON. Unknown fields are allowed: a newer writer may add some, and a
        reader ignores them.
    """
    schema, definitions = msgspec.json.schema_components(
        [event_type], ref_template="#/$defs/{name}"
    )
    name = schema[0]["$ref"].rsplit("/", 1)[1]
    own = definitions.pop(name)
    for definition in (own, *definitions.values()):
        definition["description"] = cleandoc(definition.get("description", ""))
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **own,
    }
    if definitions:
        document["$defs"] = definitions
    return document


def topic_table() -> str:
    """Return the topics as a Markdown table."""
    lines = ["| topic | events | key | retention | what |", "| --- | --- | --- | --- | --- |"]
    for topic in TOPICS:
        events = ", ".join(event_name(event) for event in topic.events) or "internal"
        kept = "compacted" if topic.cleanup == "compact" else f"{topic.retention_ms // 3_600_000} h"
        lines.append(f"| `{topic.name}` | {events} | {topic.key} | {kept} | {topic.description} |")
    return "\n".join(lines) + "\n"


def kind_table() -> str:
    """Return the kinds as a Markdown table."""
    lines = [
        "| kind | `event` | topic | identity | highest revision stands | ClickHouse, days kept |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        topics = [f"`{kind.topic}`"] if kind.topic else []
        topics += [f"`{INGEST.name}`"] if kind.ingest else []
        stored = f"`{kind.log.table}`, `{kind.log.retention}`" if kind.log else ""
        lines.append(
            f"| {kind.name} | {kind.tag} | {', '.join(topics)} | {', '.join(kind.identity)} | "
            f"{'yes' if kind.is_revised else ''} | {stored} |"
        )
    return "\n".join(lines) + "\n"


def generated_files() -> dict[Path, str]:
    """Return every generated file and its text."""
    files = {HERE / "asyncapi.json": json.dumps(asyncapi_document(), indent=2) + "\n"}
    for event_type in EVENT_TYPES:
        name = event_name(event_type)
        schema = json.dumps(json_schema(event_type), indent=2) + "\n"
        files[HERE / "schemas" / f"{name}.v1.json"] = schema
        for title, event in EXAMPLES[event_type].items():
            text = encode(event).decode() + "\n"
            files[HERE / "examples" / f"{name}.v1" / f"{title}.json"] = text
    return files


def write_files() -> None:
    """Write every generated file."""
    for path, text in generated_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
