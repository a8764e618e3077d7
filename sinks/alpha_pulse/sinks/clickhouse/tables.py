"""Where each topic is stored: the log tables, which follow from the kinds of the contracts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import msgspec

from alpha_pulse.contracts.kinds import KINDS, Kind, Log
from alpha_pulse.sinks.clickhouse.columns import Column, columns_of

# Put before the record's own fields, so that a record can't say where it stands: of two equal JSON
# keys ClickHouse keeps the first or refuses the row.
POSITION_COLUMNS = ("k_topic", "k_partition", "k_offset")


@dataclass(frozen=True)
class Table:
    """The append-only table of one kind of event: a row for each record of its topics."""

    kind: Kind[Any]
    log: Log

    @property
    def name(self) -> str:
        """The table's name, without its database."""
        return self.log.table

    @property
    def event(self) -> type[msgspec.Struct]:
        """What a record of the topics holds."""
        event: type[msgspec.Struct] = self.kind.event
        return event

    @property
    def time_field(self) -> str:
        """The field on the wire whose month decides the table partition."""
        return self.log.time

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What keeps each field of the event, in the order of its Struct."""
        return columns_of(self.event, self.log)

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Fields of the event on the wire, in the order of its Struct."""
        return tuple(column.field for column in self.columns)

    @cached_property
    def insert_columns(self) -> tuple[str, ...]:
        """Columns that an insert names; everything else is computed by the table."""
        return (*POSITION_COLUMNS, *self.fields)

    def column_of(self, field: str) -> str:
        """Return the column that keeps a field's value."""
        return next(column.name for column in self.columns if column.field == field)


@cache
def table_of(kind: Kind[Any]) -> Table:
    """Return the table of a kind. Raises: ValueError for a kind that no table keeps."""
    if kind.log is None:
        raise ValueError(f"expected a kind with a log table, found {kind.name}")
    return Table(kind, kind.log)


def log_tables(kinds: Sequence[Kind[Any]] = KINDS) -> tuple[Table, ...]:
    """Return the tables of the kinds that are kept, in their order."""
    return tuple(table_of(kind) for kind in kinds if kind.log is not None)


def stored_tables(namespace: str, kinds: Sequence[Kind[Any]] = KINDS) -> Mapping[str, Table]:
    """Return the table of each stored topic, by the topic's full name."""
    return {
        topic.full_name(namespace): table
        for table in log_tables(kinds)
        for topic in table.kind.topics.values()
    }
