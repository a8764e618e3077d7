"""The AsyncAPI document is valid, whole, and what the Structs and the topic table say."""

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from alpha_pulse.contracts.kinds import EVENT_TYPES, event_name
from alpha_pulse.contracts.schema.asyncapi import asyncapi_document
from alpha_pulse.contracts.topics import TOPICS

SPECIFICATION = Path(__file__).parent / "asyncapi" / "schema-3.0.0.json.gz"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(gzip.decompress(SPECIFICATION.read_bytes()))
    return jsonschema.Draft7Validator(schema)


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


def target(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_the_document_is_valid_asyncapi_3(validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(asyncapi_document())] == []


@pytest.mark.parametrize(
    "damage",
    [
        {"asyncapi": "2.6.0"},
        {"channels": {"x": {"addres": "y"}}},
        {"operations": {"x": {"action": "publish", "channel": {"$ref": "#/channels/x"}}}},
        {"info": {"title": "without a version"}},
    ],
)
def test_a_damaged_document_is_not(validator: Any, damage: dict[str, Any]) -> None:
    assert not validator.is_valid({**asyncapi_document(), **damage})


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi_document()
    found = references(document)
    assert len(found) > 50
    for reference in found:
        assert target(document, reference)


def test_every_public_topic_is_a_channel_with_its_events() -> None:
    channels = {c["address"]: c for c in asyncapi_document()["channels"].values()}
    assert set(channels) == {topic.name for topic in TOPICS if not topic.internal}
    for topic in TOPICS:
        if not topic.internal:
            names = {event_name(kind) for kind in topic.events}
            assert set(channels[topic.name]["messages"]) == names


def test_the_examples_fit_the_schemas_of_the_document() -> None:
    document = asyncapi_document()
    messages = document["components"]["messages"]
    assert set(messages) == {event_name(kind) for kind in EVENT_TYPES}
    for message in messages.values():
        # Resolved from the document's root, where its references start.
        rule = {**message["payload"], "components": document["components"]}
        for example in message["examples"]:
            jsonschema.Draft202012Validator(rule).validate(example["payload"])
        damaged = {**message["examples"][0]["payload"], "event": "another"}
        assert not jsonschema.Draft202012Validator(rule).is_valid(damaged)
