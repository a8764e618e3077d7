"""Binance spot: raw trades and klines of a `/ws` stream; `binanceusdm` speaks the same under fapi.

A trade (ids are consecutive per symbol; `m`: the buyer is the maker, so the taker sold):
    {"e":"trade","E":1723161255619,"s":"BTCUSDT","t":3735683260,"p":"61837.63000000",
     "q":"0.04800000","T":1723161255617,"m":true,"M":true}

A kline, final only with `x` true; `V` is what takers bought, and a minute without trades has
`f` and `L` -1:
    {"e":"kline","E":1672515780000,"s":"BNBBTC","k":{"t":1672515720000,"T":1672515779999,
     "s":"BNBBTC","i":"1m","f":100,"L":200,"o":"0.0010","c":"0.0020","h":"0.0025","l":"0.0010",
     "v":"1000","n":100,"x":true,"q":"1.0000","V":"500","Q":"0.500","B":"123456"}}

A subscribe to what Binance does not have is acknowledged, and nothing comes; a second one to what
it has is acknowledged too. Too many messages end the connection; too many connections or requests
are answered by HTTP 429 and then 418. Source: Binance's "WebSocket streams" and "Limits".

Over REST: `historicalTrades` by raw id, keyless where the server allows it, else the last 1,000 of
`trades`; ccxt's own `fetch_trades` would bring aggregate ids, another id space. `klines` include
both ends. Source: Binance's REST reference, "Market data endpoints".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import msgspec

from alpha_pulse.contracts.events import Candle, Side, Trade
from alpha_pulse.producers.exchanges.adapter import (
    CandleSource,
    Exchange,
    TradeSource,
)
from alpha_pulse.producers.exchanges.candles import MINUTE, CandleRequest, exchange_candle
from alpha_pulse.producers.exchanges.decoder import FrameDecoder, TradeRow
from alpha_pulse.producers.exchanges.limits import Rate, SocketLimits
from alpha_pulse.producers.exchanges.numbers import INTEGER_IDS, number_id, time_us
from alpha_pulse.producers.exchanges.standing import Standing, own_word
from alpha_pulse.producers.exchanges.tick import FrameTime, Tick, decoded, known_symbol
from alpha_pulse.producers.exchanges.trades import (
    TRADES_PAGE,
    KeyNeededError,
    Mark,
    RestClient,
    Wanted,
)

# m: the buyer is the maker.
_NAMES = {"market": "s", "trade_id": "t", "price": "p", "amount": "q", "side": "m", "time": "T"}


class _TradeFrame(msgspec.Struct, tag_field="e", tag="trade", gc=False, rename=_NAMES):
    E: int
    market: str
    trade_id: int
    price: str
    amount: str
    time: int
    side: bool
    # Perpetuals only: see `binanceusdm`.
    X: str = "MARKET"


class _Kline(msgspec.Struct, gc=False):
    t: int
    i: str
    f: int
    L: int
    o: str
    c: str
    h: str
    l: str  # noqa: E741 (Binance's name)
    v: str
    n: int
    x: bool
    q: str
    V: str


class _KlineFrame(msgspec.Struct, tag_field="e", tag="kline", gc=False):
    E: int
    s: str
    k: _Kline


class _Kind(msgspec.Struct, gc=False):
    e: str | None = None


_decode = msgspec.json.Decoder(_TradeFrame | _KlineFrame).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_HOT = ('{"e":"trade"', '{"e":"kline"')


class BinanceDecoder(FrameDecoder):
    """Decodes the frames of one connection; see `FrameDecoder`."""

    ids = INTEGER_IDS
    sides: ClassVar[Mapping[bool, Side]] = {True: "sell", False: "buy"}

    def __call__(self, frame: str, receive_time_us: int) -> list[Tick] | None:
        """Return the ticks of a trade or kline frame, None for any other."""
        if not frame.startswith(_HOT):
            kind = decoded(_decode_kind, frame, self._exchange).e
            if kind not in ("trade", "kline"):
                return None
        found = decoded(_decode, frame, self._exchange)
        if type(found) is _TradeFrame:
            return [self._trade(found, receive_time_us)]
        return self._candle(found)

    def rows(self, frames: Sequence[str]) -> Sequence[TradeRow] | None:
        """Return the trades of frames that are all trades, one of each, else None."""
        rows = list(map(_decode, frames))
        return cast(list[_TradeFrame], rows) if set(map(type, rows)) <= {_TradeFrame} else None

    def _candle(self, frame: _KlineFrame) -> list[Tick]:
        symbol = known_symbol(self._symbols, frame.s)
        clock = FrameTime(symbol, time_us(frame.E * 1000))
        kline = frame.k
        if not kline.x or kline.i != "1m":
            return [clock]
        candle = exchange_candle(
            self._exchange,
            symbol,
            MINUTE,
            open_time_us=kline.t * 1000,
            prices=(kline.o, kline.h, kline.l, kline.c),
            volume=kline.v,
            quote_volume=kline.q,
            buy_volume=kline.V,
            trade_count=kline.n,
            ids=None if kline.n == 0 else (kline.f, kline.L),
        )
        return [candle, clock]


class OneStream:
    """Makes ccxt use one socket: it opens one per stream name.

    So trades and candles of a symbol arrive in the exchange's order.
    """

    stream_name = "0"

    def stream(self, type: Any, subscriptionHash: Any, numSubscriptions: int = 1) -> str:
        """Return the same name for every stream."""
        return self.stream_name


class _TradeRow(msgspec.Struct):
    id: int
    price: str
    qty: str
    time: int
    isBuyerMaker: bool


# [open time, open, high, low, close, volume, close time, quote volume, trades, taker buy base
#  volume, taker buy quote volume, "0"]
_KlineRow = tuple[int, str, str, str, str, str, int, str, int, str, str, str]


@dataclass(frozen=True, slots=True)
class BinanceRest:
    """The REST requests of one market of Binance.

    api: its name among ccxt's addresses, and in ccxt's implicit methods. history_page: rows of
    `historicalTrades`. klines_page: rows of `klines`.
    """

    api: str
    history_page: int
    klines_page: int

    async def trades_by_id(self, rest: RestClient, wanted: Wanted) -> list[Trade]:
        """Return trades from the first wanted id on, ascending.

        Args:
            rest: this exchange.
            wanted: of which symbol, from which id on.

        Raises:
            KeyNeededError: the server wants an API key for old trades.
        """
        # Here: it takes two seconds to import, and whoever asks has done so.
        from ccxt.pro import AuthenticationError, PermissionDenied

        # ccxt demands a key, the server may not.
        headers = {"X-MBX-APIKEY": rest.client.apiKey} if rest.client.apiKey else None
        query = f"limit={self.history_page}&fromId={wanted.first_id}"
        try:
            return await self._trades(rest, wanted.symbol, f"historicalTrades?{query}", headers)
        except (AuthenticationError, PermissionDenied) as error:
            raise KeyNeededError("no API key for old trades") from error

    async def recent_trades(self, rest: RestClient, symbol: str) -> list[Trade]:
        """Return the last trades by raw id, oldest first.

        Args:
            rest: this exchange.
            symbol: the unified symbol.
        """
        return await self._trades(rest, symbol, f"trades?limit={TRADES_PAGE}", None)

    async def _trades(
        self, rest: RestClient, symbol: str, query: str, headers: dict[str, str] | None
    ) -> list[Trade]:
        base, market_id = rest.client.urls["api"][self.api], rest.client.market_id(symbol)
        answer = await rest.get(f"{base}/{query}&symbol={market_id}", headers)
        return rest.read(
            symbol,
            answer,
            _TradeRow,
            lambda row: rest.trade(
                symbol,
                number_id(str(row.id)),
                row.price,
                row.qty,
                "sell" if row.isBuyerMaker else "buy",
                row.time * 1000,
            ),
        )

    async def first_trade_from(self, client: Any, symbol: str, from_us: int) -> list[Mark]:
        """Return the first trade that is not before a time, by its aggregate.

        Args:
            client: ccxt's exchange.
            symbol: the unified symbol.
            from_us: the time, Unix µs.

        Returns:
            One mark, or none where there is no such trade yet.
        """
        # {"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27781,"T":1498793709153,
        #  "m":true}
        request = {"symbol": client.market_id(symbol), "limit": 1}
        rows = await self._get(client, "AggTrades", request | {"startTime": -(-from_us // 1000)})
        return [
            Mark(row["f"], time_us(row["T"] * 1000))
            for row in msgspec.convert(rows, list[dict[str, Any]])
            if isinstance(row["f"], int)
        ]

    async def candles(self, request: CandleRequest, name: str) -> list[Candle]:
        """Return the candles of a window, ascending.

        Args:
            request: the window.
            name: Binance's name of the timeframe.
        """
        rows = await self._get(
            request.client,
            "Klines",
            {
                "symbol": request.market["id"],
                "interval": name,
                "startTime": request.start_us // 1000,
                "endTime": request.end_us // 1000 - 1,
                "limit": min(request.count, self.klines_page),
            },
        )
        return request.read(
            rows,
            _KlineRow,
            lambda row: request.candle(row[0] * 1000, row[1:5], row[5], row[7], row[9], row[8]),
        )

    async def listed_from_us(self, client: Any, symbol: str) -> int | None:
        """Return when the symbol's first candle opens, Unix µs; None where there is none.

        Args:
            client: ccxt's exchange.
            symbol: the unified symbol.
        """
        request = {"symbol": client.market_id(symbol), "interval": "1m", "startTime": 0, "limit": 1}
        rows = await self._get(client, "Klines", request)
        return int(rows[0][0]) * 1000 if rows else None

    async def _get(self, client: Any, what: str, request: dict[str, Any]) -> Any:
        return await getattr(client, f"{self.api}Get{what}")(request)


async def maintenance(client: Any) -> str:
    """Return what Binance says of a maintenance that goes on; "" when there is none.

    Source: Binance's wallet reference, "System status": 0 is normal, 1 is maintenance.

    Args:
        client: ccxt's exchange.
    """
    answer = msgspec.convert(await client.sapiGetSystemStatus(), dict[str, Any])
    return str(answer.get("msg") or "maintenance") if answer.get("status") == 1 else ""


_REST = BinanceRest("public", history_page=1_000, klines_page=1_000)
KLINE_NAMES = {
    name: name
    for name in ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w")
}
# Many streams go into one message, since few messages a second are allowed.
SYMBOLS_PER_SUBSCRIBE = 50
# Source: Binance, "WebSocket Streams", section "General WSS information": pings and pongs count
# as messages, and an address that is disconnected again and again may be banned.
LIMITS = SocketLimits(dials=Rate(300, 300.0), messages=Rate(5, 1.0), streams=1_024)
# `status` of a symbol. A delisted one stays in the list as BREAK. Source: Binance's "ENUM
# definitions", symbol status; PRE_TRADING and the two after it are of its older forms.
STANDINGS = {
    "TRADING": Standing.TRADING,
    "BREAK": Standing.HALTED,
    "HALT": Standing.HALTED,
    "END_OF_DAY": Standing.HALTED,
    "PRE_TRADING": Standing.PRE_LAUNCH,
    "POST_TRADING": Standing.HALTED,
    "AUCTION_MATCH": Standing.HALTED,
}

EXCHANGE = Exchange(
    id="binance",
    decoder=BinanceDecoder,
    ids_are_consecutive=True,
    # Spot alone: the two futures' lists are 4 MB that nobody asked for.
    ccxt_options={"fetchMarkets": {"types": ["spot"]}},
    client_mixins=(OneStream,),
    symbols_per_subscribe=SYMBOLS_PER_SUBSCRIBE,
    limits=LIMITS,
    status=own_word("status"),
    standings=STANDINGS,
    maintenance=maintenance,
    trades=TradeSource(
        by_id=_REST.trades_by_id,
        by_id_cost=5.0,
        recent=_REST.recent_trades,
        first_from=_REST.first_trade_from,
    ),
    candles=CandleSource(
        page_rows=_REST.klines_page,
        names=KLINE_NAMES | {"1s": "1s"},
        ask=_REST.candles,
        ask_recent=_REST.candles,
        listed_from_us=_REST.listed_from_us,
        empty_left_out=False,
    ),
)
