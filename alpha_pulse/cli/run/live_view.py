"""What the demo shows: rates, lag, the open and the last closed candle of each symbol."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiokafka.errors import KafkaError
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alpha_pulse.cli.pipeline.stored import connect, processor_lag
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.config_sources import without_password
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.kafka.reader import read
from alpha_pulse.contracts.topics import OPEN_CANDLES

RATE_WINDOW_S = 10
COVERAGE_STYLE = {"contiguous": "green", "exchange": "cyan", "unverified": "yellow"}
_MARKETS = f"""
SELECT symbol, countIf(receive_time > now64(6) - {RATE_WINDOW_S}) / {RATE_WINDOW_S} AS rate,
       count() AS stored, dateDiff('millisecond', max(trade_time), now64(6)) AS age_ms
FROM {{database:Identifier}}.trades_log
GROUP BY symbol ORDER BY symbol
"""
_CLOSED = """
SELECT symbol, open_time, open, high, low, close, volume, trade_count,
       toString(coverage) AS coverage
FROM {database:Identifier}.candles
WHERE timeframe = '1m' AND open_time > now() - INTERVAL 1 HOUR
ORDER BY open_time DESC LIMIT 1 BY symbol
"""


@dataclass
class SymbolView:
    """One symbol: what is known of it now."""

    rate: float = 0.0
    stored: int = 0
    age_ms: int | None = None
    open_candle: Candle | None = None
    closed: dict[str, Any] | None = None


@dataclass
class Snapshot:
    """Everything the view shows at one moment."""

    kafka: str = ""
    clickhouse: str = ""
    database: str = ""
    lag: int | None = None
    symbols: dict[str, SymbolView] = field(default_factory=dict)


class MarketWatch:
    """Looks at Kafka and ClickHouse as any reader does."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client: Client | None = None
        self._open: dict[str, Candle] = {}
        self._lag: int | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._follow_open_candles()),
            asyncio.create_task(self._follow_lag()),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            self._client.close()

    async def look(self) -> Snapshot:
        """Return what there is now; empty until the roles have made their topics and tables."""
        config = self._config
        snapshot = Snapshot(
            kafka=config.kafka.bootstrap,
            clickhouse=without_password(config.clickhouse.url),
            database=config.database,
            lag=self._lag,
        )
        # Before the sink has migrated there is no table to ask.
        with contextlib.suppress(ClickHouseError):
            await asyncio.to_thread(self._read_tables, snapshot)
        for symbol, candle in self._open.items():
            snapshot.symbols.setdefault(symbol, SymbolView()).open_candle = candle
        return snapshot

    def _read_tables(self, snapshot: Snapshot) -> None:
        if self._client is None:
            self._client = connect(self._config.clickhouse)
        parameters = {"database": self._config.database}
        for symbol, rate, stored, age_ms in self._client.query(
            _MARKETS, parameters=parameters
        ).result_rows:
            snapshot.symbols[symbol] = SymbolView(rate, stored, age_ms)
        for row in self._client.query(_CLOSED, parameters=parameters).named_results():
            snapshot.symbols.setdefault(row["symbol"], SymbolView()).closed = row

    async def _follow_open_candles(self) -> None:
        while True:
            # Kafka may be away for a moment; the view goes on with what it has.
            with contextlib.suppress(AlphaPulseError, KafkaError, OSError):
                async for event in read(OPEN_CANDLES, self._config, from_earliest=False):
                    self._open[event.symbol] = event
            await asyncio.sleep(0.5)

    async def _follow_lag(self) -> None:
        while True:
            with contextlib.suppress(AlphaPulseError, KafkaError, OSError):
                self._lag = await processor_lag(self._config)
            await asyncio.sleep(2.0)


def as_line(snapshot: Snapshot) -> str:
    """Return the snapshot as one plain line per symbol, for logs and pipes."""
    clock = datetime.now(UTC).strftime("%H:%M:%S")
    lines = []
    for symbol, view in snapshot.symbols.items():
        parts = [f"{clock} {symbol:<10} {view.rate:6.1f} trades/s"]
        if view.open_candle is not None:
            candle = view.open_candle
            parts.append(
                f"open {_minute(candle.open_time_us)} o {candle.open} h {candle.high} "
                f"l {candle.low} c {candle.close} v {candle.volume}"
            )
        if view.closed is not None:
            closed = view.closed
            parts.append(
                f"closed {closed['open_time']:%H:%M} c {_price(closed['close'])} "
                f"{closed['trade_count']} trades {closed['coverage']}"
            )
        lines.append(" | ".join(parts))
    if not lines:
        return f"{clock} waiting for the first trades"
    return "\n".join(lines) + f"\n{clock} lag {_or_dash(snapshot.lag)} records"


def as_table(snapshot: Snapshot) -> RenderableType:
    """Return the snapshot as a table for a terminal."""
    table = Table(title="AlphaPulse", title_justify="left", expand=False)
    table.add_column("symbol")
    for name in ("trades/s", "stored", "age"):
        table.add_column(name, justify="right")
    for name in ("open candle (1m)", "last closed", "coverage"):
        table.add_column(name)
    for symbol, view in snapshot.symbols.items():
        closed = view.closed
        coverage = closed["coverage"] if closed else ""
        table.add_row(
            symbol,
            f"{view.rate:.1f}",
            str(view.stored),
            "" if view.age_ms is None else f"{view.age_ms / 1000:.1f} s",
            _open_text(view.open_candle),
            f"{closed['open_time']:%H:%M} {_price(closed['open'])} → {_price(closed['close'])} "
            f"({closed['trade_count']} trades)"
            if closed
            else "waiting for a whole minute",
            Text(coverage, style=COVERAGE_STYLE.get(coverage, "red")),
        )
    foot = Text(
        f"processor lag {_or_dash(snapshot.lag)} records   Kafka {snapshot.kafka}   "
        f"ClickHouse {snapshot.clickhouse} database {snapshot.database}   Ctrl-C ends",
        style="dim",
    )
    return Group(table, foot)


def _open_text(candle: Candle | None) -> Text:
    if candle is None:
        return Text("")
    rising = float(candle.close) >= float(candle.open)
    return Text(
        f"{_minute(candle.open_time_us)} {candle.open} → {candle.close} "
        f"({candle.trade_count} trades)",
        style="green" if rising else "red",
    )


def _minute(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1_000_000, UTC).strftime("%H:%M")


def _price(value: Any) -> str:
    return format(value.normalize(), "f")


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
