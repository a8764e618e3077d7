"""OKX spot, v5: channels trades-all and candle1m, both on the business socket.

A trade; ids are consecutive per instrument. The channel `trades` merges prints (`count`) and so
skips ids; trades-all does not:
    {"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT",
     "tradeId":"130639474","px":"42219.9","sz":"0.12060306","side":"buy","source":"0",
     "ts":"1630048897897"}]}

A candle: time, open, high, low, close, volume in base, in currency, in quote; final with "1":
    {"arg":{"channel":"candle1m","instId":"BTC-USDT"},"data":[["1597026360000","8533.02",
     "8553.74","8527.17","8548.26","45247","529.5858061","4527.1","1"]]}

A subscribe to what OKX does not have; a second one to what it has is acknowledged as the first was:
    {"event":"error","code":"60018",
     "msg":"Wrong URL or channel:trades-all,instId:NOPE-USDT doesn't exist.","connId":"a4d3ae55"}

More than 480 subscribes an hour on one connection; nothing is named:
    {"event":"error","code":"60014","msg":"Requests too frequent","connId":"a4d3ae55"}

Source of these: OKX's v5 reference, "Error code", "WebSocket".

Over REST: `history-trades` pages back by id or time, `history-candles` excludes both ends. Source:
OKX's v5 reference, "Market data".
"""

import re
from typing import Any

import msgspec

from alpha_pulse.contracts.events import Candle, Side, Trade
from alpha_pulse.producers.exchanges.adapter import (
    CandleSource,
    Exchange,
    TradeSource,
)
from alpha_pulse.producers.exchanges.candles import MINUTE, CandleRequest, exchange_candle
from alpha_pulse.producers.exchanges.decoder import FrameDecoder
from alpha_pulse.producers.exchanges.limits import Rate, SocketLimits
from alpha_pulse.producers.exchanges.numbers import MS_TEXT_TIMES, number_id, time_us
from alpha_pulse.producers.exchanges.standing import Standing, own_word
from alpha_pulse.producers.exchanges.tick import (
    FrameError,
    Throttled,
    Tick,
    decoded,
    is_throttling,
    known_symbol,
    unsubscribed,
)
from alpha_pulse.producers.exchanges.trades import Mark, RestClient, Wanted

_CANDLE_FIELDS = 9


class _Argument(msgspec.Struct, gc=False):
    channel: str
    instId: str | None = None


class _Kind(msgspec.Struct, gc=False):
    arg: _Argument | None = None
    event: str | None = None
    msg: str = ""


_NAMES = {"market": "instId", "trade_id": "tradeId", "price": "px", "amount": "sz", "time": "ts"}


class _TradeRow(msgspec.Struct, gc=False, rename=_NAMES):
    market: str
    trade_id: str
    price: str
    amount: str
    side: Side
    time: str


class _TradeFrame(msgspec.Struct, gc=False):
    data: list[_TradeRow]


class _CandleFrame(msgspec.Struct, gc=False):
    arg: _Argument
    data: list[list[str]]


_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_candles = msgspec.json.Decoder(_CandleFrame).decode
_INSTRUMENTS = re.compile(r"""instId"?:"?([^"'\s,]+)""")


class OkxDecoder(FrameDecoder):
    """Decodes the frames of one address; see `FrameDecoder`."""

    hot = '{"arg":{"channel":"trades-all"'
    decode_trades = msgspec.json.Decoder(_TradeFrame).decode
    times = MS_TEXT_TIMES

    def __call__(self, frame: str, receive_time_us: int) -> list[Tick] | None:
        """Return the ticks of a trades-all or candle frame, None for any other."""
        if frame == "pong":
            return None
        channel = "trades-all"
        if not frame.startswith(self.hot):
            kind = decoded(_decode_kind, frame, self._exchange)
            if kind.event == "error":
                return self._failed(kind)
            if kind.arg is None or kind.event is not None:
                return None
            channel = kind.arg.channel
        if channel == "trades-all":
            return self._trades(frame, receive_time_us)
        if channel == "candle1m":
            return self._candles(decoded(_decode_candles, frame, self._exchange))
        return None

    def _failed(self, kind: _Kind) -> list[Tick] | None:
        # ccxt would fail every subscription of the socket.
        ids = _INSTRUMENTS.findall(kind.msg)
        if not ids:
            return [Throttled("", kind.msg)] if is_throttling(kind.msg) else None
        return unsubscribed(self._symbols, ids, kind.msg)

    def _candles(self, frame: _CandleFrame) -> list[Tick]:
        symbol = known_symbol(self._symbols, frame.arg.instId or "")
        ticks: list[Tick] = []
        for row in frame.data:
            if len(row) < _CANDLE_FIELDS:
                raise FrameError(
                    f"expected a candle of {_CANDLE_FIELDS} fields, found {len(row)}", symbol=symbol
                )
            if row[8] != "1":
                continue
            candle = exchange_candle(
                self._exchange,
                symbol,
                MINUTE,
                open_time_us=int(number_id(row[0])) * 1000,
                prices=(row[1], row[2], row[3], row[4]),
                volume=row[5],
                quote_volume=row[7],
            )
            ticks.append(candle)
        return ticks


class _SingleTrades:
    # The channel of single trades needs no login; ccxt logs in all the same.
    async def authenticate(self, params: Any = None) -> None:
        return None


class _RestTradeRow(msgspec.Struct):
    tradeId: str
    px: str
    sz: str
    side: Side
    ts: str


# [ts, open, high, low, close, volume, volume in quote or base, quote volume, "1" when closed]
_RestCandleRow = tuple[str, str, str, str, str, str, str, str, str]
TRADES_PAGE = 100
CANDLES_PAGE = 300
# `state` of an instrument. Source: OKX's v5 reference, "Get instruments".
STANDINGS = {
    "live": Standing.TRADING,
    "suspend": Standing.HALTED,
    "rebase": Standing.HALTED,
    "preopen": Standing.PRE_LAUNCH,
    "test": Standing.ENDED,
    "expired": Standing.ENDED,
}
# Kinds of paging of `history-trades`: `after` is an id, or a time in ms.
_BY_ID, _BY_TIME = "1", "2"


async def _history_trades(client: Any, symbol: str, kind: str, after: int) -> Any:
    # The newest trades below `after`, newest first.
    answer = await client.publicGetMarketHistoryTrades(
        {
            "instId": client.market_id(symbol),
            "type": kind,
            "after": str(after),
            "limit": str(TRADES_PAGE),
        }
    )
    return msgspec.convert(answer, dict[str, Any]).get("data")


async def _trades_by_id(rest: RestClient, wanted: Wanted) -> list[Trade]:
    after = wanted.first_id + TRADES_PAGE
    if wanted.last_id is not None:
        after = min(after, wanted.last_id + 1)
    return rest.read(
        wanted.symbol,
        await _history_trades(rest.client, wanted.symbol, _BY_ID, after),
        _RestTradeRow,
        lambda row: rest.trade(
            wanted.symbol,
            number_id(row.tradeId),
            row.px,
            row.sz,
            row.side,
            int(number_id(row.ts)) * 1000,
        ),
    )


async def _newest_trades_before(client: Any, symbol: str, before_us: int) -> list[Mark]:
    rows = await _history_trades(client, symbol, _BY_TIME, -(-before_us // 1000))
    return [
        Mark(int(number_id(row.tradeId)), time_us(int(number_id(row.ts)) * 1000))
        for row in msgspec.convert(rows, list[_RestTradeRow])
    ]


def _is_open(row: Any) -> bool:
    return isinstance(row, list) and len(row) > 8 and row[8] != "1"


async def _candles(request: CandleRequest, name: str) -> list[Candle]:
    market = request.market
    answer = await request.client.publicGetMarketHistoryCandles(
        {
            "instId": market["id"],
            "bar": name,
            "before": str(request.start_us // 1000 - 1),
            "after": str(request.end_us // 1000),
            "limit": str(CANDLES_PAGE),
        }
    )
    rows = msgspec.convert(msgspec.convert(answer, dict[str, Any]).get("data"), list[Any])
    closed = [row for row in rows if not _is_open(row)]
    # Derivatives count contracts first; the base currency comes second.
    volume = 6 if market["contract"] else 5
    return request.read(
        closed,
        _RestCandleRow,
        lambda row: request.candle(int(row[0]) * 1000, row[1:5], row[volume], row[7]),
    )


# `serviceType` of a status: its websockets, or all trading. Source: OKX's v5 reference, "Status".
_ALL_SERVICES = ("0", "5")


async def _maintenance(client: Any) -> str:
    # [{"title":"System upgrade","state":"ongoing","begin":"1672823400000","end":"1672825980000",
    #   "serviceType":"5","system":"unified","env":"1", ...}]; env 2 is the demo.
    # Past ccxt's throttle, which makes every other request wait 5 s for this one.
    url = f"{client.implode_hostname(client.urls['api']['rest'])}/api/v5/system/status"
    answer = msgspec.convert(await client.fetch(url), dict[str, Any])
    rows = msgspec.convert(answer.get("data"), list[dict[str, Any]])
    concern = (
        str(row.get("title") or "maintenance")
        for row in rows
        if row.get("state") == "ongoing"
        and row.get("serviceType") in _ALL_SERVICES
        and row.get("env", "1") == "1"
    )
    return next(concern, "")


EXCHANGE = Exchange(
    id="okx",
    decoder=OkxDecoder,
    ids_are_consecutive=True,
    # The channel `trades` merges prints and so hides ids.
    ccxt_options={
        "watchTrades": {"channel": "trades-all"},
        "fetchMarkets": {"types": ["spot", "swap"]},
    },
    client_mixins=(_SingleTrades,),
    # Source: OKX API v5, "WebSocket", "Connect": 3 connections a second of an address, 480
    # subscribes, unsubscribes and logins an hour of a connection.
    limits=SocketLimits(dials=Rate(3, 1.0), requests=Rate(480, 3_600.0)),
    status=own_word("state"),
    standings=STANDINGS,
    maintenance=_maintenance,
    # "Get candlesticks history": 20 requests in 2 s; ccxt sends one in 110 ms.
    request_interval_ms=100.0,
    trades=TradeSource(by_id=_trades_by_id, newest_before=_newest_trades_before),
    candles=CandleSource(
        page_rows=CANDLES_PAGE,
        # Without "utc" OKX's days begin at midnight in Hong Kong.
        names={name: name for name in ("1m", "3m", "5m", "15m", "30m")}
        | {"1h": "1H", "2h": "2H", "4h": "4H", "6h": "6Hutc", "12h": "12Hutc"}
        | {"1d": "1Dutc", "1w": "1Wutc"},
        ask=_candles,
        empty_left_out=False,
    ),
)
