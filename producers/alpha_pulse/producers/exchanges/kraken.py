"""Kraken spot, websocket v2: channels trade and ohlc.

A trade frame; ids are consecutive per symbol, numbers are JSON numbers (small ones `9e-08`):
    {"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",
     "price":105944.20,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,
     "timestamp":"2023-10-06T17:35:55.440295Z"}]}

A candle frame; Kraken never says that a candle is final. It begins the next one, and on every
new subscription it sends a snapshot of the last ones, which repairs what a lost socket missed:
    {"channel":"ohlc","type":"update","timestamp":"2023-10-04T16:26:30.524394914Z",
     "data":[{"symbol":"MATIC/USD","open":0.5624,"high":0.5628,"low":0.5622,"close":0.5627,
     "trades":12,"volume":30927.68066226,"vwap":0.5626,
     "interval_begin":"2023-10-04T16:25:00.000000000Z","interval":5,
     "timestamp":"2023-10-04T16:30:00.000000Z"}]}

A subscribe is answered for each of its symbols. One that Kraken does not have; ccxt hangs on it:
    {"error":"Currency pair not supported NOPE/USD","method":"subscribe","success":false,
     "symbol":"NOPE/USD","time_in":"2023-10-04T16:26:30.524394Z",
     "time_out":"2023-10-04T16:26:30.524404Z"}

One that is subscribed already, so that nothing is wrong:
    {"error":"Already subscribed","method":"subscribe","success":false,"symbol":"BTC/USD",
     "time_in":"2023-10-04T16:26:30.524394Z","time_out":"2023-10-04T16:26:30.524404Z"}

Too many messages; which number is too many is not documented:
    {"error":"Exceeded msg rate","method":"subscribe","success":false,"symbol":"BTC/USD",
     "time_in":"2023-10-04T16:26:30.524394Z","time_out":"2023-10-04T16:26:30.524404Z"}

The whole exchange, told at each connect and when it changes:
    {"channel":"status","type":"update","data":[{"version":"2.0.10","system":"maintenance",
     "api_version":"v2","connection_id":6447481662169813000}]}

Source of these: Kraken's Spot WebSocket v2 reference, "Trade", "Status", and "Errors".

Frames call a market by its `wsname` in AssetPairs, with BTC for XBT and DOGE for XDG. That is not
ccxt's symbol: LUNA/USD is Terra Classic (ccxt: LUNC/USD) and LUNA2/USD is Terra (ccxt: LUNA/USD);
REP, REPV2 and UST are such names too.

REST goes by the pair's id (XXBTZUSD): `Trades` from a time in ns on, `OHLC` its last 720 candles
whatever is asked for; `since` excludes its own candle, and `count` keeps the oldest. Source:
Kraken's REST reference, "Market data".
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from alpha_pulse.contracts.events import Candle, Side, Trade
from alpha_pulse.contracts.market import SECOND_US
from alpha_pulse.producers.exchanges import generic
from alpha_pulse.producers.exchanges.adapter import (
    CandleSource,
    Exchange,
    TradeSource,
)
from alpha_pulse.producers.exchanges.candles import MINUTE, CandleRequest, exchange_candle
from alpha_pulse.producers.exchanges.decoder import FrameDecoder
from alpha_pulse.producers.exchanges.limits import Rate, SocketLimits
from alpha_pulse.producers.exchanges.numbers import (
    INTEGER_IDS,
    ISO_TIMES,
    Form,
    iso_time_us,
    number_id,
    positive_text,
)
from alpha_pulse.producers.exchanges.standing import Standing, own_word
from alpha_pulse.producers.exchanges.tick import (
    FrameError,
    FrameTime,
    SymbolOf,
    SystemStatus,
    Throttled,
    Tick,
    decoded,
    is_throttling,
    known_symbol,
    unsubscribed,
)
from alpha_pulse.producers.exchanges.trades import TRADES_PAGE, Mark, RestClient, Wanted


class _Channel(msgspec.Struct, gc=False):
    channel: str | None = None
    # Of an answer to a subscribe.
    method: str | None = None
    success: bool | None = None
    error: str | None = None
    symbol: str | None = None


class _System(msgspec.Struct, gc=False):
    system: str


class _StatusFrame(msgspec.Struct, gc=False):
    data: list[_System]


_NAMES = {"market": "symbol", "amount": "qty", "time": "timestamp"}


class _TradeRow(msgspec.Struct, gc=False, rename=_NAMES):
    market: str
    side: Side
    # The number's own text: a float would lose digits.
    price: msgspec.Raw
    amount: msgspec.Raw
    trade_id: int
    time: str


class _TradeFrame(msgspec.Struct, gc=False):
    data: list[_TradeRow]


class _CandleRow(msgspec.Struct, gc=False):
    symbol: str
    open: msgspec.Raw
    high: msgspec.Raw
    low: msgspec.Raw
    close: msgspec.Raw
    volume: msgspec.Raw
    trades: int
    interval_begin: str
    interval: int


class _CandleFrame(msgspec.Struct, gc=False):
    data: list[_CandleRow]
    timestamp: str | None = None


_decode_channel = msgspec.json.Decoder(_Channel).decode
_decode_candles = msgspec.json.Decoder(_CandleFrame).decode
_decode_status = msgspec.json.Decoder(_StatusFrame).decode
# The words of the status channel with which trades come.
_SYSTEM_TRADES = frozenset({"online", "limit_only"})


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw).decode().strip('"')


class KrakenDecoder(FrameDecoder):
    """Decodes the frames of one address, over all its connections; see `FrameDecoder`."""

    hot = '{"channel":"trade",'
    decode_trades = msgspec.json.Decoder(_TradeFrame).decode
    ids = INTEGER_IDS
    times = ISO_TIMES
    numbers = Form(
        lambda raw: positive_text(_text(raw)), lambda raws: [bytes(raw).decode() for raw in raws]
    )

    def __init__(self, exchange: str, symbols: SymbolOf) -> None:
        super().__init__(exchange, symbols)
        self._open: dict[str, Candle] = {}  # the newest candle of each symbol, not yet final

    def __call__(self, frame: str, receive_time_us: int) -> list[Tick] | None:
        """Return the ticks of a trade or ohlc frame, None for any other."""
        if frame.startswith(self.hot):
            return self._trades(frame, receive_time_us)
        kind = decoded(_decode_channel, frame, self._exchange)
        channel = kind.channel
        if channel == "trade":
            return self._trades(frame, receive_time_us)
        if channel == "ohlc":
            return self._candles(decoded(_decode_candles, frame, self._exchange))
        if channel == "status":
            rows = decoded(_decode_status, frame, self._exchange).data
            return [SystemStatus(row.system in _SYSTEM_TRADES, row.system) for row in rows]
        return self._failed(kind) if kind.success is False else None

    def _failed(self, kind: _Channel) -> list[Tick] | None:
        reason = kind.error or "refused"
        if kind.method == "unsubscribe":
            return []
        if kind.symbol is not None:
            return unsubscribed(self._symbols, [kind.symbol], reason)
        named = [name for name in self._symbols if name in reason.split()]
        if named:
            return unsubscribed(self._symbols, named, reason)
        return [Throttled("", reason)] if is_throttling(reason) else None

    def _candles(self, frame: _CandleFrame) -> list[Tick]:
        ticks: list[Tick] = []
        candles = [self._candle(row) for row in frame.data if row.interval == 1]
        for candle in candles:
            newest = self._open.get(candle.symbol)
            if newest is not None and candle.open_time_us > newest.open_time_us:
                ticks.append(newest)
            if newest is None or candle.open_time_us >= newest.open_time_us:
                self._open[candle.symbol] = candle
        if frame.timestamp is not None and candles:
            ticks.append(FrameTime(candles[-1].symbol, iso_time_us(frame.timestamp)))
        return ticks

    def _candle(self, row: _CandleRow) -> Candle:
        prices = (_text(row.open), _text(row.high), _text(row.low), _text(row.close))
        return exchange_candle(
            self._exchange,
            known_symbol(self._symbols, row.symbol),
            MINUTE,
            open_time_us=iso_time_us(row.interval_begin),
            prices=prices,
            volume=_text(row.volume),
            trade_count=row.trades,
        )


# [price, volume, time in s, "b" or "s", order type, misc, trade id]. A float of seconds is exact to
# the microsecond until the year 2255.
_RestTradeRow = tuple[str, str, float, str, str, str, int]
# [time in s, open, high, low, close, vwap, volume, count]
_RestCandleRow = tuple[int, str, str, str, str, str, str, int]
CANDLES_SHOWN = 720
# `status` of a pair. With post_only there are no takers, with limit_only there are. Source:
# Kraken's references, REST "Get tradable asset pairs" and Spot WebSocket v2 "Instrument".
STANDINGS = {
    "online": Standing.TRADING,
    "limit_only": Standing.TRADING,
    "reduce_only": Standing.TRADING,
    "post_only": Standing.HALTED,
    "cancel_only": Standing.HALTED,
    "maintenance": Standing.HALTED,
    "work_in_progress": Standing.PRE_LAUNCH,
    "delisted": Standing.ENDED,
}


_READABLE = {"XBT": "BTC", "XDG": "DOGE"}


def _frame_name(symbol: str, market: Mapping[str, Any]) -> str:
    # Of websocket v2. A pair without a `wsname` is known by its symbol alone.
    name = str(market["info"].get("wsname") or symbol)
    return "/".join(_READABLE.get(asset, asset) for asset in name.split("/"))


class _OwnNames:
    """Makes ccxt subscribe by Kraken's names: it sends its own symbols."""

    def watch(self, url: str, key: str, message: Any = None, *rest: Any, **named: Any) -> Any:
        """Watch one market, under Kraken's name of it."""
        return super().watch(url, key, self._renamed(message), *rest, **named)  # type: ignore[misc]

    def watch_multiple(
        self, url: str, keys: Any, message: Any = None, *rest: Any, **named: Any
    ) -> Any:
        """Watch many markets, under Kraken's names of them."""
        renamed = self._renamed(message)
        return super().watch_multiple(url, keys, renamed, *rest, **named)  # type: ignore[misc]

    def _renamed(self, message: Any) -> Any:
        parameters = (message or {}).get("params") or {}
        if "symbol" not in parameters:
            return message
        names = [_frame_name(s, self.market(s)) for s in parameters["symbol"]]  # type: ignore[attr-defined]
        return {**message, "params": {**parameters, "symbol": names}}


def _rows(answer: Any) -> Any:
    # {"error":[],"result":{"XXBTZUSD":[...],"last":"1549223326971661000"}}
    answered = msgspec.convert(answer, dict[str, Any])
    result = msgspec.convert(answered.get("result"), dict[str, Any])
    rows = [value for key, value in result.items() if key != "last"]
    if not rows:
        raise FrameError(f"expected rows in the answer, found {list(result)}")
    return rows[0]


async def _trade_rows(client: Any, symbol: str, since_us: int, count: int) -> Any:
    # ["3417.20000","0.21222200",1549223326.971661,"b","l","",10218208]
    request: dict[str, Any] = {"pair": client.market_id(symbol), "count": count}
    if since_us:
        request["since"] = str(since_us * 1000 - 1)  # exclusive
    return _rows(await client.publicGetTrades(request))


async def _trades_by_id(rest: RestClient, wanted: Wanted) -> list[Trade]:
    return rest.read(
        wanted.symbol,
        await _trade_rows(rest.client, wanted.symbol, wanted.since_us, TRADES_PAGE),
        _RestTradeRow,
        lambda row: rest.trade(
            wanted.symbol,
            number_id(str(row[6])),
            row[0],
            row[1],
            "sell" if row[3] == "s" else "buy",
            round(row[2] * 1e6),
        ),
    )


async def _first_trade_from(client: Any, symbol: str, from_us: int) -> list[Mark]:
    rows = await _trade_rows(client, symbol, from_us, 1)
    return [Mark(row[6], round(row[2] * 1e6)) for row in msgspec.convert(rows, list[_RestTradeRow])]


async def _candles(request: CandleRequest, name: str) -> list[Candle]:
    # [1688671200,"30306.1","30306.2","30305.7","30305.7","30306.1","3.39243896",23]
    since_us = request.start_us - request.timeframe.duration_us
    asked = {
        "pair": request.market["id"],
        "interval": name,
        "since": max(0, since_us // SECOND_US),
    }
    rows = _rows(await request.client.publicGetOHLC(asked))
    return request.read(
        rows,
        _RestCandleRow,
        lambda row: request.candle(row[0] * SECOND_US, row[1:5], row[6], trade_count=row[7]),
    )


async def _recent_candles(request: CandleRequest, name: str) -> list[Candle]:
    since_us = request.start_us - request.timeframe.duration_us
    return await generic.recent_candles(replace(request, start_us=since_us), name)


EXCHANGE = Exchange(
    id="kraken",
    decoder=KrakenDecoder,
    ids_are_consecutive=True,
    client_mixins=(_OwnNames,),
    frame_name=_frame_name,
    # Source: Kraken, "Spot WebSockets", introduction: about 150 attempts in rolling 10 minutes,
    # then a ban of 10 minutes. "Exceeded msg rate" answers too many messages, but no document says
    # how many: 50 a second is our guess.
    limits=SocketLimits(dials=Rate(150, 600.0), messages=Rate(50, 1.0)),
    status=own_word("status"),
    standings=STANDINGS,
    trades=TradeSource(by_id=_trades_by_id, first_from=_first_trade_from),
    candles=CandleSource(
        page_rows=CANDLES_SHOWN,
        names={
            "1m": "1",
            "5m": "5",
            "15m": "15",
            "30m": "30",
            "1h": "60",
            "4h": "240",
            "1d": "1440",
        },
        ask=_candles,
        newest_rows=CANDLES_SHOWN,
        ask_recent=_recent_candles,
        empty_left_out=False,
    ),
)
