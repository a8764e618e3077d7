"""What would break readers or writers of the released contracts is found, and named."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alpha_pulse.contracts.schema.asyncapi import asyncapi_document
from alpha_pulse.contracts.schema.compatibility import breaking_changes

RELEASED = Path(__file__).parents[3] / "contracts" / "released" / "asyncapi.json"
Fields = dict[str, Any]
NULL: dict[str, Any] = {"type": "null"}


def test_the_contracts_of_the_last_release_still_hold() -> None:
    broken = breaking_changes(json.loads(RELEASED.read_text()), asyncapi_document())
    assert broken == [], "make it an optional field, or a new topic with the next version"


def changed(change: Callable[[dict[str, Any]], None]) -> list[str]:
    document = asyncapi_document()
    after = copy.deepcopy(document)
    change(after)
    return breaking_changes(document, after)


def candle(change: Callable[[Fields, dict[str, Any]], object]) -> list[str]:
    def apply(document: dict[str, Any]) -> None:
        schema = document["components"]["schemas"]["Candle"]
        change(schema["properties"], schema)

    return changed(apply)


def renamed(fields: Fields, schema: dict[str, Any]) -> None:
    fields["last_price"] = fields.pop("close")
    schema["required"] = [n if n != "close" else "last_price" for n in schema["required"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda fields, schema: fields.pop("close"), "candle.close: the field was removed"),
        (renamed, "candle.close: the field was removed or renamed"),
        (
            lambda fields, schema: fields["close"].update(pattern="^[0-9]+$"),
            "candle.close: changed: pattern",
        ),
        (
            lambda fields, schema: fields["source"].update(enum=["exchange", "trades"]),
            "candle.source: narrowed: enum",
        ),
        (
            lambda fields, schema: fields["coverage"]["enum"].append("guessed"),
            "candle.coverage: widened: enum",
        ),
        (
            lambda fields, schema: fields["revision"].update(maximum=100),
            "candle.revision: narrowed: maximum",
        ),
        (
            lambda fields, schema: fields["revision"].update(minimum=-1),
            "candle.revision: widened: minimum",
        ),
        (
            lambda fields, schema: fields["symbol"].update(maxLength=8),
            "candle.symbol: narrowed: maxLength",
        ),
        (
            lambda fields, schema: fields["close"].update(type="number"),
            "candle.close: string is not accepted any more",
        ),
        (
            lambda fields, schema: fields.update(volume={"type": "string"}),
            "candle.volume: widened: pattern",
        ),
        (
            lambda fields, schema: fields.update(close={"anyOf": [fields["close"], NULL]}),
            "candle.close: may be null now",
        ),
        (
            lambda fields, schema: fields["trade_count"]["anyOf"].remove(NULL),
            "candle.trade_count: null is not accepted any more",
        ),
        (
            lambda fields, schema: schema["required"].remove("close"),
            "candle.close: may be missing now",
        ),
        (
            lambda fields, schema: schema["required"].append("job"),
            "candle.job: required now",
        ),
        (
            lambda fields, schema: (
                fields.update(vwap={"type": "string"}),
                schema["required"].append("vwap"),
            ),
            "candle.vwap: a new field must be optional",
        ),
        (
            lambda fields, schema: schema.update(additionalProperties=False),
            "candle: narrowed: additionalProperties",
        ),
    ],
)
def test_a_change_of_a_field_is_found(change: Any, said: str) -> None:
    found = candle(change)
    assert any(line.startswith(said) for line in found), found


def test_a_change_inside_a_list_is_found() -> None:
    def change(document: dict[str, Any]) -> None:
        document["components"]["schemas"]["FieldDifference"]["properties"].pop("ours")

    assert "audit.differences[].ours: the field was removed or renamed" in changed(change)


def test_a_topic_or_an_event_that_went_or_changed_is_found() -> None:
    def without(document: dict[str, Any]) -> None:
        del document["channels"]["marketGapsV1"]
        document["channels"]["marketTradesV1"]["address"] = "market.ticks.v1"
        del document["channels"]["ingestEventsV1"]["messages"]["gap"]
        del document["components"]["messages"]["heartbeat"]
        document["components"]["messages"]["trade"]["x-identity"] = ["trade_id"]

    assert sorted(changed(without)) == [
        "event heartbeat was removed or renamed",
        "topic ingest.events.v1 carries no gap any more",
        "topic market.gaps.v1 was removed or renamed",
        "topic market.trades.v1 was removed or renamed",
        "trade: x-identity was ['exchange', 'symbol', 'trade_id'], is ['trade_id']",
    ]


def test_words_and_optional_fields_and_new_topics_and_events_are_free() -> None:
    def change(document: dict[str, Any]) -> None:
        schema = document["components"]["schemas"]["Candle"]
        schema["properties"]["close"]["description"] = "the last price"
        schema["properties"]["vwap"] = {"type": "string", "default": "0"}
        schema["required"].reverse()
        document["channels"]["marketVwapV1"] = {"address": "market.vwap.v1", "messages": {}}
        document["components"]["messages"]["vwap"] = {"payload": {"type": "object"}}
        document["info"]["version"] = "9.9.9"

    assert changed(change) == []


def test_a_kind_may_come_to_a_topic_and_may_not_leave_it() -> None:
    def added(document: dict[str, Any]) -> None:
        for channel in ("ingestEventsV1", "marketTradesV1"):
            document["channels"][channel]["messages"]["tide"] = {}
        document["components"]["messages"]["tide"] = {"payload": {"type": "object"}}

    assert changed(added) == []

    with_it = asyncapi_document()
    added(with_it)
    assert breaking_changes(with_it, asyncapi_document()) == [
        "topic ingest.events.v1 carries no tide any more",
        "topic market.trades.v1 carries no tide any more",
        "event tide was removed or renamed",
    ]
