"""Binance spot and USD-M perpetuals: raw trades and klines of a `/ws` stream.

A trade (ids are consecutive per symbol; `m`: the buyer is the maker, so the taker sold):
    {"e":"trade","E":1723161255619,"s":"BTCUSDT","t":3735683260,"p":"61837.63000000",
     "q":"0.04800000","T":1723161255617,"m":true,"M":true}

A kline, final only with `x` true; `V` is what takers bought, and a minute without trades has
`f` and `L` -1:
    {"e":"kline","E":1672515780000,"s":"BNBBTC","k":{"t":1672515720000,"T":1672515779999,
     "s":"BNBBTC","i":"1m","f":100,"L":200,"o":"0.0010","c":"0.0020","h":"0.0025","l":"0.0010",
     "v":"1000","n":100,"x":true,"q":"1.0000","V":"500","Q":"0.500","B":"123456"}}
"""

from collections.abc import Sequence

import msgspec

from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.market import TIME_US_MIN
from alpha_pulse.producers.exchanges.frame import (
    AHEAD_US_MAX,
    NUMBER_ID_END,
    FrameTime,
    PositiveTexts,
    SymbolOf,
    Tick,
    decoded,
    exchange_candle,
    known_symbol,
    number_id,
    positive_text,
    time_us,
)


class _TradeFrame(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool
    # Perpetuals only: MARKET, or a reason such as INSURANCE_FUND, ADL or NA.
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
# Of one type alone msgspec takes an object without its tag; of two it asks for it.
_decode_frames = msgspec.json.Decoder(list[_TradeFrame | _KlineFrame]).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode
_MS_MIN = TIME_US_MIN // 1000
_HOT_TRADE = '{"e":"trade"'
_HOT = (_HOT_TRADE, '{"e":"kline"')


class BinanceDecoder:
    """Decodes the frames of one connection; see `FrameDecoder`."""

    def __init__(self, exchange: str, symbols: SymbolOf) -> None:
        self._exchange = exchange
        self._symbols = symbols
        self._texts = PositiveTexts()

    def trades(self, frames: Sequence[str], receive_time_us: int) -> list[Trade] | None:
        """Return the trades of frames that are all trades, else None; see `FrameDecoder`."""
        try:
            rows = _decode_frames("[" + ",".join(frames) + "]")
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        # One frame may hold what looks like two, and another none.
        if len(rows) != len(frames):
            return None
        exchange, symbols, known, are = (
            self._exchange,
            self._symbols,
            self._texts.known,
            self._texts.are,
        )
        end_ms = (receive_time_us + AHEAD_US_MAX) // 1000
        trades: list[Trade] = []
        for row in rows:
            if row.__class__ is not _TradeFrame:
                return None
            price, amount, symbol = row.p, row.q, symbols.get(row.s)
            if symbol is None or not 0 <= row.t < NUMBER_ID_END or not _MS_MIN <= row.T < end_ms:
                return None
            if (price not in known or amount not in known) and not are(price, amount):
                return None
            trades.append(
                Trade(
                    exchange=exchange,
                    symbol=symbol,
                    trade_id=str(row.t),
                    price=price,
                    amount=amount,
                    side="sell" if row.m else "buy",
                    trade_time_us=row.T * 1000,
                    receive_time_us=receive_time_us,
                )
            )
        return trades

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

    def _trade(self, frame: _TradeFrame, receive_time_us: int) -> Trade:
        return Trade(
            exchange=self._exchange,
            symbol=self._symbols.get(frame.s) or known_symbol(self._symbols, frame.s),
            trade_id=number_id(str(frame.t)),
            price=positive_text(frame.p),
            amount=positive_text(frame.q),
            side="sell" if frame.m else "buy",
            trade_time_us=time_us(frame.T * 1000),
            receive_time_us=receive_time_us,
        )

    def _candle(self, frame: _KlineFrame) -> list[Tick]:
        symbol = known_symbol(self._symbols, frame.s)
        clock = FrameTime(symbol, time_us(frame.E * 1000))
        kline = frame.k
        if not kline.x or kline.i != "1m":
            return [clock]
        candle = exchange_candle(
            self._exchange,
            symbol,
            open_time_us=kline.t * 1000,
            prices=(kline.o, kline.h, kline.l, kline.c),
            volume=kline.v,
            quote_volume=kline.q,
            buy_volume=kline.V,
            trade_count=kline.n,
            ids=None if kline.n == 0 else (kline.f, kline.L),
        )
        return [candle, clock]
