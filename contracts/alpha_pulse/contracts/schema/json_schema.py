"""JSON Schemas, example messages and the topic table, all written from the Structs.

`python -m alpha_pulse.contracts.schema` writes `schemas/`, `examples/` and `asyncapi.json` beside
this file; a test compares what is there with what would be written.
"""

import json
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.events import EVENT_TYPES
from alpha_pulse.contracts.schema.asyncapi import asyncapi_document
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import TOPICS

HERE = Path(__file__).parent


def event_name(event_type: type[msgspec.Struct]) -> str:
    """Return the name by which an event is told apart, such as `trade`."""
    return str(event_type.__struct_config__.tag)


def json_schema(event_type: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one event.

    Unknown fields are allowed: a newer writer may add some, and a reader ignores them.
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


def field_descriptions(event_type: type[msgspec.Struct]) -> dict[str, str]:
    """Return the description of each field, for column comments and docs."""
    properties = json_schema(event_type)["properties"]
    return {name: _description(rule) for name, rule in properties.items()}


def _description(rule: dict[str, Any]) -> str:
    if "description" in rule:
        return str(rule["description"])
    for option in rule.get("anyOf", []):
        if "description" in option:
            return str(option["description"])
    return ""


def topic_table() -> str:
    """Return the topics as a Markdown table."""
    lines = ["| topic | events | key | retention | what |", "| --- | --- | --- | --- | --- |"]
    for topic in TOPICS:
        events = ", ".join(event_name(event) for event in topic.events) or "internal"
        kept = "compacted" if topic.cleanup == "compact" else f"{topic.retention_ms // 3_600_000} h"
        lines.append(f"| `{topic.name}` | {events} | {topic.key} | {kept} | {topic.description} |")
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
