"""Coinbase Advanced Trade: channel market_trades; there are no candle frames of one minute.

Ids are consecutive per product; one frame may hold several products, newest trade first:
    {"channel":"market_trades","client_id":"","timestamp":"2026-04-07T14:30:02.789012Z",
     "sequence_num":5,"events":[{"type":"update","trades":[{"trade_id":"995098700",
     "product_id":"BTC-USD","price":"68900.50","size":"0.00150000","side":"BUY",
     "time":"2026-04-07T14:30:02.789012Z"}]}]}
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from alpha_pulse.contracts.events import Trade
from alpha_pulse.producers.exchanges.frame import (
    Refusal,
    SymbolOf,
    Tick,
    decoded,
    iso_time_us,
    known_symbol,
    number_id,
    positive_text,
)


class _Kind(msgspec.Struct, gc=False):
    channel: str | None = None
    type: str | None = None
    message: str | None = None


class _TradeRow(msgspec.Struct, gc=False):
    trade_id: str
    product_id: str
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    time: str


class _Event(msgspec.Struct, gc=False):
    trades: list[_TradeRow]


class _TradeFrame(msgspec.Struct, gc=False):
    events: list[_Event]


_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode_trades = msgspec.json.Decoder(_TradeFrame).decode


class CoinbaseDecoder:
    """Decodes the frames of one address; see `FrameDecoder`."""

    def __init__(self, exchange: str, symbols: SymbolOf) -> None:
        self._exchange = exchange
        self._symbols = symbols

    def trades(self, frames: Sequence[str], receive_time_us: int) -> list[Trade] | None:
        """Return None: frames are taken one by one, each may hold several trades."""
        return None

    def __call__(self, frame: str, receive_time_us: int) -> list[Tick] | None:
        """Return the trades of a market_trades frame by id, None for any other frame."""
        kind = decoded(_decode_kind, frame, self._exchange)
        if kind.type == "error":
            # ccxt's receive loop dies of it:
            # {"type":"error","message":"X-Y is not a valid product"}
            message = kind.message or ""
            named = [symbol for name, symbol in self._symbols.items() if name in message.split()]
            return [Refusal(named[0] if named else "", message)]
        if kind.channel != "market_trades":
            return None
        trades: list[Trade] = []
        for event in decoded(_decode_trades, frame, self._exchange).events:
            trades += [self._trade(row, receive_time_us) for row in event.trades]
        trades.sort(key=lambda trade: int(trade.trade_id))
        return list(trades)

    def _trade(self, row: _TradeRow, receive_time_us: int) -> Trade:
        return Trade(
            exchange=self._exchange,
            symbol=known_symbol(self._symbols, row.product_id),
            trade_id=number_id(row.trade_id),
            price=positive_text(row.price),
            amount=positive_text(row.size),
            # Coinbase names the maker's side.
            side="sell" if row.side == "BUY" else "buy",
            trade_time_us=iso_time_us(row.time),
            receive_time_us=receive_time_us,
        )
