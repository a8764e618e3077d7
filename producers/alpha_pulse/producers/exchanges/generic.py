"""Any exchange of ccxt.pro: trades and candles through ccxt's own unified calls."""

import time
from typing import Any

import msgspec

from alpha_pulse.contracts.events import Candle, Side, Trade
from alpha_pulse.producers.exchanges.candles import CandleRequest
from alpha_pulse.producers.exchanges.numbers import positive_text
from alpha_pulse.producers.exchanges.trades import TRADES_PAGE, RestClient

# What an exchange is asked for at once; where it answers with fewer it is asked on.
CANDLES_PAGE = 300

_Row = tuple[int, str, str, str, str, str]  # open time in ms, open, high, low, close, volume


async def recent_trades(rest: RestClient, symbol: str) -> list[Trade]:
    """Return the last trades that the exchange shows, oldest first; [] where it shows none.

    Args:
        rest: the exchange.
        symbol: the unified symbol.

    Raises:
        ccxt.BaseError: the exchange can't be reached or refuses.
        ValidationError: what it answers with are no trades.
    """
    if not rest.client.has.get("fetchTrades"):
        return []
    rows = await rest.client.fetch_trades(symbol, None, TRADES_PAGE)
    trades = rest.read(
        symbol, rows, dict[str, Any], lambda row: unified_trade(rest.name, symbol, row)
    )
    return sorted(trades, key=lambda trade: trade.trade_time_us)


def unified_trade(exchange: str, symbol: str, row: Any) -> Trade:
    """Return ccxt's unified trade as ours, received now.

    Args:
        exchange: the name that events carry.
        symbol: where the row names none.
        row: as ccxt's parsers make it; numbers are text.

    Raises:
        ValidationError: it is no trade.
    """
    sides: dict[Any, Side] = {"buy": "buy", "sell": "sell"}
    fields = msgspec.convert(row, dict[str, Any])
    return msgspec.convert(
        {
            "event": "trade",
            "exchange": exchange,
            "symbol": fields.get("symbol") or symbol,
            "trade_id": fields.get("id"),
            "price": positive_text(str(fields.get("price"))),
            "amount": positive_text(str(fields.get("amount"))),
            "side": sides.get(fields.get("side"), "unknown"),
            "trade_time_us": int(fields.get("timestamp") or 0) * 1000,
            "receive_time_us": time.time_ns() // 1000,
        },
        Trade,
    )


async def candles(request: CandleRequest, name: str) -> list[Candle]:
    """Return candles of a window, as many as one answer of the exchange holds, in any order.

    Args:
        request: the window.
        name: what the exchange calls the timeframe; ccxt knows it by ours.

    Raises:
        ccxt.BaseError: the exchange can't be reached or refuses.
        FrameError: a row is no candle.
    """
    del name
    return await _ohlcv(request, min(CANDLES_PAGE, request.count))


async def recent_candles(request: CandleRequest, name: str) -> list[Candle]:
    """Return the newest candles of a window that ended a moment ago.

    The minutes after the window come too, open ones among them: the caller drops what it did not
    ask for.

    Args:
        request: the window.
        name: what the exchange calls the timeframe; ccxt knows it by ours.

    Raises:
        ccxt.BaseError, FrameError: as `candles`.
    """
    del name
    return await _ohlcv(request, request.count + 2)


async def _ohlcv(request: CandleRequest, rows_max: int) -> list[Candle]:
    rows = await request.client.fetch_ohlcv(
        request.symbol, request.timeframe.name, request.start_us // 1000, rows_max
    )
    return request.read(
        rows,
        _Row,
        lambda row: request.candle(row[0] * 1000, row[1:5], row[5]),
        strict=False,
    )
