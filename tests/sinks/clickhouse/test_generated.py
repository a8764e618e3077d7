"""The SQL that follows from a kind: for a cluster, for each sort of field. No server."""

from typing import Annotated

import pytest
from msgspec import Meta

from alpha_pulse.contracts.config import ClickHouseConfig, Config
from alpha_pulse.contracts.events import Event, TimeUs
from alpha_pulse.contracts.kinds import CANDLE, DEAD_LETTER, GAP, KINDS, Log
from alpha_pulse.sinks.clickhouse.columns import columns_of
from alpha_pulse.sinks.clickhouse.generated import changes, create_table, identity_view
from alpha_pulse.sinks.clickhouse.statements import placeholders, statements
from alpha_pulse.sinks.clickhouse.tables import log_tables, table_of
from alpha_pulse.sinks.clickhouse.views import load_views

CLUSTER = placeholders(Config(clickhouse=ClickHouseConfig(cluster="prod")))


def test_on_a_cluster_every_table_and_view_is_made_on_all_of_it() -> None:
    texts = [create_table(table) for table in log_tables()]
    texts += [view.text for view in load_views(log_tables())]
    for text in texts:
        (statement,) = statements(text, CLUSTER)
        assert " ON CLUSTER prod" in statement.split("\n")[0]
        assert "{{" not in statement
    (table,) = statements(create_table(table_of(CANDLE)), CLUSTER)
    assert "\nENGINE = ReplicatedMergeTree\n" in table
    assert "SETTINGS replicated_deduplication_window = 10000" in table


def test_every_statement_of_a_table_or_view_can_be_repeated() -> None:
    for table in log_tables():
        assert create_table(table).startswith("CREATE TABLE IF NOT EXISTS ")
    for view in load_views(log_tables()):
        (statement,) = statements(view.text, CLUSTER)
        assert statement.startswith(f"CREATE OR REPLACE VIEW alpha_pulse.{view.name} ")


def test_a_view_reads_only_what_was_made_before_it() -> None:
    made = {table.name for table in log_tables()}
    names = [view.name for view in load_views(log_tables())]
    for view in load_views(log_tables()):
        (statement,) = statements(view.text, CLUSTER)
        words = {part.split()[0] for part in statement.split("alpha_pulse.")[2:]}
        assert words <= made, view.name
        made.add(view.name)
    assert len(set(names)) == len(names)


def test_a_file_takes_the_place_of_the_generated_view_of_its_name() -> None:
    (gaps,) = [view for view in load_views(log_tables()) if view.name == "gaps"]
    assert "length_s" in gaps.text
    assert "length_s" not in identity_view(table_of(GAP))


def test_an_identity_view_shows_the_newest_revision_where_there_is_one() -> None:
    assert "revision DESC\nLIMIT 1 BY exchange, symbol, timeframe, open_time" in identity_view(
        table_of(CANDLE)
    )
    assert identity_view(table_of(DEAD_LETTER)).endswith("dead_letters_log\nLIMIT 1 BY identity")


def test_a_table_that_is_up_to_date_needs_no_change() -> None:
    for table in log_tables():
        types = {column.name: column.type for column in table.columns}
        assert changes(table, types) == []
        # Values that went, or changed their number, are no growth: that is a DDL file's to say.
        types |= {name: "Enum8('' = 0, 'x' = 1)" for name in types}
        assert changes(table, types) == []


def test_a_time_that_may_lie_before_2009_is_checked_against_its_own_bounds() -> None:
    class Old(Event, frozen=True, kw_only=True, tag="old"):
        seen_us: TimeUs
        born_us: Annotated[int, Meta(ge=0, extra={"is_time": True})]

    seen, born = columns_of(Old, Log(table="old_log", time="seen_us", order=("seen_us",)))[-2:]
    assert "toDateTime64('2009-01-01 00:00:00'" in seen.condition
    assert seen.wire == "Int64 EPHEMERAL"
    assert "toDateTime64('1970-01-01 00:00:00'" in born.condition
    assert born.wire == "Int64 EPHEMERAL -1"  # 0 would be a time


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.log], ids=lambda kind: kind.name)
def test_what_a_log_says_of_its_kind_is_true(kind: object) -> None:
    (table,) = [table for table in log_tables() if table.kind is kind]
    assert table.log.time in table.fields
    assert {*table.log.order, *table.log.columns} <= set(table.fields)
    assert hasattr(Config().clickhouse, table.log.retention)
