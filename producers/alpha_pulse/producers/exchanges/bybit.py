"""Bybit v5, spot and linear perpetuals: topics publicTrade and kline.

A trade frame. Ids prove nothing about what is missing: perpetuals have UUIDs, and spot has had
numbers such as 2290000000001190010741 since 2025, unique and not consecutive:
    {"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1709891679005,"data":[{
     "T":1709891679000,"s":"BTCUSDT","S":"Buy","v":"0.010","p":"27451.00",
     "i":"9dc75fca-4bdd-4773-9f78-6f5d7ab2a110","BT":false}]}

A kline frame, final only with `confirm` true:
    {"topic":"kline.5.BTCUSDT","data":[{"start":1672324800000,"end":1672325099999,"interval":"5",
     "open":"16649.5","close":"16677","high":"16677","low":"16608","volume":"2.081",
     "turnover":"34666.4005","confirm":false,"timestamp":1672324988882}],
     "ts":1672324988882,"type":"snapshot"}

A subscribe that fails; it fails whole, so that each symbol goes into a message of its own. A
perpetual, or a channel, that Bybit does not have:
    {"success":false,"ret_msg":"error:handler not found,topic:publicTrade.NOPEUSDT","conn_id":"c",
     "req_id":"1","op":"subscribe"}

A spot symbol that it does not have:
    {"success":false,"ret_msg":"Invalid symbol :[publicTrade.NOPEUSDT]","conn_id":"c","req_id":"1",
     "op":"subscribe"}

One that is subscribed already, so that nothing is wrong:
    {"success":false,"ret_msg":"error:already subscribed,topic:publicTrade.BTCUSDT","conn_id":"c",
     "req_id":"1","op":"subscribe"}

Source of these: Bybit's v5 reference, "Connect" (the frame), and its servers' answers (the texts).

A market's id says not which it is: BTC/USDT and BTC/USDT:USDT both are BTCUSDT. The end of an
address is its category, `spot` or `linear`. Over REST only the last trades are shown (60 of spot,
1,000 of perpetuals); `kline` includes both ends. Source: Bybit's v5 reference, "Market".
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from alpha_pulse.contracts.events import Candle, Side, Trade
from alpha_pulse.contracts.market import TRADE_ID_PATTERN
from alpha_pulse.producers.exchanges.adapter import (
    CandleSource,
    Exchange,
    TradeSource,
)
from alpha_pulse.producers.exchanges.candles import MINUTE, CandleRequest, exchange_candle
from alpha_pulse.producers.exchanges.decoder import FrameDecoder
from alpha_pulse.producers.exchanges.limits import Rate, SocketLimits
from alpha_pulse.producers.exchanges.numbers import Form, number_id, time_us
from alpha_pulse.producers.exchanges.standing import Standing, own_word
from alpha_pulse.producers.exchanges.tick import (
    FrameError,
    FrameTime,
    Throttled,
    Tick,
    decoded,
    is_throttling,
    known_symbol,
    unsubscribed,
)
from alpha_pulse.producers.exchanges.trades import TRADES_PAGE, RestClient

_TRADE_ID = re.compile(TRADE_ID_PATTERN).match
_TRADE_ID_LENGTH_MAX = 64
_TOPICS = re.compile(r"(?:topic:|\[)([^\]]+)")


class _Kind(msgspec.Struct, gc=False):
    topic: str | None = None
    success: bool | None = None
    op: str | None = None
    ret_msg: str = ""


_NAMES = {"market": "s", "trade_id": "i", "price": "p", "amount": "v", "side": "S", "time": "T"}


class _TradeRow(msgspec.Struct, gc=False, rename=_NAMES):
    trade_id: str
    time: int
    price: str
    amount: str
    side: Literal["Buy", "Sell"]
    market: str


class _TradeFrame(msgspec.Struct, gc=False):
    data: list[_TradeRow]


class _KlineRow(msgspec.Struct, gc=False):
    start: int
    interval: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    turnover: str
    confirm: bool


class _KlineFrame(msgspec.Struct, gc=False):
    topic: str
    data: list[_KlineRow]
    ts: int


_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_klines = msgspec.json.Decoder(_KlineFrame).decode


def _any_id(text: str) -> str:
    if not _TRADE_ID(text):
        raise FrameError(f"expected a trade id, found {text[:80]!r}", "bad_id")
    return text


def _any_ids(texts: Sequence[str]) -> Sequence[str]:
    joined, lengths = "".join(texts), set(map(len, texts))
    # Printable ASCII but the blank, at most so many: what the pattern says of each.
    are_ids = joined.isascii() and joined.isprintable() and " " not in joined
    if are_ids and min(lengths) > 0 and max(lengths) <= _TRADE_ID_LENGTH_MAX:
        return texts
    return [_any_id(text) for text in texts]


class BybitDecoder(FrameDecoder):
    """Decodes the frames of one address, so of one category; see `FrameDecoder`."""

    hot = '{"topic":"publicTrade.'
    decode_trades = msgspec.json.Decoder(_TradeFrame).decode
    sides: ClassVar[Mapping[str, Side]] = {"Buy": "buy", "Sell": "sell"}
    ids = Form(_any_id, _any_ids)

    def __call__(self, frame: str, receive_time_us: int) -> list[Tick] | None:
        """Return the ticks of a publicTrade or kline frame, None for any other."""
        if frame.startswith(self.hot):
            return self._trades(frame, receive_time_us)
        kind = decoded(_decode_kind, frame, self._exchange)
        topic = kind.topic
        if topic is None:
            return None if kind.success is not False else self._failed(kind)
        if topic.startswith("publicTrade."):
            return self._trades(frame, receive_time_us)
        if topic.startswith("kline.1."):
            return self._candles(decoded(_decode_klines, frame, self._exchange))
        return None

    def _failed(self, kind: _Kind) -> list[Tick] | None:
        named = _TOPICS.search(kind.ret_msg)
        if named is None:
            return [Throttled("", kind.ret_msg)] if is_throttling(kind.ret_msg) else None
        if kind.op == "unsubscribe":
            return []
        # ccxt would give the whole socket up.
        ids = [topic.rpartition(".")[2].strip() for topic in named.group(1).split(",")]
        return unsubscribed(self._symbols, ids, kind.ret_msg)

    def _candles(self, frame: _KlineFrame) -> list[Tick]:
        symbol = known_symbol(self._symbols, frame.topic.rpartition(".")[2])
        ticks: list[Tick] = []
        for row in frame.data:
            if not row.confirm:
                continue
            candle = exchange_candle(
                self._exchange,
                symbol,
                MINUTE,
                open_time_us=row.start * 1000,
                prices=(row.open, row.high, row.low, row.close),
                volume=row.volume,
                quote_volume=row.turnover,
            )
            ticks.append(candle)
        return [*ticks, FrameTime(symbol, time_us(frame.ts * 1000))]


class _RestTradeRow(msgspec.Struct):
    execId: str
    price: str
    size: str
    side: str
    time: str


# [start, open, high, low, close, volume, turnover]
_RestKlineRow = tuple[str, str, str, str, str, str, str]
KLINES_PAGE = 1_000
# `status` of an instrument; spot has Trading alone. Source: Bybit's v5 reference, "Enums", status.
STANDINGS = {
    "Trading": Standing.TRADING,
    "PreLaunch": Standing.PRE_LAUNCH,
    "Settling": Standing.HALTED,
    "Delivering": Standing.HALTED,
    "Closed": Standing.ENDED,
}
SPOT_TRADES_PAGE = 60


def _carries(url: str, market: Mapping[str, Any]) -> bool:
    return bool(market.get(url.rsplit("/", 1)[-1]))


def _category(market: Any) -> str:
    return "spot" if market["spot"] else "linear" if market["linear"] else "inverse"


def _rows(answer: Any) -> Any:
    result = msgspec.convert(msgspec.convert(answer, dict[str, Any]).get("result"), dict[str, Any])
    return result.get("list")


async def _recent_trades(rest: RestClient, symbol: str) -> list[Trade]:
    market = rest.client.market(symbol)
    category = _category(market)
    limit = SPOT_TRADES_PAGE if category == "spot" else TRADES_PAGE
    answer = await rest.client.publicGetV5MarketRecentTrade(
        {"category": category, "symbol": market["id"], "limit": limit}
    )
    newest_first = rest.read(
        symbol,
        _rows(answer),
        _RestTradeRow,
        lambda row: rest.trade(
            symbol,
            row.execId,
            row.price,
            row.size,
            "buy" if row.side == "Buy" else "sell",
            int(number_id(row.time)) * 1000,
        ),
    )
    return newest_first[::-1]


async def _candles(request: CandleRequest, name: str) -> list[Candle]:
    market = request.market
    answer = await request.client.publicGetV5MarketKline(
        {
            "category": _category(market),
            "symbol": market["id"],
            "interval": name,
            "start": request.start_us // 1000,
            "end": request.end_us // 1000 - 1,
            "limit": KLINES_PAGE,
        }
    )
    return request.read(
        _rows(answer),
        _RestKlineRow,
        lambda row: request.candle(int(row[0]) * 1000, row[1:5], row[5], row[6]),
    )


# `product` of a status: futures and spot. Source: Bybit's v5 reference, "Enums".
_ALL_PRODUCTS = frozenset({1, 2})


async def _maintenance(client: Any) -> str:
    # [{"id":"…","title":"t06","state":"ongoing","begin":"1751596902000","end":"1751597011000",
    #   "serviceTypes":[1],"product":[1,2],"maintainType":1,"env":1, ...}]; env 2 is the demo.
    rows = msgspec.convert(_rows(await client.publicGetV5SystemStatus()), list[dict[str, Any]])
    concern = (
        str(row.get("title") or "maintenance")
        for row in rows
        if row.get("state") == "ongoing"
        and set(row.get("product") or ()) >= _ALL_PRODUCTS
        and row.get("env", 1) == 1
    )
    return next(concern, "")


EXCHANGE = Exchange(
    id="bybit",
    decoder=BybitDecoder,
    carries=_carries,
    # Sources: Bybit v5, "Rate Limit Rules" (websocket IP limit) and "Connect" (args of one public
    # connection; 10 args in one request of spot: one symbol goes into ours).
    limits=SocketLimits(dials=Rate(500, 300.0), topic_chars=21_000),
    status=own_word("status"),
    standings=STANDINGS,
    maintenance=_maintenance,
    trades=TradeSource(recent=_recent_trades),
    candles=CandleSource(
        page_rows=KLINES_PAGE,
        names={"1m": "1", "3m": "3", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120"}
        | {"4h": "240", "6h": "360", "12h": "720", "1d": "D", "1w": "W"},
        ask=_candles,
        empty_left_out=False,
    ),
)
