"""Canonical bytes: trades and candles exactly as `contracts.codec` writes them, piece by piece.

Code that reads or writes events without a parser is made of these pieces. Between two of them
stands the value of a field; texts of the market (exchange, symbol, id, job) are JSON of their own.
tests/processors/test_canonical.py compares them with the encoder.
"""

import msgspec

from alpha_pulse.contracts.codec import JOB_MARK
from alpha_pulse.contracts.market import TIME_US_MAX, TIME_US_MIN

# Times have sixteen digits from 2009 to 2100.
TIME_DIGITS = len(str(TIME_US_MIN))
assert len(str(TIME_US_MAX - 1)) == TIME_DIGITS, "all times have as many digits"

END = "}"

# --- a live trade -------------------------------------------------------------------------------
TRADE_START = '{"event":"trade",'
TRADE_PRICE = '","price":"'
TRADE_AMOUNT = '","amount":"'
TRADE_SIDE = '","side":"'
TRADE_TIME = '","trade_time_us":'
TRADE_RECEIVED = ',"receive_time_us":'
# Of a live trade, behind `start_of_trade`: all bytes but those of price, amount and side.
TRADE_REST_BYTES = (
    len(TRADE_AMOUNT + TRADE_SIDE + TRADE_TIME + TRADE_RECEIVED + END) + 2 * TIME_DIGITS
)

# --- a candle -----------------------------------------------------------------------------------
CANDLE_START = '{"event":"candle",'
CANDLE_OPEN_TIME = '","open_time_us":'
CANDLE_OPEN = ',"open":"'
CANDLE_HIGH = '","high":"'
CANDLE_LOW = '","low":"'
CANDLE_CLOSE = '","close":"'
CANDLE_VOLUME = '","volume":"'
# From here to the ids a value is null or a text in quotation marks; the count is a bare number.
CANDLE_QUOTE_VOLUME = '","quote_volume":'
CANDLE_BUY_VOLUME = ',"buy_volume":'
CANDLE_TRADE_COUNT = ',"trade_count":'
CANDLE_FIRST_ID = ',"first_trade_id":'
CANDLE_LAST_ID = ',"last_trade_id":'
CANDLE_REVISION = ',"revision":'
CANDLE_SOURCE = ',"source":"'
CANDLE_COVERAGE = '","coverage":"'
# Behind the coverage a live candle ends, and a job's has its name.
CANDLE_END = '"' + END
CANDLE_JOB = '"' + JOB_MARK.decode().removesuffix('"')
NULL = "null"


def json_text(text: str) -> str:
    """Return a text as it stands in JSON, with its quotation marks."""
    return msgspec.json.encode(text).decode()


def start_of_trades(exchange: str, symbol: str) -> bytes:
    """Return how every canonical trade of a symbol begins, up to its id."""
    market = f'"exchange":{json_text(exchange)},"symbol":{json_text(symbol)}'
    return f'{TRADE_START}{market},"trade_id":"'.encode()


def start_of_trade(start: bytes, trade_id: str) -> bytes:
    """Return how the canonical trade with that id begins, up to its price.

    Args:
        start: what `start_of_trades` gives for its symbol.
        trade_id: printable ASCII; an id that JSON escapes makes no canonical trade.
    """
    return start + (trade_id + TRADE_PRICE).encode()


def start_of_candles(exchange: str, symbol: str) -> str:
    """Return how every canonical candle of a symbol begins, up to the name of its timeframe."""
    market = f'"exchange":{json_text(exchange)},"symbol":{json_text(symbol)}'
    return f'{CANDLE_START}{market},"timeframe":"'


def timeframe_in_candle(timeframe: str) -> str:
    """Return what follows `start_of_candles` in a candle of that timeframe, up to its open time."""
    return timeframe + CANDLE_OPEN_TIME
