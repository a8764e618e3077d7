"""OKX spot, v5: channels trades-all and candle1m, both on the business socket.

A trade; ids are consecutive per instrument. The channel `trades` merges prints (`count`) and so
skips ids; trades-all does not:
    {"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT",
     "tradeId":"130639474","px":"42219.9","sz":"0.12060306","side":"buy","source":"0",
     "ts":"1630048897897"}]}

A candle: time, open, high, low, close, volume in base, in currency, in quote; final with "1":
    {"arg":{"channel":"candle1m","instId":"BTC-USDT"},"data":[["1597026360000","8533.02",
     "8553.74","8527.17","8548.26","45247","529.5858061","4527.1","1"]]}
"""

import re
from collections.abc import Sequence

import msgspec

from alpha_pulse.contracts.events import Side, Trade
from alpha_pulse.producers.exchanges.frame import (
    FrameError,
    Refusal,
    SymbolOf,
    Tick,
    decoded,
    exchange_candle,
    known_symbol,
    number_id,
    positive_text,
    time_us,
)

_CANDLE_FIELDS = 9


class _Argument(msgspec.Struct, gc=False):
    channel: str
    instId: str | None = None


class _Kind(msgspec.Struct, gc=False):
    arg: _Argument | None = None
    event: str | None = None
    msg: str = ""


class _TradeRow(msgspec.Struct, gc=False):
    instId: str
    tradeId: str
    px: str
    sz: str
    side: Side
    ts: str


class _TradeFrame(msgspec.Struct, gc=False):
    arg: _Argument
    data: list[_TradeRow]


class _CandleFrame(msgspec.Struct, gc=False):
    arg: _Argument
    data: list[list[str]]


_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_trades = msgspec.json.Decoder(_TradeFrame).decode
_decode_candles = msgspec.json.Decoder(_CandleFrame).decode
_INSTRUMENT = re.compile(r"instId:([A-Za-z0-9-]+)")
_HOT = '{"arg":{"channel":"trades-all"'


class OkxDecoder:
    """Decodes the frames of one address; see `FrameDecoder`."""

    def __init__(self, exchange: str, symbols: SymbolOf) -> None:
        self._exchange = exchange
        self._symbols = symbols

    def trades(self, frames: Sequence[str], receive_time_us: int) -> list[Trade] | None:
        """Return None: frames are taken one by one, each may hold several trades."""
        return None

    def __call__(self, frame: str, receive_time_us: int) -> list[Tick] | None:
        """Return the ticks of a trades-all or candle frame, None for any other."""
        if frame == "pong":
            return None
        channel = "trades-all"
        if not frame.startswith(_HOT):
            kind = decoded(_decode_kind, frame, self._exchange)
            if kind.event == "error" and (refused := _INSTRUMENT.search(kind.msg)):
                # ccxt would fail every subscription of the socket: {"event":"error",
                # "code":"60018","msg":"Wrong URL or channel:trades-all,instId:X-Y doesn't exist"}
                return [Refusal(self._symbols.get(refused.group(1), ""), kind.msg)]
            if kind.arg is None or kind.event is not None:
                return None
            channel = kind.arg.channel
        if channel == "trades-all":
            rows = decoded(_decode_trades, frame, self._exchange).data
            return [self._trade(row, receive_time_us) for row in rows]
        if channel == "candle1m":
            return self._candles(decoded(_decode_candles, frame, self._exchange))
        return None

    def _trade(self, row: _TradeRow, receive_time_us: int) -> Trade:
        return Trade(
            exchange=self._exchange,
            symbol=known_symbol(self._symbols, row.instId),
            trade_id=number_id(row.tradeId),
            price=positive_text(row.px),
            amount=positive_text(row.sz),
            side=row.side,
            trade_time_us=time_us(int(number_id(row.ts)) * 1000),
            receive_time_us=receive_time_us,
        )

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
                open_time_us=int(number_id(row[0])) * 1000,
                prices=(row[1], row[2], row[3], row[4]),
                volume=row[5],
                quote_volume=row[7],
            )
            ticks.append(candle)
        return ticks
