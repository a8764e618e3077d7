"""Hold Kafka and ClickHouse against the exchange's ledger: every trade, every candle. Pure.

The ledger is the market itself between the first and the last position published while it was
watched: the market can print the same rows again. Nothing here is shared with the processors.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from alpha_pulse.contracts.market import MINUTE_US, PUBLISHED_TIMEFRAMES
from alpha_pulse.replay.markets.market import Market, TradeRow
from alpha_pulse.replay.markets.recording import GRACE_US
from alpha_pulse.replay.verdict import (
    Comparison,
    StoredCandle,
    StoredTrade,
    candle_differences,
    recompute_candles,
)

# The exchange's candle stands in for the minute in which the watching began.
WHOLE = ("contiguous", "exchange")


@dataclass(frozen=True)
class Published:
    """What a symbol's exchange printed while it was watched: positions [first, end) of a market."""

    market: Market
    first: int
    end: int

    @property
    def rows(self) -> Sequence[TradeRow]:
        """Return the trades, in the order of their ids."""
        return self.market.rows(self.first, self.end)

    @property
    def ids(self) -> range:
        """Return their ids, which are consecutive."""
        first_id = self.market.rows(self.first, self.first + 1)[0].trade_id
        return range(first_id, first_id + self.end - self.first)


@dataclass
class TradeFigures:
    """What became of a symbol's trades at one place, Kafka or ClickHouse.

    lost: neither there nor in a recorded gap. republished: records beyond one of each identity.
    altered: not, digit for digit, what the exchange printed; also what it never printed.
    """

    published: int = 0
    found: int = 0
    lost: int = 0
    republished: int = 0
    altered: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, other: "TradeFigures") -> None:
        """Add another symbol's."""
        self.published += other.published
        self.found += other.found
        self.lost += other.lost
        self.republished += other.republished
        self.altered += other.altered
        self.examples = (self.examples + other.examples)[:10]


def judge_trades(
    published: Published, found: Iterable[StoredTrade], gaps: Sequence[tuple[int, int]]
) -> TradeFigures:
    """Compare one symbol's trades as they were found with those published.

    found: every record, those later than the ledger's end too. gaps: recorded ones that are still
    open or never to be filled, as inclusive ranges of ids.
    """
    rows, ids = published.rows, published.ids
    times = Counter[int]()
    figures = TradeFigures(published=len(ids))
    for trade in found:
        trade_id = int(trade.trade_id)
        times[trade_id] += 1
        if trade_id in ids:
            row = rows[trade_id - ids.start]
        else:
            later = published.market.position_of(trade_id)
            row = (*published.market.rows(later, later + 1), *rows[:1])[0]
        if (row.trade_id, *_content(row)) != (trade_id, *trade[1:]):
            figures.altered += 1
            figures.examples.append(f"altered {trade}, the exchange printed {row}")
    missing = [trade_id for trade_id in ids if trade_id not in times]
    lost = [i for i in missing if not any(first <= i <= last for first, last in gaps)]
    figures.found = len(ids) - len(missing)
    figures.republished = sum(count - 1 for count in times.values())
    figures.lost = len(lost)
    figures.examples += [f"lost {trade_id}" for trade_id in lost[:5]]
    return figures


def judge_candles(
    published: Published,
    stored_trades: Iterable[StoredTrade],
    stored_candles: Iterable[StoredCandle],
    end_us: int,
) -> Comparison:
    """Compare every field of one symbol's candles with a recomputation from the ledger.

    Covered whole, a minute has all that the exchange printed in it; else what is stored of it.
    end_us: windows that are closed by then, grace included, are expected; none may be missing.
    """
    ours = {(candle.timeframe, candle.open_time_us): candle for candle in stored_candles}
    rows = _rows_of_minutes(published, stored_trades, ours, end_us)
    ids = [str(row.trade_id) for row in rows]
    comparison = Comparison()
    for timeframe in PUBLISHED_TIMEFRAMES:
        for expected in recompute_candles(ids, rows, end_us, timeframe):
            open_time_us = expected["open_time_us"]
            candle = ours.get((timeframe, open_time_us))
            what = {
                "symbol": published.market.instrument.symbol,
                "timeframe": timeframe,
                "open_time_us": open_time_us,
                "coverage": candle.coverage if candle else None,
            }
            differences: Mapping[str, Any] = (
                candle_differences(candle, expected)
                if candle
                else {"candle": ("missing", "present")}
            )
            comparison.add(what, differences)
    return comparison


def _rows_of_minutes(
    published: Published,
    stored: Iterable[StoredTrade],
    ours: Mapping[tuple[str, int], StoredCandle],
    end_us: int,
) -> list[TradeRow]:
    market = published.market
    followed: dict[int, list[TradeRow]] = {}
    for trade in sorted(stored, key=lambda trade: int(trade.trade_id)):
        minute_us = trade.trade_time_us - trade.trade_time_us % MINUTE_US
        row = TradeRow(
            int(trade.trade_id),
            trade.trade_time_us,
            str(trade.price),
            str(trade.amount),
            trade.side,
        )
        followed.setdefault(minute_us, []).append(row)
    # Who subscribes just before a minute ends gets the exchange's own candle of it, and no trade.
    told = [open_us for timeframe, open_us in ours if timeframe == "1m"]
    first_us = min(published.rows[0].trade_time_us, *told)
    rows: list[TradeRow] = []
    for minute_us in range(first_us - first_us % MINUTE_US, end_us - GRACE_US, MINUTE_US):
        candle = ours.get(("1m", minute_us))
        if candle is not None and candle.coverage in WHOLE:
            close_us = minute_us + MINUTE_US
            rows.extend(market.rows(market.position_at(minute_us), market.position_at(close_us)))
        else:
            rows.extend(followed.get(minute_us, []))
    return rows


def _content(row: TradeRow) -> tuple[int, Decimal, Decimal, str]:
    return row.trade_time_us, Decimal(row.price), Decimal(row.amount), row.side
