"""Rules beyond the schema, as pure functions: each raises ValidationError or returns nothing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.market import TIMEFRAMES, check_symbol, get_timeframe

OHLCV_COLUMNS = 6


def validate_timeframe(timeframe: str, valid_timeframes: Collection[str] = TIMEFRAMES) -> None:
    """Raise ValidationError unless the timeframe is one of the valid ones.

    valid_timeframes: names; a text is no collection of them.
    """
    if isinstance(valid_timeframes, str | bytes) or not isinstance(valid_timeframes, Collection):
        raise ValidationError(
            "expected the valid timeframes as a list of names such as ['1m', '1h'], found "
            f"{valid_timeframes!r:.80}"
        )
    if not isinstance(timeframe, str) or timeframe not in valid_timeframes:
        raise ValidationError(
            f"expected a timeframe, found {timeframe!r:.80}; use one of "
            f"{' '.join(map(str, valid_timeframes)) or 'none: no timeframe is valid here'}"
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
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Mapping):
        raise ValidationError(
            f"expected rows of {OHLCV_COLUMNS} values or candles, found {data!r:.80}"
        )
    last_ms: Decimal | None = None
    for number, row in enumerate(data):
        where = f"row {number}"
        if isinstance(row, Candle):
            validate_candle(row)
            time_ms = Decimal(row.open_time_us) / 1000
        else:
            time_ms = _check_row(row, where)
        if last_ms is not None and time_ms <= last_ms:
            raise ValidationError(
                f"expected ascending open times, found {time_ms} after {last_ms} ({where})"
            )
        last_ms = time_ms


def _check_row(row: object, where: str) -> Decimal:
    # Returns the row's time in ms. A row may be of any kind that gives its values in order.
    readable = isinstance(row, Iterable) and not isinstance(row, str | bytes | Mapping)
    values = list(row)[:OHLCV_COLUMNS] if readable else []  # type: ignore[call-overload]
    if len(values) < OHLCV_COLUMNS or any(value is None for value in values):
        raise ValidationError(
            f"expected {OHLCV_COLUMNS} values (time, open, high, low, close, volume), "
            f"found {row!r:.200} ({where})"
        )
    time, open_, high, low, close, volume = values
    try:
        time_ms, amount = Decimal(str(time)), Decimal(str(volume))
        _check_prices(open_, high, low, close, where)
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ValidationError(f"expected numbers, found {row!r:.200} ({where})") from error
    if not time_ms.is_finite():
        raise ValidationError(f"expected an open time in ms, found {time!r:.80} ({where})")
    if not amount.is_finite() or amount < 0:
        raise ValidationError(f"expected a volume of 0 or more, found {volume!r:.80} ({where})")
    return time_ms
