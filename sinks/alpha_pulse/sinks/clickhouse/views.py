"""The views: `views/*.sql` and one of each kind, applied whenever their text has changed.

A table remembers which text of a view was applied last. A view is ours once its name stands there:
one that this version does not bring any more is dropped, one of somebody else is never touched.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import structlog

from alpha_pulse.contracts.errors import StorageError
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.generated import identity_view, view_name
from alpha_pulse.sinks.clickhouse.statements import IDENTIFIER, run, statements
from alpha_pulse.sinks.clickhouse.tables import Table

log = structlog.get_logger(__name__)

# Made by the files 0009 to 0012, before views were remembered.
_MADE_BY_FILES = frozenset(
    {
        *("trades", "candles", "exchange_candles", "candle_audit", "audits", "gaps", "status"),
        *("latest", "latest_candles", "freshness", "dead_letters"),
        *("ohlc_from_trades", "ohlc_from_candles"),
    }
)
_TABLE = """CREATE TABLE IF NOT EXISTS {{database}}.schema_views {{on_cluster}}
(
    name String COMMENT 'name of a view that the pipeline made',
    checksum String COMMENT 'SHA-256 of the statement applied last; empty: none',
    at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') COMMENT 'clock of ClickHouse, UTC'
)
ENGINE = {{replacing_engine}}(at) ORDER BY name"""
_NONE = ""  # the checksum of a view that is about to be made, or was dropped


@dataclass(frozen=True, slots=True)
class View:
    """A view that this version brings. text: one statement that can be repeated, placeholders."""

    name: str
    text: str

    def checksum(self, values: dict[str, str]) -> str:
        """Return the SHA-256 of the statement with its placeholders filled in."""
        return hashlib.sha256("\n".join(statements(self.text, values)).encode()).hexdigest()


def load_views(tables: Sequence[Table]) -> tuple[View, ...]:
    """Return a view of each identity of the tables, then the files, which may read those.

    A file takes the place of the generated view of its name.
    """
    found = [
        View(entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8"))
        for entry in files("alpha_pulse.sinks.clickhouse").joinpath("views").iterdir()
        if entry.name.endswith(".sql")
    ]
    written = {view.name for view in found}
    made = [
        View(view_name(table), identity_view(table))
        for table in tables
        if view_name(table) not in written
    ]
    identities = {view_name(table) for table in tables}
    found.sort(key=lambda view: (view.name not in identities, view.name))
    return (*made, *found)


async def keep_views(
    clickhouse: ClickHouse, database: str, values: dict[str, str], views: Sequence[View]
) -> list[str]:
    """Bring the views to this version's texts; return the names of those changed or dropped.

    Raises:
        StorageError: something of the name of a new view is there that the pipeline did not make.
        NotAllowed, PassingFault: as `statements.run`.
    """
    rows = await clickhouse.rows(
        "SELECT name, engine FROM system.tables WHERE database = {database:String}",
        {"database": database},
    )
    # In this order: whoever makes a view claims its name before.
    there: dict[str, str] = {name: engine for name, engine in rows}
    applied = await _applied(clickhouse, database) if "schema_views" in there else {}
    changed = [
        view
        for view in views
        if view.name not in there or applied.get(view.name) != view.checksum(values)
    ]
    brought = {view.name for view in views}
    # A sink may write into that table: what it says is a name, and the name of a view.
    gone = [
        name
        for name, text in applied.items()
        if text != _NONE and name not in brought and IDENTIFIER.match(name)
        if there.get(name, "View") == "View"
    ]
    if (changed or gone) and "schema_views" not in there:
        await run(clickhouse, _TABLE, values, "the table schema_views")
    for view in changed:
        if view.name in there and view.name not in applied and view.name not in _MADE_BY_FILES:
            raise StorageError(
                f"expected the name {view.name} to be free for a view in database {database}, "
                "found a table or view that the pipeline did not make; rename it"
            )
        if view.name not in applied:
            await _record(clickhouse, database, view.name, _NONE)
        await run(clickhouse, view.text, values, f"the view {view.name}")
        await _record(clickhouse, database, view.name, view.checksum(values))
    for name in gone:
        drop = f"DROP VIEW IF EXISTS {{{{database}}}}.{name} {{{{on_cluster}}}}"
        await run(clickhouse, drop, values, f"the end of the view {name}")
        await _record(clickhouse, database, name, _NONE)
    if changed or gone:
        log.info("views.applied", database=database, changed=len(changed), dropped=len(gone))
    return [f"views/{name}" for name in (*(view.name for view in changed), *gone)]


async def _applied(clickhouse: ClickHouse, database: str) -> dict[str, str]:
    rows = await clickhouse.rows(
        f"SELECT name, argMax(checksum, at) FROM {database}.schema_views GROUP BY name"
    )
    return {name: checksum for name, checksum in rows}


async def _record(clickhouse: ClickHouse, database: str, name: str, checksum: str) -> None:
    row = {"name": name, "checksum": checksum}
    await clickhouse.insert(f"{database}.schema_views", list(row), json.dumps(row).encode(), {})
