"""Candles and trades in any SQLAlchemy 2 database, for programs that want no Kafka and ClickHouse.

Needs the extra `sql` (`pip install alpha-pulse-sinks[sql]`). Numbers stay exact: PostgreSQL keeps
NUMERIC with the exchange's own digits, databases without such a type keep the decimal text.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from alpha_pulse.contracts.errors import ConfigError, MarketWindow, StorageError
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.kinds import CANDLE, TRADE, Kind
from alpha_pulse.contracts.newest import identity
from alpha_pulse.sinks.library.sql_tables import CANDLES, TABLES, TRADES, Row, metadata, upsert
from alpha_pulse.sinks.library.storage_config import StorageConfig

DEFAULT_URL = "sqlite+aiosqlite:///alpha_pulse.db"
# So often tables are made that somebody else makes at the same moment.
OPEN_ATTEMPTS_MAX = 5
EventT = TypeVar("EventT", Candle, Trade)


class SQLAlchemyStorage:
    """Candles and trades, each identity once; of a candle the highest revision stands.

    Saving is idempotent. Tables are made on first use.

    Args:
        url: an asynchronous SQLAlchemy address, such as `postgresql+asyncpg://user@host/name`.
        config: limits; without it, the defaults.

    Raises:
        StorageError: by every call, when the database can't be reached or refuses.
        ConfigError: by the first use, when the address is none or its driver is not installed.
    """

    def __init__(self, url: str = DEFAULT_URL, config: StorageConfig | None = None) -> None:
        self.config = config or StorageConfig()
        self._url = sa.make_url(url)
        self._engine: AsyncEngine | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> "SQLAlchemyStorage":
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect and make the tables that are missing; called by the first use."""
        async with self._opening:
            if self._engine is not None:
                return
            engine = self._new_engine()
            try:
                async with self._guarded("open the database"):
                    await _make_tables(engine)
            except StorageError:
                await engine.dispose()
                raise
            self._engine = engine

    async def close(self) -> None:
        """Give all connections back."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def flush(self) -> None:
        """Open it, if need be: what was saved is committed and seen by everybody already."""
        await self.open()

    async def save_candles(self, candles: Iterable[Candle]) -> int:
        """Store candles; of one window the highest revision stands, of equal ones the last.

        Args:
            candles: of any markets and timeframes, in any order.

        Returns:
            How many were given, those that changed nothing too.
        """
        return await self._save(CANDLE, candles)

    async def save_trades(self, trades: Iterable[Trade]) -> int:
        """Store the trades that are not there yet.

        Args:
            trades: of any markets, in any order.

        Returns:
            How many were given, those that changed nothing too.
        """
        return await self._save(TRADE, trades)

    async def load_candles(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[Candle]:
        """Return the stored candles of a window.

        Args:
            exchange: as the candles name it.
            symbol: as the candles name it.
            timeframe: such as `1m`.
            start_us: the first open time, Unix us.
            end_us: exclusive, Unix us.

        Returns:
            One candle of each open time, ascending.
        """
        query = (
            _of_market(CANDLES, exchange, symbol)
            .where(CANDLES.c.timeframe == timeframe)
            .where(CANDLES.c.open_time_us >= start_us, CANDLES.c.open_time_us < end_us)
            .order_by(CANDLES.c.open_time_us)
        )
        about = MarketWindow(exchange, symbol, timeframe, start_us, end_us)
        return [_event(row, Candle) for row in await self._fetch(query, "candles", about)]

    async def load_trades(
        self, exchange: str, symbol: str, start_us: int, end_us: int
    ) -> list[Trade]:
        """Return the stored trades of a window.

        Args:
            exchange: as the trades name it.
            symbol: as the trades name it.
            start_us: the first time of a trade, Unix us.
            end_us: exclusive, Unix us.

        Returns:
            Trades by time, then by id (shorter ids first).
        """
        query = (
            _of_market(TRADES, exchange, symbol)
            .where(TRADES.c.trade_time_us >= start_us, TRADES.c.trade_time_us < end_us)
            .order_by(TRADES.c.trade_time_us, sa.func.length(TRADES.c.trade_id), TRADES.c.trade_id)
        )
        about = MarketWindow(exchange, symbol, None, start_us, end_us)
        return [_event(row, Trade) for row in await self._fetch(query, "trades", about)]

    async def open_times_us(
        self, exchange: str, symbol: str, timeframe: str, start_us: int, end_us: int
    ) -> list[int]:
        """Return which candles of a window are stored; arguments are those of `load_candles`.

        Returns:
            Their open times, ascending, Unix us.
        """
        query = (
            sa.select(CANDLES.c.open_time_us)
            .where(CANDLES.c.exchange == exchange, CANDLES.c.symbol == symbol)
            .where(CANDLES.c.timeframe == timeframe)
            .where(CANDLES.c.open_time_us >= start_us, CANDLES.c.open_time_us < end_us)
            .order_by(CANDLES.c.open_time_us)
        )
        about = MarketWindow(exchange, symbol, timeframe, start_us, end_us)
        return [row["open_time_us"] for row in await self._fetch(query, "open times", about)]

    async def _save(self, kind: Kind[EventT], events: Iterable[EventT]) -> int:
        await self.open()
        given = list(events)
        table = TABLES[kind.name]
        condition = _newer_revision if kind.is_revised else None
        for start in range(0, len(given), self.config.batch_size):
            page = given[start : start + self.config.batch_size]
            rows = _unique_rows(kind, page)
            action = f"store {len(page)} {table.name}"
            async with self._connection(action, _window_of(kind, page)) as connection:
                await upsert(connection, table, rows, condition)
        return len(given)

    async def _fetch(self, query: Any, what: str, about: MarketWindow) -> Sequence[sa.RowMapping]:
        await self.open()
        async with self._connection(f"read {what}", about) as connection:
            return (await connection.execute(query)).mappings().all()

    @asynccontextmanager
    async def _connection(self, action: str, about: MarketWindow) -> AsyncIterator[AsyncConnection]:
        assert self._engine is not None
        async with self._guarded(action, about), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _guarded(self, action: str, about: MarketWindow | None = None) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.config.timeout):
                yield
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            reason = str(error).split("\n")[0] or f"nothing within {self.config.timeout} s"
            raise StorageError(
                f"expected to {action} in {self._url.render_as_string(hide_password=True)}, found "
                f"{type(error).__name__}: {reason}; check the address and that the database is up",
                about,
            ) from error

    def _new_engine(self) -> AsyncEngine:
        arguments: dict[str, Any] = {
            "pool_size": self.config.max_connections,
            "max_overflow": 0,
            "pool_timeout": self.config.timeout,
            "pool_pre_ping": True,
        }
        is_sqlite = self._url.get_backend_name() == "sqlite"
        if is_sqlite and self._url.database in (None, "", ":memory:"):
            # The database is the connection: one, that everybody waits for.
            arguments |= {"pool_size": 1, "poolclass": AsyncAdaptedQueuePool}
        try:
            engine = create_async_engine(self._url, **arguments)
        except (SQLAlchemyError, ImportError) as error:
            raise ConfigError(
                f"expected an asynchronous SQLAlchemy address such as {DEFAULT_URL} or "
                f"postgresql+asyncpg://user@host/name, found "
                f"{self._url.render_as_string(hide_password=True)}: {error}"
            ) from error
        if is_sqlite:
            timeout_ms = int(self.config.timeout * 1000)
            sa.event.listen(engine.sync_engine, "connect", _sqlite_settings(timeout_ms))
        return engine


async def _make_tables(engine: AsyncEngine) -> None:
    # Several may open a new database at once: whoever comes second is refused ("already exists" by
    # SQLite and MySQL, a unique index of the catalog by PostgreSQL), and then finds the tables.
    for attempt in range(OPEN_ATTEMPTS_MAX):
        try:
            async with engine.begin() as connection:
                await connection.run_sync(metadata.create_all, checkfirst=True)
            return
        except SQLAlchemyError as error:
            met = isinstance(error, IntegrityError | ProgrammingError)
            if attempt + 1 == OPEN_ATTEMPTS_MAX or not (
                met or "already exists" in str(error) or "locked" in str(error)
            ):
                raise
        await asyncio.sleep(0.01 * 2**attempt)


def _newer_revision(new: Any, stored: sa.Table) -> Any:
    return new.revision >= stored.c.revision


def _unique_rows(kind: Kind[EventT], events: Sequence[EventT]) -> list[Row]:
    # One statement can't change a row twice; the highest revision stands, of equal ones the last.
    chosen: dict[tuple[Any, ...], Any] = {}
    for event in events:
        key = identity(event)
        previous = chosen.get(key)
        if previous is None or (
            kind.is_revised and getattr(event, "revision") >= previous.revision  # noqa: B009
        ):
            chosen[key] = event
    names = [field.name for field in kind.fields]
    return [{name: getattr(event, name) for name in names} for event in chosen.values()]


def _window_of(kind: Kind[EventT], page: Sequence[EventT]) -> MarketWindow:
    # The market of a page's first event, and the page's span in time.
    assert kind.log is not None
    first: Any = page[0]
    times_us = [getattr(event, kind.log.time) for event in page]
    timeframe = getattr(first, "timeframe", None)
    return MarketWindow(first.exchange, first.symbol, timeframe, min(times_us), max(times_us) + 1)


def _of_market(table: sa.Table, exchange: str, symbol: str) -> Any:
    return sa.select(table).where(table.c.exchange == exchange, table.c.symbol == symbol)


def _event(row: sa.RowMapping, kind: type[EventT]) -> EventT:
    return kind(**row)


def _sqlite_settings(timeout_ms: int) -> Callable[[Any, Any], None]:
    def apply(connection: Any, record: Any) -> None:
        # Readers and one writer at a time do not block each other; writers wait for their turn.
        cursor = connection.cursor()
        # The time-out first: the other one waits for whoever opens the file at the same moment.
        cursor.execute(f"PRAGMA busy_timeout = {timeout_ms}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.close()

    return apply
