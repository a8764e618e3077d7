"""What ClickHouse holds of a market: the coverage that history is measured by."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import StorageError, ValidationError
from alpha_pulse.contracts.events import NO_TRADE, Candle, Gap, Trade
from alpha_pulse.contracts.market import TIMEFRAMES, Timeframe
from alpha_pulse.data_pipeline.history.stored_rows import (
    CANDLES,
    GAPS,
    TRADES,
    Market,
    StoredSpan,
)
from alpha_pulse.producers.history.missing import FINAL_REASONS, REASONS, Reason, Window
from alpha_pulse.sinks.clickhouse.client import ClickHouse, PassingFault

# ClickHouse may be away for a moment: a read is tried again for so long.
READ_S_MAX = 30.0
_MARKET = "exchange = {exchange:String} AND symbol = {symbol:String}"
_CANDLES = (
    f"{_MARKET} AND timeframe = {{timeframe:String}} AND open_time >= "
    "fromUnixTimestamp64Micro({start:Int64}, 'UTC') AND open_time < "
    "fromUnixTimestamp64Micro({end:Int64}, 'UTC')"
)
_TRADES = (
    f"{_MARKET} AND trade_time >= fromUnixTimestamp64Micro({{start:Int64}}, 'UTC') AND "
    "trade_time < fromUnixTimestamp64Micro({end:Int64}, 'UTC')"
)
_OF_JOB = (
    f"FROM {{db}}.candles_log WHERE {_MARKET} AND "
    "open_time >= fromUnixTimestamp64Micro({start:Int64}, 'UTC') AND open_time < "
    "fromUnixTimestamp64Micro({end:Int64}, 'UTC') AND job = {job:String}"
)


@dataclass(frozen=True, slots=True)
class MissingIds:
    """Trades that are not stored: ids between two stored ones, whose times are given."""

    first_id: int
    last_id: int
    before_us: int
    after_us: int


class StoredMarket:
    """Reads the pipeline's database. Every call raises StorageError when ClickHouse stays away."""

    def __init__(self, clickhouse: ClickHouse, database: str) -> None:
        self._clickhouse = clickhouse
        self._database = database

    async def rows(self, sql: str, parameters: dict[str, Any]) -> list[Sequence[Any]]:
        """Return a query's rows; `{db}` in it is the database."""
        deadline = asyncio.get_running_loop().time() + READ_S_MAX
        wait_s = 0.1
        while True:
            try:
                return await self._clickhouse.rows(sql.replace("{db}", self._database), parameters)
            except PassingFault as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise StorageError(
                        f"expected ClickHouse to answer within {READ_S_MAX:.0f} s, found: {error}"
                    ) from error
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 2.0)

    async def open_times_us(
        self, market: Market, timeframe: Timeframe, start_us: int, end_us: int, *, good: bool = True
    ) -> list[int]:
        """Return the open times of the stored candles of a window, ascending.

        good: leave out those that say of themselves that something is missing (partial, gap).
        """
        table = "candles" if good else "candles_log"
        condition = " AND coverage NOT IN ('partial', 'gap')" if good else ""
        rows = await self.rows(
            f"SELECT DISTINCT toUnixTimestamp64Micro(open_time) FROM {{db}}.{table} "
            f"WHERE {_CANDLES}{condition} ORDER BY 1",
            self._candles_of(market, timeframe, start_us, end_us),
        )
        return [row[0] for row in rows]

    async def candles(
        self, market: Market, timeframe: Timeframe, start_us: int, end_us: int,
        view: str = "candles",
    ) -> list[Candle]:  # fmt: skip
        """Return the stored candles of a window, newest revisions, ascending.

        view: `candles` (what we publish) or `exchange_candles` (the exchange's own).
        """
        rows = await self.rows(
            f"SELECT {CANDLES.columns} FROM {{db}}.{view} WHERE {_CANDLES} ORDER BY open_time",
            self._candles_of(market, timeframe, start_us, end_us),
        )
        given = {**market.parameters, "timeframe": timeframe.name}
        return [CANDLES.event(row, **given) for row in rows]

    async def different(
        self, market: Market, timeframe: Timeframe, start_us: int, end_us: int
    ) -> list[int]:
        """Return the open times at which ours and the exchange's own stored candle differ.

        Where we took over the exchange's candle there is nothing to compare.
        """
        rows = await self.rows(
            "SELECT toUnixTimestamp64Micro(open_time) FROM {db}.candle_audit "
            f"WHERE {_CANDLES} AND NOT equal AND source != 'exchange' ORDER BY 1",
            self._candles_of(market, timeframe, start_us, end_us),
        )
        return [row[0] for row in rows]

    async def count_of_job(
        self, market: Market, start_us: int, end_us: int, job: str, wanted: int
    ) -> int:
        """Return how many candles of a history job are stored, of all timeframes.

        Below the wanted number rows are counted, some of which may be there twice.
        """
        parameters = {**market.parameters, "start": start_us, "end": end_us, "job": job}
        count = int((await self.rows(f"SELECT count() {_OF_JOB}", parameters))[0][0])
        if count < wanted:
            return count
        exact = f"SELECT uniqExact(timeframe, open_time) {_OF_JOB}"
        return int((await self.rows(exact, parameters))[0][0])

    async def count_rows(self) -> int:
        """Return how many candles and trades are stored of all markets: whether a sink works."""
        rows = await self.rows(
            "SELECT (SELECT count() FROM {db}.candles_log) + (SELECT count() FROM {db}.trades_log)",
            {},
        )
        return int(rows[0][0])

    async def trades(self, market: Market, start_us: int, end_us: int) -> list[Trade]:
        """Return the stored trades of a window, by time, then by id."""
        rows = await self.rows(
            f"SELECT {TRADES.columns} FROM {{db}}.trades WHERE {_TRADES} "
            "ORDER BY trade_time, length(trade_id), trade_id",
            {**market.parameters, "start": start_us, "end": end_us},
        )
        return [TRADES.event(row, **market.parameters) for row in rows]

    async def count_trades(self, market: Market, start_us: int, end_us: int) -> int:
        """Return how many different trades of a window are stored."""
        rows = await self.rows(
            f"SELECT uniqExact(trade_id) FROM {{db}}.trades_log WHERE {_TRADES}",
            {**market.parameters, "start": start_us, "end": end_us},
        )
        return int(rows[0][0])

    async def count_no_trades(self, market: Market, start_us: int, end_us: int, job: str) -> int:
        """Return how many runs of ids of no trade a history job has stored; its window at least."""
        rows = await self.rows(
            f"SELECT uniqExact(first_trade_id) FROM {{db}}.ids_log WHERE {_MARKET} "
            "AND time >= fromUnixTimestamp64Micro({start:Int64}, 'UTC') "
            "AND time < fromUnixTimestamp64Micro({end:Int64}, 'UTC') AND job = {job:String}",
            {**market.parameters, "start": start_us, "end": end_us, "job": job},
        )
        return int(rows[0][0])

    async def count_ids(
        self, market: Market, ids: Sequence[str], start_us: int, end_us: int
    ) -> int:
        """Return how many of the trades with these ids are stored."""
        rows = await self.rows(
            f"SELECT uniqExact(trade_id) FROM {{db}}.trades_log WHERE {_TRADES} "
            "AND trade_id IN {ids:Array(String)}",
            {**market.parameters, "start": start_us, "end": end_us, "ids": list(ids)},
        )
        return int(rows[0][0])

    async def missing_ids(
        self, market: Market, start_us: int, end_us: int, first_id: int, last_id: int
    ) -> list[MissingIds]:
        """Return the runs of ids from first to last that are not stored, ascending.

        For exchanges whose ids are consecutive; the window is where those ids happened. Ids of no
        trade count as stored.
        """
        rows = await self.rows(
            "SELECT previous + 1, id - 1, previous_us, us FROM (SELECT id, us, "
            "max(last_id) OVER w AS last, greatest(last, {first:Int64} - 1) AS previous, "
            "max(us) OVER w AS last_us, greatest(last_us, {start:Int64}) AS previous_us FROM ("
            "SELECT toInt64OrZero(trade_id) AS id, id AS last_id, "
            "min(toUnixTimestamp64Micro(trade_time)) AS us "
            f"FROM {{db}}.trades_log WHERE {_TRADES} GROUP BY id "
            "HAVING id BETWEEN {first:Int64} AND {last:Int64} "
            "UNION ALL SELECT toInt64OrZero(first_trade_id) AS id, "
            "toInt64OrZero(last_trade_id) AS last_id, toUnixTimestamp64Micro(time) "
            f"FROM {{db}}.ids_log WHERE {_MARKET} AND reason = {{no_trade:String}} "
            "AND last_id >= {first:Int64} AND id <= {last:Int64} "
            "UNION ALL SELECT {last:Int64} + 1, {last:Int64} + 1, {end:Int64}) "
            "WINDOW w AS (ORDER BY id, last_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) "
            "WHERE id > previous + 1 ORDER BY id",
            {
                **market.parameters, "start": start_us, "end": end_us, "first": first_id,
                "last": last_id, "no_trade": NO_TRADE,
            },
        )  # fmt: skip
        return [MissingIds(*row) for row in rows]

    async def explained(
        self, market: Market, start_us: int, end_us: int
    ) -> dict[Reason, list[Window]]:
        """Return the times of which an earlier job proved that there is nothing, by reason."""
        rows = await self.rows(
            "SELECT toUnixTimestamp64Micro(start_time), toUnixTimestamp64Micro(end_time), reason "
            f"FROM {{db}}.gaps WHERE {_MARKET} AND status = 'unfillable' AND first_trade_id IS NULL"
            " AND start_time < fromUnixTimestamp64Micro({end:Int64}, 'UTC') "
            "AND end_time > fromUnixTimestamp64Micro({start:Int64}, 'UTC') ORDER BY 1",
            {**market.parameters, "start": start_us, "end": end_us},
        )
        found: dict[Reason, list[Window]] = {}
        for first, last, text in rows:
            for reason in FINAL_REASONS:
                if text == reason_text(reason):
                    found.setdefault(reason, []).append(Window(first, last))
        return found

    async def gaps(self, market: Market | None = None, *, since_us: int = 0) -> list[Gap]:
        """Return the gaps in trades that are not filled, oldest first."""
        condition = f"AND {_MARKET}" if market else ""
        rows = await self.rows(
            f"SELECT {GAPS.columns} FROM {{db}}.gaps WHERE status != 'filled' "
            "AND end_time >= fromUnixTimestamp64Micro({since:Int64}, 'UTC') "
            f"{condition} ORDER BY exchange, symbol, start_time",
            {**(market.parameters if market else {}), "since": since_us},
        )
        explained = {reason_text(reason) for reason in FINAL_REASONS}
        return [gap for gap in map(GAPS.event, rows) if gap.reason not in explained]

    async def markets(self) -> list[StoredSpan]:
        """Return every market of which anything is stored: candles of any timeframe, or trades."""
        # By timeframe: the end of the last candle follows from its open time.
        rows = await self.rows(
            "SELECT exchange, symbol, toString(timeframe), "
            "min(toUnixTimestamp64Micro(open_time)), max(toUnixTimestamp64Micro(open_time)) "
            "FROM {db}.candles_log GROUP BY 1, 2, 3 UNION ALL SELECT exchange, symbol, '', "
            "min(toUnixTimestamp64Micro(trade_time)), max(toUnixTimestamp64Micro(trade_time)) "
            "FROM {db}.trades_log GROUP BY 1, 2",
            {},
        )
        spans: dict[Market, list[tuple[Timeframe | None, int, int]]] = {}
        for exchange, symbol, name, first_us, last_us in rows:
            frame = TIMEFRAMES.get(name)
            end_us = last_us + (frame.duration_us if frame else 1)
            spans.setdefault(Market(exchange, symbol), []).append((frame, first_us, end_us))
        return [_span(market, spans[market]) for market in sorted(spans)]

    async def chosen_markets(self, exchange: str, symbol: str) -> list[StoredSpan]:
        """Return those of `markets` that are of an exchange and a symbol, "" for any.

        Raises: ValidationError when there is none: who looks for what is missing or wrong in it
        would take an empty answer for a good one.
        """
        found = [
            span
            for span in await self.markets()
            if exchange in ("", span.market.exchange) and symbol in ("", span.market.symbol)
        ]
        if not found:
            asked = " ".join(part for part in (exchange, symbol) if part) or "any market"
            raise ValidationError(
                f"expected stored candles or trades of {asked} in the database {self._database}, "
                "found none; alpha-pulse status shows what is stored, alpha-pulse backfill fetches"
            )
        return found

    def _candles_of(
        self, market: Market, timeframe: Timeframe, start_us: int, end_us: int
    ) -> dict[str, Any]:
        return {
            **market.parameters, "timeframe": timeframe.name, "start": start_us, "end": end_us,
        }  # fmt: skip


@asynccontextmanager
async def stored_market(config: Config) -> AsyncIterator[StoredMarket]:
    """Yield a reader of the configured database; it is closed at the end."""
    clickhouse = await ClickHouse.connect(config.clickhouse)
    try:
        yield StoredMarket(clickhouse, config.database)
    finally:
        await clickhouse.close()


def reason_text(reason: Reason) -> str:
    """Return how a gap event tells a reason, so that it is recognized when it is read back."""
    return f"{reason}: {REASONS[reason]}"


def _span(market: Market, parts: Sequence[tuple[Timeframe | None, int, int]]) -> StoredSpan:
    # The shortest candles say where a market begins and ends: a longer one, or a trade of a minute
    # that was not seen whole, may be outside of what is wanted. Trades do where they are all.
    frames = [frame for frame, _, _ in parts if frame is not None]
    shortest = min(frames, key=lambda frame: frame.duration_us, default=None)
    edges = [(start_us, end_us) for frame, start_us, end_us in parts if frame == shortest]
    return StoredSpan(
        market,
        min(start_us for start_us, _ in edges),
        max(end_us for _, end_us in edges),
        None if shortest is None else shortest.name,
    )
