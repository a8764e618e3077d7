"""Rules beyond the schema, as pure functions: each raises ValidationError or returns nothing."""

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import TIMEFRAMES, check_symbol, get_timeframe

OHLCV_COLUMNS = 6


def validate_timeframe(timeframe: str, valid_timeframes: Collection[str] = TIMEFRAMES) -> None:
    """Raise ValidationError unless the timeframe is one of the valid ones."""
    if timeframe not in valid_timeframes:
        raise ValidationError(
            f"expected a timeframe, one of {' '.join(sorted(valid_timeframes))}, "
            f"found {timeframe!r}"
        )


def validate_symbol(symbol: str) -> None:
    """Raise ValidationError unless the symbol is written BASE/QUOTE or BASE/QUOTE:SETTLE."""
    check_symbol(symbol)


def validate_candle(candle: Candle) -> None:
    """Raise ValidationError unless prices are ordered and positive and the window is aligned.

    A candle holds low <= open, close <= high; an empty one has count 0 and volume 0.
    """
    timeframe = get_timeframe(candle.timeframe)
    where = f"{candle.exchange} {candle.symbol} {candle.timeframe} at {candle.open_time_us}"
    if not timeframe.is_open_time(candle.open_time_us):
        raise ValidationError(
            f"expected an open time aligned to {timeframe}, found {candle.open_time_us} ({where})"
        )
    _check_prices(candle.open, candle.high, candle.low, candle.close, where)
    if candle.trade_count == 0 and Decimal(candle.volume) != 0:
        raise ValidationError(
            f"expected volume 0 in a candle without trades, found {candle.volume} ({where})"
        )


def _check_prices(
    open_: str | float, high: str | float, low: str | float, close: str | float, where: str
) -> None:
    o, h, low_, c = Decimal(str(open_)), Decimal(str(high)), Decimal(str(low)), Decimal(str(close))
    finite = o.is_finite() and h.is_finite() and low_.is_finite() and c.is_finite()
    if finite and 0 < low_ <= o <= h and low_ <= c <= h:
        return
    if not all(price.is_finite() and price > 0 for price in (o, h, low_, c)):
        raise ValidationError(
            f"expected finite prices above 0, found open {o} high {h} low {low_} close {c} "
            f"({where})"
        )
    if low_ > min(o, c) or h < max(o, c):
        raise ValidationError(
            f"expected low <= open, close <= high, found open {o} high {h} low {low_} close {c} "
            f"({where})"
        )


def validate_ohlcv(data: Iterable[Sequence[str | float | int] | Candle]) -> None:
    """Raise ValidationError at the first row that is no candle.

    data: rows of (open time in ms, open, high, low, close, volume) as ccxt's `fetch_ohlcv` returns
    them, or candles; ascending and unique by time.
    """
    last_time: float | None = None
    for number, row in enumerate(data):
        where = f"row {number}"
        if isinstance(row, Candle):
            validate_candle(row)
            row = [row.open_time_us / 1000, row.open, row.high, row.low, row.close, row.volume]
        if len(row) < OHLCV_COLUMNS or any(value is None for value in row[:OHLCV_COLUMNS]):
            raise ValidationError(
                f"expected {OHLCV_COLUMNS} values (time, open, high, low, close, volume), "
                f"found {list(row)!r} ({where})"
            )
        try:
            time_ms = float(row[0])
            volume = Decimal(str(row[5]))
            _check_prices(row[1], row[2], row[3], row[4], where)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise ValidationError(f"expected numbers, found {list(row)!r} ({where})") from error
        if not volume.is_finite() or volume < 0:
            raise ValidationError(f"expected a volume of 0 or more, found {row[5]!r} ({where})")
        if last_time is not None and time_ms <= last_time:
            raise ValidationError(
                f"expected ascending open times, found {row[0]!r} after {last_time:.0f} ({where})"
            )
        last_time = time_ms
