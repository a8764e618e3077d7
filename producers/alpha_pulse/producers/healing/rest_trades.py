"""Trades over REST: how each exchange is asked for them, keyless where it allows that."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import ccxt.pro
import msgspec
import structlog

from alpha_pulse.contracts.events import Side, Trade
from alpha_pulse.producers.exchanges.frame import (
    iso_time_us,
    number_id,
    positive_text,
    time_us,
)

log = structlog.get_logger()

PAGE = 1_000
COINBASE_PAGES_MAX = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """Trades wanted of a symbol: ids `first_id` to `last_id` (None: as far as there are any).

    since_us, until_us: when the trades before and after them happened (None: unknown), for
    exchanges that page by time.
    """

    symbol: str
    first_id: int
    last_id: int | None
    since_us: int
    until_us: int | None = None


class RestTrades:
    """Asks one exchange; errors are ccxt's, or msgspec's where rows are no trades.

    recent_only: whether the exchange refuses to go back by id without a key.
    """

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self.client = client
        self.recent_only = False

    @property
    def by_id(self) -> bool:
        """Whether this exchange can be asked for ids."""
        return self.client.id in _BY_ID

    async def fetch(self, wanted: Wanted) -> list[Trade]:
        """Return trades among which are some of the wanted ones, the lowest first, in any order."""
        return await _BY_ID[self.client.id](self, wanted)

    async def recent(self, symbol: str) -> list[Trade]:
        """Return the last trades that the exchange shows, oldest first."""
        ask = _bybit if self.client.id == "bybit" else _generic
        return await ask(self, symbol)

    async def get(self, url: str, headers: dict[str, str] | None = None) -> Any:
        """Return the JSON of a raw public request, which ccxt itself would refuse or reshape."""
        self.client.open()
        return await self.client.fetch(url, "GET", headers)

    def trade(
        self, symbol: str, trade_id: str, price: str, amount: str, side: Side, at_us: int
    ) -> Trade:
        """Return a row as a trade; raises FrameError when it is none."""
        return Trade(
            exchange=self.name,
            symbol=symbol,
            trade_id=trade_id,
            price=positive_text(price),
            amount=positive_text(amount),
            side=side,
            trade_time_us=time_us(at_us),
            receive_time_us=time.time_ns() // 1000,
        )


class _BinanceRow(msgspec.Struct):
    id: int
    price: str
    qty: str
    time: int
    isBuyerMaker: bool


async def _binance(rest: RestTrades, wanted: Wanted) -> list[Trade]:
    client = rest.client
    market = client.market(wanted.symbol)
    base = client.urls["api"]["fapiPublic" if market["contract"] else "public"]
    page = 500 if market["contract"] else PAGE
    query = f"symbol={market['id']}&limit="
    if not rest.recent_only:
        # Raw trades by id: ccxt demands a key, the server may not.
        headers = {"X-MBX-APIKEY": client.apiKey} if client.apiKey else None
        try:
            answer = await rest.get(
                f"{base}/historicalTrades?{query}{page}&fromId={wanted.first_id}", headers
            )
            return _binance_trades(rest, wanted.symbol, answer)
        except (ccxt.pro.AuthenticationError, ccxt.pro.PermissionDenied):
            rest.recent_only = True
            log.warning("healing.limited", exchange=rest.name, reason="no API key for old trades")
    # The last 1,000: `fetch_trades` would bring aggregate ids, another id space.
    answer = await rest.get(f"{base}/trades?{query}{PAGE}")
    return _binance_trades(rest, wanted.symbol, answer)


def _binance_trades(rest: RestTrades, symbol: str, answer: Any) -> list[Trade]:
    return [
        rest.trade(
            symbol,
            number_id(str(row.id)),
            row.price,
            row.qty,
            "sell" if row.isBuyerMaker else "buy",
            row.time * 1000,
        )
        for row in msgspec.convert(answer, list[_BinanceRow])
    ]


async def _kraken(rest: RestTrades, wanted: Wanted) -> list[Trade]:
    # {"error":[],"result":{"XBTUSDT":[["3417.20000","0.21222200",1549223326.971661,"b","l","",
    #  10218208]],"last":"1549223326971661000"}}; since: nanoseconds, exclusive.
    market = rest.client.market(wanted.symbol)
    request: dict[str, Any] = {"pair": market["id"], "count": PAGE}
    if wanted.since_us:
        request["since"] = str(wanted.since_us * 1000 - 1)
    answer = await rest.client.publicGetTrades(request)
    result = msgspec.convert(answer, dict[str, Any])
    rows = [
        value
        for key, value in msgspec.convert(result.get("result"), dict[str, Any]).items()
        if key != "last"
    ]
    kind = tuple[str, str, float, str, str, str, int]
    return [
        rest.trade(
            wanted.symbol,
            number_id(str(row[6])),
            row[0],
            row[1],
            "sell" if row[3] == "s" else "buy",
            # A float of seconds is exact to the microsecond until the year 2255.
            round(row[2] * 1e6),
        )
        for row in msgspec.convert(rows[0] if rows else [], list[kind])
    ]


class _OkxRow(msgspec.Struct):
    tradeId: str
    px: str
    sz: str
    side: Side
    ts: str


async def _okx(rest: RestTrades, wanted: Wanted) -> list[Trade]:
    # history-trades pages back: 100 trades with an id below `after`.
    page = 100
    first_after = wanted.first_id + page
    after = first_after if wanted.last_id is None else min(first_after, wanted.last_id + 1)
    answer = await rest.client.publicGetMarketHistoryTrades(
        {
            "instId": rest.client.market_id(wanted.symbol),
            "type": "1",
            "after": str(after),
            "limit": str(page),
        }
    )
    rows = msgspec.convert(msgspec.convert(answer, dict[str, Any]).get("data"), list[_OkxRow])
    return [
        rest.trade(
            wanted.symbol,
            number_id(row.tradeId),
            row.px,
            row.sz,
            row.side,
            int(number_id(row.ts)) * 1000,
        )
        for row in rows
    ]


class _CoinbaseRow(msgspec.Struct):
    trade_id: str
    price: str
    size: str
    time: str
    side: str


async def _coinbase(rest: RestTrades, wanted: Wanted) -> list[Trade]:
    # The newest of a range of seconds, 1,000 at most: page back until the first wanted id is there.
    request = {"product_id": rest.client.market_id(wanted.symbol), "limit": PAGE}
    request["start"] = wanted.since_us // 1_000_000
    if wanted.until_us is not None:
        request["end"] = wanted.until_us // 1_000_000 + 1
    found: dict[int, Trade] = {}
    for _ in range(COINBASE_PAGES_MAX):
        answer = await rest.client.v3PublicGetBrokerageMarketProductsProductIdTicker(request)
        trades = msgspec.convert(answer, dict[str, Any]).get("trades")
        before = len(found)
        for row in msgspec.convert(trades, list[_CoinbaseRow]):
            # Coinbase names the maker's side.
            side: Side = "sell" if row.side == "BUY" else "buy"
            found[int(number_id(row.trade_id))] = rest.trade(
                wanted.symbol, row.trade_id, row.price, row.size, side, iso_time_us(row.time)
            )
        if len(found) == before or min(found) <= wanted.first_id:
            break
        earliest_us = min(trade.trade_time_us for trade in found.values())
        request["end"] = earliest_us // 1_000_000 + 1
    return list(found.values())


class _BybitRow(msgspec.Struct):
    execId: str
    price: str
    size: str
    side: str
    time: str


async def _bybit(rest: RestTrades, symbol: str) -> list[Trade]:
    market = rest.client.market(symbol)
    category = "spot" if market["spot"] else "linear" if market["linear"] else "inverse"
    limit = 60 if category == "spot" else PAGE
    answer = await rest.client.publicGetV5MarketRecentTrade(
        {"category": category, "symbol": market["id"], "limit": limit}
    )
    result = msgspec.convert(msgspec.convert(answer, dict[str, Any]).get("result"), dict[str, Any])
    rows = msgspec.convert(result.get("list"), list[_BybitRow])
    return [
        rest.trade(
            symbol,
            row.execId,
            row.price,
            row.size,
            "buy" if row.side == "Buy" else "sell",
            int(number_id(row.time)) * 1000,
        )
        for row in reversed(rows)
    ]


async def _generic(rest: RestTrades, symbol: str) -> list[Trade]:
    if not rest.client.has.get("fetchTrades"):
        return []
    rows = await rest.client.fetch_trades(symbol, None, PAGE)
    trades = [unified_trade(rest.name, symbol, row) for row in rows]
    return sorted(trades, key=lambda trade: trade.trade_time_us)


def unified_trade(exchange: str, symbol: str, row: Any) -> Trade:
    """Return ccxt's unified trade as ours; raises ValidationError when it is none."""
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


_BY_ID: dict[str, Callable[[RestTrades, Wanted], Awaitable[list[Trade]]]] = {
    "binance": _binance,
    "binanceusdm": _binance,
    "coinbase": _coinbase,
    "kraken": _kraken,
    "okx": _okx,
}
