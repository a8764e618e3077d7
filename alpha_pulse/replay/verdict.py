"""Hold what was stored against the recording: every trade, every candle, every field. Pure.

The recomputation here is slow and obvious on purpose, and shares no code with the processors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, NamedTuple

from alpha_pulse.contracts.market import PUBLISHED_TIMEFRAMES, get_timeframe
from alpha_pulse.replay.markets.market import RecordedCandle, TradeRow
from alpha_pulse.replay.markets.recording import GRACE_US, Recording

DIFFERENCES_SHOWN_MAX = 20
_WIDE = Context(prec=96)
_TWELVE_DIGITS = Decimal("1e-12")


class StoredTrade(NamedTuple):
    """One identity of the `trades` view."""

    trade_id: str
    trade_time_us: int
    price: Decimal
    amount: Decimal
    side: str


class StoredCandle(NamedTuple):
    """The newest revision of one window."""

    timeframe: str
    open_time_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None
    buy_volume: Decimal | None
    trade_count: int | None
    first_trade_id: str | None
    last_trade_id: str | None
    source: str
    coverage: str


@dataclass
class Comparison:
    """How many were compared, how many were equal, and what differed in the others."""

    compared: int = 0
    equal: int = 0
    different: list[dict[str, Any]] = field(default_factory=list)

    def add(self, what: Mapping[str, Any], differences: Mapping[str, Sequence[Any]]) -> None:
        """Count one comparison. differences: field to (stored, expected)."""
        self.compared += 1
        if not differences:
            self.equal += 1
        elif len(self.different) < DIFFERENCES_SHOWN_MAX:
            shown = {
                name: {"stored": str(pair[0]), "expected": str(pair[1])}
                for name, pair in differences.items()
            }
            self.different.append({**what, "differences": shown})

    def as_json(self) -> dict[str, Any]:
        """Return the counts and what differed."""
        return {"compared": self.compared, "equal": self.equal, "different": self.different}


def count_altered_trades(recording: Recording, stored: Iterable[StoredTrade]) -> int:
    """Return how many stored trades are not, digit for digit, in the recording."""
    expected = {
        trade_id: (row.trade_time_us, Decimal(row.price), Decimal(row.amount), row.side)
        for trade_id, row in zip(_trade_ids(recording), recording.trades, strict=True)
    }
    return sum(1 for trade in stored if expected.get(trade.trade_id) != tuple(trade[1:]))


def compare_with_exchange(recording: Recording, stored: Iterable[StoredCandle]) -> Comparison:
    """Compare our 1m candles with every candle of the exchange's own in the recording."""
    ours = {candle.open_time_us: candle for candle in stored if candle.timeframe == "1m"}
    comparison = Comparison()
    for theirs in recording.candles:
        candle = ours.get(theirs.open_time_us)
        what = {"timeframe": "1m", "open_time_us": theirs.open_time_us}
        if candle is None:
            comparison.add(what, {"candle": ("missing", "present")})
            continue
        expected: dict[str, Any] = {
            name: Decimal(getattr(theirs, name))
            for name in ("open", "high", "low", "close", "volume")
        }
        if theirs.trade_count is not None:
            expected["trade_count"] = theirs.trade_count
        comparison.add(what, candle_differences(candle, expected))
    return comparison


def compare_with_trades(recording: Recording, stored: Iterable[StoredCandle]) -> Comparison:
    """Compare every candle of every timeframe with one recomputed from the recorded trades.

    Windows that end before the recording does (and its grace) are expected, empty ones too.
    """
    ours = {(candle.timeframe, candle.open_time_us): candle for candle in stored}
    comparison = Comparison()
    trade_ids = _trade_ids(recording)
    for timeframe in PUBLISHED_TIMEFRAMES:
        for expected in recompute_candles(trade_ids, recording.trades, recording.end_us, timeframe):
            what = {"timeframe": timeframe, "open_time_us": expected["open_time_us"]}
            candle = ours.pop((timeframe, expected["open_time_us"]), None)
            if candle is None:
                comparison.add(what, {"candle": ("missing", "present")})
                continue
            comparison.add(what, candle_differences(candle, expected))
    for (timeframe, open_time_us), candle in ours.items():
        if timeframe in PUBLISHED_TIMEFRAMES:
            comparison.add(
                {"timeframe": timeframe, "open_time_us": open_time_us},
                {"candle": (candle.coverage, "absent")},
            )
    return comparison


def recompute_minutes(trades: Sequence[TradeRow]) -> list[RecordedCandle]:
    """Return the 1m candles of trades as an exchange would publish them, empty minutes too."""
    minute = get_timeframe("1m")
    end_us = minute.close_time_us(minute.open_time_us(trades[-1].trade_time_us)) + GRACE_US
    ids = [str(row.trade_id) for row in trades]
    candles = []
    for candle in recompute_candles(ids, trades, end_us, "1m"):
        open_, high, low, close, volume = (
            format(candle[name], "f") for name in ("open", "high", "low", "close", "volume")
        )
        candles.append(
            RecordedCandle(
                candle["open_time_us"], open_, high, low, close, volume, candle["trade_count"]
            )
        )
    return candles


def candle_differences(
    candle: StoredCandle, expected: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return what differs, field to (stored, expected); what an exchange does not know is equal."""
    differences = {}
    for name, value in expected.items():
        stored = getattr(candle, name)
        # Where the exchange's candle stands in, what it does not know is null.
        unknown = stored is None and candle.source != "trades"
        if stored != value and not unknown:
            differences[name] = (stored, value)
    return differences


def recompute_candles(
    trade_ids: Sequence[str], trades: Sequence[TradeRow], end_us: int, timeframe_name: str
) -> list[dict[str, Any]]:
    """Return the candles of trades by field, from the first trade's window on, empty ones too.

    trade_ids, trades: equally long, in the exchange's order. end_us: windows that end later, grace
    included, are left out.
    """
    timeframe = get_timeframe(timeframe_name)
    windows: dict[int, list[tuple[str, TradeRow]]] = {}
    # Ties of a millisecond, and clocks that step back, are ordered by id: the recording's order.
    for trade_id, row in zip(trade_ids, trades, strict=True):
        windows.setdefault(timeframe.open_time_us(row.trade_time_us), []).append((trade_id, row))
    candles: list[dict[str, Any]] = []
    open_time_us = min(windows)
    close = Decimal(0)
    while timeframe.close_time_us(open_time_us) + GRACE_US <= end_us:
        of_window = windows.get(open_time_us)
        candle = _candle(of_window) if of_window else _empty_candle(close)
        close = candle["close"]
        candles.append({"open_time_us": open_time_us, **candle})
        open_time_us = timeframe.close_time_us(open_time_us)
    return candles


def _candle(trades: list[tuple[str, TradeRow]]) -> dict[str, Any]:
    in_time = sorted(enumerate(trades), key=lambda item: (item[1][1].trade_time_us, item[0]))
    rows = [trade for _, trade in in_time]
    prices = [Decimal(row.price) for _, row in rows]
    volume = quote_volume = buy_volume = Decimal(0)
    for _, row in rows:
        price, amount = Decimal(row.price), Decimal(row.amount)
        volume = _WIDE.add(volume, amount)
        quote_volume = _WIDE.add(quote_volume, _WIDE.multiply(price, amount))
        if row.side == "buy":
            buy_volume = _WIDE.add(buy_volume, amount)
    return {
        "open": prices[0],
        "high": max(prices),
        "low": min(prices),
        "close": prices[-1],
        "volume": volume,
        "quote_volume": quote_volume.quantize(_TWELVE_DIGITS, ROUND_HALF_EVEN, _WIDE),
        "buy_volume": buy_volume,
        "trade_count": len(rows),
        # Ids bound the range; in a window they need not be those of the first and last by time.
        "first_trade_id": trades[0][0],
        "last_trade_id": trades[-1][0],
    }


def _empty_candle(close: Decimal) -> dict[str, Any]:
    zero = Decimal(0)
    return {
        "open": close,
        "high": close,
        "low": close,
        "close": close,
        "volume": zero,
        "quote_volume": zero,
        "buy_volume": zero,
        "trade_count": 0,
        "first_trade_id": None,
        "last_trade_id": None,
    }


def _trade_ids(recording: Recording) -> Sequence[str]:
    return recording.native_ids or [str(row.trade_id) for row in recording.trades]
