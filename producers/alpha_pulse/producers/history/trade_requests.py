"""The first trade from a time on, which is where history by id begins, per exchange."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from alpha_pulse.contracts.market import SECOND_US
from alpha_pulse.producers.exchanges.frame import iso_time_us, number_id, time_us


@dataclass(frozen=True, slots=True)
class Mark:
    """A trade's place: its id and time."""

    trade_id: int
    time_us: int


Request = Callable[[Any, str, int], Awaitable[list[Mark]]]


async def _binance_from(client: Any, symbol: str, from_us: int) -> list[Mark]:
    # {"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27781,"T":1498793709153,"m":true}
    market = client.market(symbol)
    ask = client.fapiPublicGetAggTrades if market["contract"] else client.publicGetAggTrades
    rows = await ask({"symbol": market["id"], "startTime": -(-from_us // 1000), "limit": 1})
    return [
        Mark(row["f"], time_us(row["T"] * 1000))
        for row in msgspec.convert(rows, list[dict[str, Any]])
        if isinstance(row["f"], int)
    ]


async def _kraken_from(client: Any, symbol: str, from_us: int) -> list[Mark]:
    request = {"pair": client.market_id(symbol), "count": 1, "since": str(from_us * 1000 - 1)}
    answer = msgspec.convert(await client.publicGetTrades(request), dict[str, Any])
    result = msgspec.convert(answer.get("result"), dict[str, Any])
    kind = tuple[str, str, float, str, str, str, int]
    rows = next(value for key, value in result.items() if key != "last")
    # A float of seconds is exact to the microsecond until the year 2255.
    return [Mark(row[6], round(row[2] * 1e6)) for row in msgspec.convert(rows, list[kind])]


async def _okx_before(client: Any, symbol: str, before_us: int) -> list[Mark]:
    answer = await client.publicGetMarketHistoryTrades(
        {
            "instId": client.market_id(symbol),
            "type": "2",
            "after": str(-(-before_us // 1000)),
            "limit": "100",
        }
    )
    rows = msgspec.convert(answer, dict[str, Any]).get("data")
    return [
        Mark(int(number_id(row["tradeId"])), time_us(int(row["ts"]) * 1000))
        for row in msgspec.convert(rows, list[dict[str, Any]])
    ]


async def _coinbase_before(client: Any, symbol: str, before_us: int) -> list[Mark]:
    answer = await client.v3PublicGetBrokerageMarketProductsProductIdTicker(
        {
            "product_id": client.market_id(symbol),
            "limit": 1_000,
            "start": max(0, before_us // SECOND_US - 86_400),
            # The second that holds the time belongs to the answer.
            "end": before_us // SECOND_US + 1,
        }
    )
    rows = msgspec.convert(answer, dict[str, Any]).get("trades")
    return [
        Mark(int(number_id(row["trade_id"])), iso_time_us(row["time"]))
        for row in msgspec.convert(rows, list[dict[str, Any]])
    ]


# The first trade not before a time, in one request.
FIRST_FROM: dict[str, Request] = {
    "binance": _binance_from,
    "binanceusdm": _binance_from,
    "kraken": _kraken_from,
}
# The newest trades before a time (about), newest first.
NEWEST_BEFORE: dict[str, Request] = {"okx": _okx_before, "coinbase": _coinbase_before}

# Raw requests go past ccxt's own throttle: their cost, as ccxt counts it.
RAW_COST: dict[str, float] = {"binance": 5.0, "binanceusdm": 20.0}
