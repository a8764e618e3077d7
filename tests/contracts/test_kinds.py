"""The table of kinds: what it says of a kind fits the kind's Struct, and nothing stands twice."""

from dataclasses import fields
from typing import Any

import pytest

from alpha_pulse.contracts.config import ClickHouseConfig
from alpha_pulse.contracts.kinds import INGEST_TYPES, KINDS, Kind
from alpha_pulse.contracts.topics import (
    AUDITS,
    CANDLES,
    DEAD_LETTERS,
    EXCHANGE_CANDLES,
    GAPS,
    INGEST,
    OPEN_CANDLES,
    STATUS,
    STORED_TOPICS,
    TOPICS,
    TRADES,
)


def names(kind: Kind[Any]) -> set[str]:
    return {field.name for field in kind.fields}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_speaks_of_fields_that_its_struct_has(kind: Kind[Any]) -> None:
    assert set(kind.identity) <= names(kind)
    parts = kind.key.split(":")
    assert set(parts) <= names(kind)
    if kind.log is not None:
        assert kind.log.time in kind.time_fields
        assert set(kind.log.order) <= names(kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_days_that_a_table_is_kept_are_a_setting(kind: Kind[Any]) -> None:
    if kind.log is not None:
        assert kind.log.retention in {field.name for field in fields(ClickHouseConfig)}


def test_a_topic_is_one_object_wherever_it_is_named() -> None:
    # Code compares topics with `is`: two objects of one topic once stored candles twice.
    of_kinds = [topic for kind in KINDS for topic in kind.topics.values()]
    named = [TRADES, *CANDLES.values(), EXCHANGE_CANDLES, OPEN_CANDLES, GAPS, STATUS, AUDITS]
    for topic in (*named, DEAD_LETTERS, *STORED_TOPICS):
        assert any(topic is other for other in TOPICS), topic.name
        assert any(topic is other for other in of_kinds), topic.name


def test_names_topics_and_tables_are_of_one_kind_each() -> None:
    topics = [topic.name for kind in KINDS for topic in kind.topics.values()]
    tables = [kind.log.table for kind in KINDS if kind.log is not None]
    for found in ([kind.name for kind in KINDS], topics, tables):
        assert len(set(found)) == len(found)


def test_every_kind_travels_somewhere_and_is_stored_only_from_a_topic_of_its_own() -> None:
    for kind in KINDS:
        assert kind.ingest or kind.topics, kind.name
        assert kind.log is None or kind.topics, kind.name
        assert all(topic in TOPICS for topic in kind.topics.values())
        assert all(
            (topic in STORED_TOPICS) == (kind.log is not None) for topic in kind.topics.values()
        )
    assert INGEST.events == INGEST_TYPES
