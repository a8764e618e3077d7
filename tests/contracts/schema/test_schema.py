"""Schemas, examples and the topic table are what the Structs say."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.kinds import EVENT_TYPES, KINDS, event_name
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.schema.json_schema import (
    HERE,
    generated_files,
    json_schema,
    kind_table,
    topic_table,
)
from alpha_pulse.contracts.topics import TOPICS


def test_the_files_are_the_ones_that_would_be_written() -> None:
    written = {path for kind in ("schemas", "examples") for path in (HERE / kind).rglob("*.json")}
    written.add(HERE / "asyncapi.json")
    expected = generated_files()
    assert written == set(expected)
    stale = [path.name for path, text in expected.items() if path.read_text() != text]
    assert not stale, "run: python -m alpha_pulse.contracts.schema"


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_each_event_has_three_examples_that_decode_and_fit_its_schema(event_type: Any) -> None:
    schema = json_schema(event_type)
    jsonschema.Draft202012Validator.check_schema(schema)
    paths = sorted((HERE / "examples" / f"{event_name(event_type)}.v1").glob("*.json"))
    assert len(paths) >= 3
    for path in paths:
        message = path.read_bytes().strip()
        jsonschema.validate(json.loads(message), schema)
        event = decode_event(message)
        assert type(event) is event_type
        assert encode(event) == message


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_the_schema_refuses_what_the_decoder_refuses(event_type: Any) -> None:
    schema = json_schema(event_type)
    example = msgspec.to_builtins(next(iter(EXAMPLES[event_type].values())))
    for name in schema["required"]:
        damaged = {key: value for key, value in example.items() if key != name}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(damaged, schema)


def test_every_field_of_every_kind_is_described() -> None:
    for kind in KINDS:
        assert [field.name for field in kind.fields if not field.description] == [], kind.name


def test_examples_are_of_the_kinds_and_every_kind_is_in_the_table() -> None:
    assert set(EXAMPLES) == set(EVENT_TYPES)
    rows = kind_table().splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [k.name for k in KINDS]


def test_topic_names_have_dots_and_dashes_only_and_each_is_in_the_table() -> None:
    table = topic_table()
    for topic in TOPICS:
        assert "_" not in topic.name
        assert f"`{topic.name}`" in table
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)
