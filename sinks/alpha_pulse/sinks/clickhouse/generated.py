"""The SQL that follows from a kind: its log table, changes of an older one, and its identity view.

All of it can be repeated. `{{…}}` are the placeholders of `migrate`.
"""

from collections.abc import Mapping

from alpha_pulse.sinks.clickhouse.columns import column_comments, quoted
from alpha_pulse.sinks.clickhouse.tables import Table

_POSITION = (
    ("k_topic", "LowCardinality(String)"),
    ("k_partition", "Int32 DEFAULT -1 CODEC(ZSTD(1))"),
    ("k_offset", "Int64 DEFAULT -1 CODEC(Delta, ZSTD(1))"),
)
# Mutations rebuild the projections, so that they never differ from the rows.
_SETTINGS = {
    "{{deduplication_window}}": "10000",
    "lightweight_mutation_projection_mode": "'rebuild'",
    "deduplicate_merge_projection_mode": "'rebuild'",
}


def create_table(table: Table) -> str:
    """Return the statement that makes a kind's log table.

    Every record of its topics once, sorted as the kind says, Kafka position last: the data and the
    offset store in one.
    """
    definitions = {}
    for column in table.columns:
        if column.wire:
            definitions[column.field] = column.wire
        definitions[column.name] = column.definition
    definitions |= _POSITION
    comments = column_comments(table.columns)
    lines = [
        f"{name} {_commented(definition, comments[name])}"
        for name, definition in definitions.items()
    ]
    lines += [f"CONSTRAINT {name} CHECK {check}" for name, check in constraints(table).items()]
    lines.append("INDEX i_offset k_offset TYPE minmax GRANULARITY 1")
    projections = {
        "p_offsets": "SELECT k_topic, k_partition, min(k_offset), max(k_offset), count() "
        "GROUP BY k_topic, k_partition",
        **table.log.projections,
    }
    lines += [f"PROJECTION {name} ({select})" for name, select in projections.items()]
    order = [*(table.column_of(field) for field in table.log.order), *(n for n, _ in _POSITION)]
    settings = {**_SETTINGS, **table.log.settings}
    return (
        f"CREATE TABLE IF NOT EXISTS {{{{database}}}}.{table.name} {{{{on_cluster}}}}\n(\n    "
        + ",\n    ".join(lines)
        + "\n)\nENGINE = {{engine}}\n"
        f"PARTITION BY toYYYYMM({table.column_of(table.time_field)})\n"
        f"ORDER BY ({', '.join(order)})\n"
        f"SETTINGS {', '.join(f'{name} = {value}' for name, value in settings.items())}"
    )


def _commented(definition: str, comment: str) -> str:
    # ClickHouse wants the comment before the codec.
    head, codec, rest = definition.partition(" CODEC(")
    return f"{head} COMMENT {quoted(comment)}{codec}{rest}"


def constraints(table: Table) -> dict[str, str]:
    """Return the constraints of a log table by name: one for all columns of a sort."""
    conditions: dict[str, list[str]] = {}
    for column in table.columns:
        if column.check:
            conditions.setdefault(column.check, []).append(column.condition)
    return {
        **{name: " AND ".join(parts) for name, parts in conditions.items()},
        "kafka_position_set": "k_topic != '' AND k_partition >= 0 AND k_offset >= 0",
        **table.log.checks,
    }


def changes(table: Table, types: Mapping[str, str]) -> list[str]:
    """Return the parts of an ALTER TABLE that bring an older table to the kind's fields.

    A field that records may leave out gets its column; an enumeration gets its new values. Whatever
    else changes is a numbered file.

    Args:
        table: the table as it should be.
        types: the columns that are there, with their types.
    """
    parts = []
    for column in table.columns:
        here = types.get(column.name)
        if here is None and column.is_optional:
            if column.wire:
                parts.append(f"ADD COLUMN IF NOT EXISTS {column.field} {column.wire}")
            parts.append(f"ADD COLUMN IF NOT EXISTS {column.name} {column.definition}")
            if column.check:
                parts.append(
                    f"ADD CONSTRAINT IF NOT EXISTS {column.check} CHECK {column.condition}"
                )
        elif here is not None and here != column.type and _only_grew(here, column.type):
            parts.append(f"MODIFY COLUMN {column.name} {column.definition}")
    return parts


def identity_view(table: Table) -> str:
    """Return the statement that makes the view of a log table with one row of each identity.

    The key begins with the table's order, so that filters on it are pushed below the LIMIT BY; of
    several revisions the highest stands.
    """
    order = [field for field in table.log.order if field != "revision"]
    key = [table.column_of(f) for f in dict.fromkeys((*order, *table.kind.identity))]
    shown = [
        f"{column.name} AS {column.field}" if column.name == f"{column.field}_dec" else column.name
        for column in table.columns
    ]
    newest = f"ORDER BY {', '.join(key)}, revision DESC\n" if "revision" in table.fields else ""
    return (
        f"CREATE OR REPLACE VIEW {{{{database}}}}.{view_name(table)} {{{{on_cluster}}}} AS\n"
        f"SELECT {', '.join(shown)}\n"
        f"FROM {{{{database}}}}.{table.name}\n"
        f"{newest}LIMIT 1 BY {', '.join(key)}"
    )


def view_name(table: Table) -> str:
    """Return the name under which readers find a kind: that of its table without `_log`."""
    return table.name.removesuffix("_log")


def _only_grew(here: str, wanted: str) -> bool:
    # 'a' = 1) has become 'a' = 1, 'b' = 2).
    return here.startswith("Enum8(") and wanted.startswith(here.removesuffix(")") + ",")
