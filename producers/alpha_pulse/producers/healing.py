"""Missing trades over REST, by id: one way per exchange, keyless where the exchange allows it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import ccxt.pro
import msgspec
import structlog

from alpha_pulse.contracts.errors import DataFetchError, ValidationError
from alpha_pulse.contracts.events import Trade
from alpha_pulse.producers.frames.frame import positive_text, time_us
from alpha_pulse.producers.limiter import Limiter

log = structlog.get_logger()

PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Trades wanted of a symbol: ids `first_id` to `last_id` (None: as far as there are any).

    since_us: when the trade before them happened, for exchanges that page by time.
    """

    symbol: str
    first_id: int
    last_id: int | None
    since_us: int


Fetch = Callable[["Healer", Wanted], Awaitable[list[Trade]]]


class Healer:
    """Fetches missing trades of one exchange."""

    def __init__(self, name: str, client: Any, limiter: Limiter) -> None:
        self.name = name
        self.client = client
        self.limiter = limiter
        self.fetch_page: Fetch | None = _FETCH.get(client.id)
        self.recent_only = False  # the exchange refuses to go back by id without a key

    async def fetch(self, wanted: Wanted) -> list[Trade]:
        """Return some of the wanted trades, ascending by id, from the lowest on; [] when none is.

        Call again with a higher `first_id` for more. Raises: DataFetchError when the exchange can't
        be reached, refuses, or answers with rows that are no trades.
        """
        if self.fetch_page is None:
            return []
        try:
            async with self.limiter:
                trades = await self.fetch_page(self, wanted)
        except (ccxt.pro.BaseError, msgspec.ValidationError, ValidationError) as error:
            self.limiter.obey(error, self.client)
            raise DataFetchError(
                f"expected trades of {wanted.symbol} from id {wanted.first_id} from {self.name}, "
                f"found {type(error).__name__}: {str(error)[:200]}"
            ) from error
        last_id = wanted.last_id
        found = {
            int(trade.trade_id): trade
            for trade in trades
            if int(trade.trade_id) >= wanted.first_id
            and (last_id is None or int(trade.trade_id) <= last_id)
        }
        return [found[trade_id] for trade_id in sorted(found)]

    async def get(self, url: str, headers: dict[str, str] | None = None) -> Any:
        """Return the JSON of a raw public request, which ccxt itself would refuse or reshape."""
        self.client.open()
        return await self.client.fetch(url, "GET", headers)


class _BinanceRow(msgspec.Struct):
    id: int
    price: str
    qty: str
    time: int
    isBuyerMaker: bool


async def _binance(healer: Healer, wanted: Wanted) -> list[Trade]:
    client = healer.client
    market = client.market(wanted.symbol)
    base = client.urls["api"]["fapiPublic" if market["contract"] else "public"]
    query = f"symbol={market['id']}&limit={PAGE}"
    if not healer.recent_only:
        # Raw trades by id: ccxt demands a key, the server may not.
        headers = {"X-MBX-APIKEY": client.apiKey} if client.apiKey else None
        try:
            answer = await healer.get(
                f"{base}/historicalTrades?{query}&fromId={wanted.first_id}", headers
            )
            return _binance_trades(healer.name, wanted.symbol, answer)
        except (ccxt.pro.AuthenticationError, ccxt.pro.PermissionDenied):
            healer.recent_only = True
            log.warning("healing.limited", exchange=healer.name, reason="no API key for old trades")
    # The last 1,000: `fetch_trades` would bring aggregate ids, another id space.
    answer = await healer.get(f"{base}/trades?{query}")
    return _binance_trades(healer.name, wanted.symbol, answer)


def _binance_trades(name: str, symbol: str, answer: Any) -> list[Trade]:
    received_us = time.time_ns() // 1000
    return [
        Trade(
            exchange=name,
            symbol=symbol,
            trade_id=str(row.id),
            price=positive_text(row.price),
            amount=positive_text(row.qty),
            side="sell" if row.isBuyerMaker else "buy",
            trade_time_us=time_us(row.time * 1000),
            receive_time_us=received_us,
        )
        for row in msgspec.convert(answer, list[_BinanceRow])
    ]


_FETCH: dict[str, Fetch] = {"binance": _binance, "binanceusdm": _binance}
