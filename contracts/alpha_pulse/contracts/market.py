"""Exchanges, symbols and timeframes: the words of the market and their arithmetic."""

import re
from dataclasses import dataclass

from alpha_pulse.contracts.errors import ValidationError

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

# Times are accepted from 2009-01-01 (Bitcoin's first block) up to 2100-01-01.
TIME_US_MIN = 1_230_768_000_000_000
TIME_US_MAX = 4_102_444_800_000_000

# Allow-lists: nothing else reaches a topic key, SQL or a file name.
EXCHANGE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,31}$(?!\n)"
SYMBOL_PATTERN = r"^[A-Za-z0-9._$-]{1,40}/[A-Za-z0-9._$-]{1,40}(:[A-Za-z0-9._$-]{1,60})?$(?!\n)"
TRADE_ID_PATTERN = r"^[!-~]{1,64}$(?!\n)"
_EXCHANGE = re.compile(EXCHANGE_PATTERN)
_SYMBOL = re.compile(SYMBOL_PATTERN)

TESTNET_SUFFIX = "-testnet"


def check_exchange(exchange: str) -> str:
    """Return an exchange's name as it came.

    Raises:
        ValidationError: it is not written as exchange names are (`EXCHANGE_PATTERN`). Whether there
            is such an exchange is not checked.
    """
    if not isinstance(exchange, str) or not _EXCHANGE.match(exchange):
        raise ValidationError(
            f"expected an exchange name such as 'binance' (lower case, digits, '-'), found "
            f"{_short(exchange)}; use ccxt's id of the exchange"
        )
    return exchange


def check_symbol(symbol: str) -> str:
    """Return a symbol as it came.

    Raises:
        ValidationError: it is not written BASE/QUOTE or BASE/QUOTE:SETTLE.
    """
    if not isinstance(symbol, str) or not _SYMBOL.match(symbol):
        raise ValidationError(
            f"expected a symbol such as 'BTC/USDT' or 'BTC/USDT:USDT', found {_short(symbol)}; "
            "use ccxt's unified symbol"
        )
    return symbol


def message_key(exchange: str, symbol: str) -> bytes:
    """Return the Kafka key of a market, `exchange:symbol`, which decides its partition.

    Args:
        exchange: as its events name it.
        symbol: as its events name it.
    """
    return f"{exchange}:{symbol}".encode()


@dataclass(frozen=True, slots=True)
class Timeframe:
    """A length of candle: half-open windows `[open, open + duration)` in UTC.

    Windows start at multiples of the duration since 1970; a week starts Monday 00:00 UTC.

    Attributes:
        name: such as `1m`.
        duration_us: length of a window.
        offset_us: open time of the first window since 1970.
    """

    name: str
    duration_us: int
    offset_us: int = 0

    def open_time_us(self, time_us: int) -> int:
        """Return the open time of the window that holds a time."""
        return time_us - (time_us - self.offset_us) % self.duration_us

    def close_time_us(self, open_time_us: int) -> int:
        """Return the end of the window that opens then, which is the next window's open time."""
        return open_time_us + self.duration_us

    def is_open_time(self, time_us: int) -> bool:
        """Return whether a window of this timeframe starts exactly then."""
        return (time_us - self.offset_us) % self.duration_us == 0

    def __str__(self) -> str:
        return self.name


# 1970-01-01 was a Thursday: the first Monday came four days later.
_MONDAY_US = 4 * DAY_US

TIMEFRAMES: dict[str, Timeframe] = {
    timeframe.name: timeframe
    for timeframe in (
        Timeframe("1s", SECOND_US),
        Timeframe("1m", MINUTE_US),
        Timeframe("3m", 3 * MINUTE_US),
        Timeframe("5m", 5 * MINUTE_US),
        Timeframe("15m", 15 * MINUTE_US),
        Timeframe("30m", 30 * MINUTE_US),
        Timeframe("1h", HOUR_US),
        Timeframe("2h", 2 * HOUR_US),
        Timeframe("4h", 4 * HOUR_US),
        Timeframe("6h", 6 * HOUR_US),
        Timeframe("12h", 12 * HOUR_US),
        Timeframe("1d", DAY_US),
        Timeframe("1w", 7 * DAY_US, _MONDAY_US),
    )
}

# What the processors publish, in rollup order: each is built from the one before it.
PUBLISHED_TIMEFRAMES = ("1m", "5m", "15m", "30m", "1h", "2h", "4h", "1d", "1w")


def get_timeframe(name: str) -> Timeframe:
    """Return the timeframe of a name such as `1m`.

    Raises:
        ValidationError: there is none; names those that there are (`TIMEFRAMES`).
    """
    found = TIMEFRAMES.get(name) if isinstance(name, str) else None
    if found is None:
        raise ValidationError(
            f"expected a timeframe, found {_short(name)}; use one of {' '.join(TIMEFRAMES)}"
        )
    return found


def _short(value: object) -> str:
    # Whatever came, as an error shows it: on one line, and never longer than a line.
    return repr(value[:80] if isinstance(value, str) else value)[:200]
