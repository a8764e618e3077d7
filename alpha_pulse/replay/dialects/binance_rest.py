"""Binance's REST rows, parameters and error codes."""

from decimal import Decimal
from typing import Any

from alpha_pulse.replay.dialects.base import RestRefusal, RestReply, RestRequest
from alpha_pulse.replay.markets.candles import ExchangeCandle, plain
from alpha_pulse.replay.markets.market import TradeRow

ROWS_DEFAULT = 500
# Aggregates are numbered apart from raw trades. Here each holds one trade.
AGGREGATE_ID_SHIFT = 1_000_000_007


def trade_row(row: TradeRow) -> dict[str, Any]:
    """Return a trade as trades and historicalTrades list it."""
    return {
        "id": row.trade_id,
        "price": row.price,
        "qty": row.amount,
        "quoteQty": plain(Decimal(row.price) * Decimal(row.amount)),
        "time": row.trade_time_us // 1_000,
        "isBuyerMaker": row.side == "sell",
        "isBestMatch": True,
    }


def aggregate_row(row: TradeRow) -> dict[str, Any]:
    """Return a trade as an aggregate of one."""
    return {
        "a": row.trade_id + AGGREGATE_ID_SHIFT,
        "p": row.price,
        "q": row.amount,
        "f": row.trade_id,
        "l": row.trade_id,
        "T": row.trade_time_us // 1_000,
        "m": row.side == "sell",
        "M": True,
    }


def kline_row(candle: ExchangeCandle) -> list[Any]:
    """Return a candle as klines lists it."""
    return [
        candle.open_time_us // 1_000,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.close_time_us // 1_000 - 1,
        plain(candle.quote_volume),
        candle.trade_count,
        plain(candle.buy_volume),
        plain(candle.buy_quote_volume),
        "0",
    ]


def required(request: RestRequest, name: str) -> str:
    """Return a parameter, or refuse the request."""
    value = request.query.get(name)
    if not value:
        what = f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
        raise refusal(-1102, what)
    return value


def integer(request: RestRequest, name: str, default: int) -> int:
    """Return a parameter as a number, or refuse the request."""
    try:
        return request.integer(name, default)
    except ValueError as e:
        raise refusal(-1100, f"Illegal characters found in parameter '{name}'.") from e


def limit(request: RestRequest, most: int) -> int:
    """Return how many rows are asked for, or refuse the request."""
    count = integer(request, "limit", ROWS_DEFAULT)
    if count < 1:
        raise refusal(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(count, most)


def invalid_symbol() -> RestRefusal:
    """Return the refusal of an unknown symbol."""
    return refusal(-1121, "Invalid symbol.")


def banned(until_ms: int) -> RestReply:
    """Return the ban of an address, without Retry-After: the body alone says until when.

    Source: Binance, "Error codes", -1003, and "Limits": bans of 2 minutes to 3 days.
    """
    message = (
        f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket "
        "Streams for live updates to avoid bans."
    )
    return RestReply({"code": -1003, "msg": message}, 418)


def restricted() -> RestReply:
    """Return the refusal of a place that Binance does not serve.

    Source: Binance, "Terms of Use", b. Eligibility; HTTP 451 with code 0.
    """
    message = (
        "Service unavailable from a restricted location according to 'b. Eligibility' in "
        "https://www.binance.com/en/terms. Please contact customer service if you believe you "
        "received this message in error."
    )
    return RestReply({"code": 0, "msg": message}, 451)


def refusal(code: int, message: str, status: int = 400) -> RestRefusal:
    """Return a refusal with Binance's error code."""
    return RestRefusal(RestReply({"code": code, "msg": message}, status))
