"""The tables of the SQLAlchemy storage, and how a row gets into them in each kind of database."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from alpha_pulse.contracts.decimals import plain_text
from alpha_pulse.contracts.fields import Field
from alpha_pulse.contracts.kinds import CANDLE, TRADE, Kind

Row = dict[str, Any]


class ExactDecimal(sa.types.TypeDecorator[str]):
    """Decimal text in and out, a number inside where the database has an exact one."""

    impl = sa.String(64)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        """Return NUMERIC without a scale, which keeps trailing zeros, or text."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.NUMERIC())
        return dialect.type_descriptor(sa.String(64))

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:
        """Return what the driver takes."""
        return Decimal(value) if value is not None and dialect.name == "postgresql" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:
        """Return decimal text."""
        return plain_text(value) if isinstance(value, Decimal) else value


metadata = sa.MetaData()


def _table(name: str, kind: Kind[Any]) -> sa.Table:
    # The identity is the primary key, and its columns come first.
    columns = {
        field.name: sa.Column(
            field.name,
            _column_type(field),
            primary_key=field.name in kind.identity,
            autoincrement=False,
        )
        for field in kind.fields
    }
    ordered = [columns.pop(part) for part in kind.identity] + list(columns.values())
    return sa.Table(name, metadata, *ordered)


def _column_type(field: Field) -> Any:
    if field.decimal is not None:
        return ExactDecimal()
    if isinstance(field.type, msgspec.inspect.IntType):
        return sa.BigInteger()
    return sa.String(128)


CANDLES = _table("candles", CANDLE)
TRADES = _table("trades", TRADE)
TABLES: dict[str, sa.Table] = {CANDLE.name: CANDLES, TRADE.name: TRADES}
sa.Index("trades_by_time", TRADES.c.exchange, TRADES.c.symbol, TRADES.c.trade_time_us)


async def upsert(
    connection: AsyncConnection,
    table: sa.Table,
    rows: list[Row],
    condition: Callable[[Any, sa.Table], Any] | None,
) -> None:
    """Insert rows; one that is there already is replaced where the condition holds, else kept.

    Args:
        connection: inside the transaction that they belong to.
        table: of this module.
        rows: unique by primary key.
        condition: (new, stored) to an SQL expression; None: never.
    """
    key = [column.name for column in table.primary_key]
    others = [column.name for column in table.columns if column.name not in key]
    dialect = connection.dialect.name
    if dialect in ("postgresql", "sqlite"):
        insert = (postgresql if dialect == "postgresql" else sqlite).insert(table)
        statement: Any = insert.on_conflict_do_nothing(index_elements=key)
        if condition is not None:
            statement = insert.on_conflict_do_update(
                index_elements=key,
                set_={name: insert.excluded[name] for name in others},
                where=condition(insert.excluded, table),
            )
        await connection.execute(statement, rows)
    elif dialect in ("mysql", "mariadb") and condition is None:
        await connection.execute(mysql.insert(table).prefix_with("IGNORE"), rows)
    else:
        await upsert_row_by_row(connection, table, rows, condition)


async def upsert_row_by_row(
    connection: AsyncConnection,
    table: sa.Table,
    rows: list[Row],
    condition: Callable[[Any, sa.Table], Any] | None,
) -> None:
    """Do what `upsert` does with plain SQL, for databases without a way of their own."""
    key = [column.name for column in table.primary_key]
    for row in rows:
        same = sa.and_(*(table.c[name] == row[name] for name in key))
        if (await connection.execute(sa.select(sa.literal(1)).where(same))).first() is None:
            await connection.execute(table.insert(), row)
        elif condition is not None:
            new = {name: sa.literal(row[name], table.c[name].type) for name in row}
            changes = {name: value for name, value in row.items() if name not in key}
            await connection.execute(
                table.update().where(same, condition(_Named(new), table)).values(changes)
            )


class _Named:
    # Looks like `insert.excluded` to a condition.
    def __init__(self, values: Row) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return self._values[name]
