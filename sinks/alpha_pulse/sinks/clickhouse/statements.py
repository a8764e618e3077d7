"""DDL statements: from a text with placeholders to ClickHouse, while others may do the same."""

import asyncio
import re
from collections.abc import Set

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import ConfigError, StorageError
from alpha_pulse.contracts.events import COVERAGE_ORDER
from alpha_pulse.contracts.market import SECOND_US, TIMEFRAMES
from alpha_pulse.sinks.clickhouse.client import ClickHouse, PassingFault
from alpha_pulse.sinks.clickhouse.columns import quoted

_TARGET = re.compile(
    r"(?:CREATE TABLE IF NOT EXISTS|ALTER TABLE|CREATE OR REPLACE VIEW) (?:\w+)\.(\w+)\b"
)
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
# What two migrations that run at once may meet: the other one is just making or replacing it.
_RACES = ("TABLE_ALREADY_EXISTS", "UNKNOWN_TABLE", "DDL_GUARD_IS_ACTIVE", "CANNOT_ASSIGN_ALTER")
_ATTEMPTS_MAX = 5
_ACCESS_DENIED = 497


class NotAllowed(StorageError):
    """The user may not change the schema, and the schema is not this version's."""


def placeholders(config: Config) -> dict[str, str]:
    """Return what fills the `{{…}}` of the DDL: names, engines, settings, words of the contracts.

    Raises:
        ConfigError: the database or cluster is no plain identifier.
    """
    clickhouse = config.clickhouse
    for setting, name in (("database", config.database), ("cluster", clickhouse.cluster)):
        if name and not IDENTIFIER.match(name):
            raise ConfigError(
                f"expected letters, digits and _ in [clickhouse] {setting}, found {name!r}"
            )
    replicated = "Replicated" if clickhouse.cluster else ""
    seconds = [timeframe.duration_us // SECOND_US for timeframe in TIMEFRAMES.values()]
    return {
        "database": config.database,
        "on_cluster": f"ON CLUSTER {clickhouse.cluster}" if clickhouse.cluster else "",
        "engine": f"{replicated}MergeTree",
        "replacing_engine": f"{replicated}ReplacingMergeTree",
        "deduplication_window": f"{'' if replicated else 'non_'}replicated_deduplication_window",
        "timeframes": f"[{', '.join(map(quoted, TIMEFRAMES))}]",
        "timeframe_seconds": f"[{', '.join(map(str, seconds))}]",
        "coverages": f"[{', '.join(map(quoted, COVERAGE_ORDER))}]",
    }


def statements(text: str, values: dict[str, str]) -> list[str]:
    """Return the statements of a DDL text, comments dropped, placeholders filled in.

    A statement ends with `;` at a line's end; a `--` comment has its line for itself.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    filled = _PLACEHOLDER.sub(lambda match: values[match[1]], "\n".join(lines))
    parts = re.split(r";[ \t]*(?:\n|$)", filled)
    return [part.strip() for part in parts if part.strip()]


async def run(
    clickhouse: ClickHouse,
    text: str,
    values: dict[str, str],
    what: str,
    settled: Set[str] = frozenset(),
) -> None:
    """Run each statement of a DDL text.

    Args:
        clickhouse: where.
        text: statements that can be repeated, with placeholders.
        values: what fills the placeholders.
        what: what the statements make, for the error.
        settled: tables and views whose form needs nothing of this text: statements that make or
            change them are left out.

    Raises:
        NotAllowed: the user lacks a right.
        StorageError: ClickHouse refuses a statement.
        PassingFault: ClickHouse is away.
    """
    for statement in statements(text, values):
        target = _TARGET.match(statement)
        if target is not None and target[1] in settled:
            continue
        await _run(clickhouse, statement, what)


async def _run(clickhouse: ClickHouse, statement: str, what: str) -> None:
    for attempt in range(1, _ATTEMPTS_MAX + 1):
        try:
            await clickhouse.command(statement)
        except PassingFault as error:
            if error.code is None:
                raise  # ClickHouse is away: the caller decides how long to wait
            if error.code == _ACCESS_DENIED:
                raise NotAllowed(
                    f"expected the schema of this version, or a user who may apply {what}; run "
                    f"`alpha-pulse migrate` as such a user: {error}"
                ) from error
            if attempt == _ATTEMPTS_MAX or not any(race in str(error) for race in _RACES):
                raise StorageError(f"expected to apply {what}: {error}") from error
            await asyncio.sleep(0.1 * attempt)
        else:
            return
