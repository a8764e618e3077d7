"""What each column means, in the words of the contracts."""

import typing

import msgspec

from alpha_pulse.sinks.clickhouse.tables import Table

_POSITION = {
    "k_topic": "Kafka topic; #n after it from the topic's second epoch on",
    "k_partition": "Kafka partition",
    "k_offset": "Kafka offset; unique per topic and partition",
}
# Fields whose Struct says nothing more than their name.
_PLAIN = {
    "trade_count": "number of trades; null: the source does not know",
    "first_trade_id": "id of the first trade; null: unknown or none",
    "last_trade_id": "id of the last trade; null: unknown or none",
    "state": "live, disconnected or halted",
    "status": "open, filled or unfillable",
    "complete_until_us": "everything earlier is stored or in a gap, Unix us",
    "last_trade_time_us": "time of the last trade, Unix us; null: none yet",
    "result": "equal, different, missing_exchange or missing_ours",
    "differences": "fields that differ: ours and the exchange's, decimal text",
    "candle_revision": "revision of our candle; null: we have none",
    "exchange_revision": "revision of the exchange's candle; null: it has none",
    "identity": "topic:partition:offset of a record, sha256:... of a frame",
    "exchange": "exchange of the message; null: unknown",
    "symbol": "symbol of the message; null: unknown",
    "partition": "Kafka partition of the record; null for a frame",
    "offset": "Kafka offset of the record; null for a frame",
    "time_us": "Kafka time of the record, receipt of a frame, Unix us",
}


def column_comments(table: Table) -> dict[str, str]:
    """Return the comment of every column of a table that an event's field feeds.

    The texts are the descriptions of the event's Struct; a field on the wire that only feeds
    another column says so.
    """
    comments = dict(_POSITION)
    for field, description in field_descriptions(table).items():
        column = table.column_of(field)
        if column == field:
            comments[field] = description
            continue
        comments[field] = f"on the wire only, see {column}"
        comments[column] = (
            description.replace("Unix time, us, UTC", "UTC, microseconds")
            .replace("Unix us, UTC", "UTC, microseconds")
            .replace("Unix us", "UTC, microseconds")
            .replace(", decimal text", "")
        )
    return comments


def field_descriptions(table: Table) -> dict[str, str]:
    """Return what the contracts say of each field of a table's event."""
    hints = typing.get_type_hints(table.event, include_extras=True)
    return {
        field: _description(hints[field]) or _PLAIN.get(field, "") or field.replace("_", " ")
        for field in table.fields
    }


def _description(hint: typing.Any) -> str:
    # A field's own words stand behind those of its type.
    for meta in reversed(getattr(hint, "__metadata__", ())):
        if isinstance(meta, msgspec.Meta) and meta.description:
            return meta.description
    for part in typing.get_args(hint):
        found = _description(part)
        if found:
            return found
    return ""
