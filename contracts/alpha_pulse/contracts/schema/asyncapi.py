"""The AsyncAPI 3.0 document: every topic, its events and their schemas, for tools of any language.

Generated from the Structs and the topic table, and shipped beside this file as `asyncapi.json`.
Source: AsyncAPI 3.0.0 specification; its Kafka bindings 0.5.0.
"""

import re
from importlib.metadata import version
from inspect import cleandoc
from typing import Any

import msgspec

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.kinds import EVENT_TYPES, KINDS, event_name
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import INGEST, TOPICS, Topic

_KEYS = {"identity": "the identity"}
DISTRIBUTION = "alpha-pulse-contracts"
BINDING_VERSION = "0.5.0"
_ABOUT = """\
Trades and candles of crypto exchanges, each candle with a proof of its coverage.

Values are JSON on one line; prices and amounts are decimal text, times integer microseconds, UTC.
The key is `exchange:symbol`, the partitioner Kafka's default (murmur2), order is kept per
partition. Read committed records (`isolation.level=read_committed`). The same identity
(`x-identity`) may come again, byte-identical or with a higher `revision`, which then stands. Ignore
fields that you do not know, and skip an event whose `event` you do not know. A namespace, where one
is set, goes before each topic's name.
"""


def asyncapi_document() -> dict[str, Any]:
    """Return the document as plain data, ready for JSON."""
    public = [topic for topic in TOPICS if not topic.internal]
    return {
        "asyncapi": "3.0.0",
        "id": "urn:alpha-pulse:data-pipeline",
        "info": {
            "title": "AlphaPulse Data Pipeline",
            "version": version(DISTRIBUTION),
            "description": _ABOUT,
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "Where [kafka] bootstrap points.",
            }
        },
        "channels": {_channel_name(topic): _channel(topic) for topic in public},
        "operations": dict(operation for topic in public for operation in _operations(topic)),
        "components": {
            "messages": {event_name(event): _message(event) for event in EVENT_TYPES},
            "schemas": _schemas(),
        },
    }


def _channel_name(topic: Topic) -> str:
    # "market.exchange-candles.v1" -> "marketExchangeCandlesV1": keys that code generators accept.
    first, *rest = re.split(r"[.-]", topic.name)
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": topic.description,
        "messages": {
            event_name(event): {"$ref": f"#/components/messages/{event_name(event)}"}
            for event in topic.events
        },
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "topicConfiguration": {
                    "cleanup.policy": [topic.cleanup],
                    "retention.ms": topic.retention_ms,
                },
                "bindingVersion": BINDING_VERSION,
            }
        },
    }


def _operations(topic: Topic) -> list[tuple[str, dict[str, Any]]]:
    # What the pipeline does: it sends everything, and reads back only its own log.
    channel = _channel_name(topic)
    actions = ("send", "receive") if topic is INGEST else ("send",)
    return [
        (
            action + channel[:1].upper() + channel[1:],
            {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel}"},
                "messages": [
                    {"$ref": f"#/channels/{channel}/messages/{event_name(event)}"}
                    for event in topic.events
                ],
            },
        )
        for action in actions
    ]


def _message(event: type[msgspec.Struct]) -> dict[str, Any]:
    # Kinds that share a Struct share its identity and its key.
    kind = next(kind for kind in KINDS if kind.event is event)
    return {
        "name": kind.tag,
        "title": event.__name__,
        "summary": cleandoc(event.__doc__ or "").splitlines()[0],
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": _KEYS.get(kind.key, kind.key)},
                "bindingVersion": BINDING_VERSION,
            }
        },
        "examples": [
            {"name": name, "payload": msgspec.json.decode(encode(example))}
            for name, example in EXAMPLES[event].items()
        ],
        "x-identity": list(kind.identity),
        "x-revised": kind.is_revised,
    }


def _schemas() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components(
        EVENT_TYPES, ref_template="#/components/schemas/{name}"
    )
    for schema in schemas.values():
        schema["description"] = cleandoc(schema.get("description", ""))
    return schemas
