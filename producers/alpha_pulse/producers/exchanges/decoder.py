"""`FrameDecoder`: what all decoders of raw frames share, first of all the fast way for trades.

A room says how its frames name the parts of a trade (`TradeRow`) and how it writes ids, times and
sides; checking them and making trades of them is here, for one frame and for many at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from alpha_pulse.contracts.decimals import match_positive
from alpha_pulse.contracts.events import Side, Trade
from alpha_pulse.contracts.market import TIME_US_MAX, TIME_US_MIN
from alpha_pulse.producers.exchanges.numbers import MS_TIMES, NUMBER_IDS, TEXT_NUMBERS, Form
from alpha_pulse.producers.exchanges.tick import (
    AHEAD_US_MAX,
    FrameError,
    Numbered,
    SymbolOf,
    Tick,
    decoded,
    known_symbol,
)

_REMEMBERED_MAX = 20_000
# What keeps a frame from being decoded together with others. UnicodeError is a ValueError.
_NOT_TOGETHER = (msgspec.DecodeError, FrameError, KeyError, ValueError, RecursionError)


class TradeRow(Protocol):
    """A trade as a frame has it, its parts under our names (msgspec's `rename`)."""

    @property
    def market(self) -> str:
        """The exchange's market id."""

    @property
    def trade_id(self) -> int | str:
        """The exchange's own id."""

    @property
    def price(self) -> Any:
        """In the quote currency."""

    @property
    def amount(self) -> Any:
        """In the base currency."""

    @property
    def side(self) -> Any:
        """A key of the room's `sides`."""

    @property
    def time(self) -> Any:
        """When it happened, by the exchange's clock."""


class TradeFrame(Protocol):
    """A frame of trades."""

    @property
    def data(self) -> Sequence[TradeRow]:
        """Its trades."""


class DecodeTrades(Protocol):
    """Decodes a frame of trades; raises what msgspec raises."""

    def __call__(self, frame: str, /) -> TradeFrame:
        """Return the frame."""


class FrameDecoder:
    """Turns raw frames of one websocket address into their ticks, in the frames' order.

    `hot`: the beginning of a frame that can only hold trades; it is read as such without another
    look. `decode_trades`: reads such a frame; its rows come by id. `sides`: what a row's side says
    of the taker. `ids`, `times`, `numbers`: how rows write them.

    Args:
        exchange: the name that events carry.
        symbols: the followed markets of the address; it changes while the decoder is used.
    """

    hot: ClassVar[str]
    decode_trades: ClassVar["DecodeTrades"]
    sides: ClassVar[Mapping[Any, Side]] = {"buy": "buy", "sell": "sell"}
    ids: ClassVar[Form[str]] = NUMBER_IDS
    times: ClassVar[Form[int]] = MS_TIMES
    numbers: ClassVar[Form[str]] = TEXT_NUMBERS

    def __init__(self, exchange: str, symbols: SymbolOf) -> None:
        self._exchange = exchange
        self._symbols = symbols
        # Prices and amounts that are plain decimals above 0: most come back many times, and to
        # check one costs six times what looking it up does.
        self._positive: set[str] = set()

    def __call__(self, frame: str, receive_time_us: int) -> list[Tick] | None:
        """Return the ticks of one frame.

        Args:
            frame: the frame's text.
            receive_time_us: when it was read from the socket, by our clock, Unix µs.

        Returns:
            Its ticks in the frame's order; None when it is none of ours (acks, pings: ccxt's).

        Raises:
            FrameError: it is ours but can't be used; no tick of it counts then.
        """
        raise NotImplementedError

    def rows(self, frames: Sequence[str]) -> Sequence[TradeRow] | None:
        """Return the trades of many frames, in their order; None when one is of another kind.

        Args:
            frames: their texts.

        Raises:
            msgspec.DecodeError, ValueError, RecursionError: one is of another shape.
        """
        hot = self.hot
        for frame in frames:
            if not frame.startswith(hot):
                return None
        return [row for found in map(self.decode_trades, frames) for row in found.data]

    def trades(self, frames: Sequence[str], receive_time_us: int) -> list[Numbered] | None:
        """Return the trades of many frames at once: the fast way for a loop turn full of trades.

        Args:
            frames: in the order in which they were read.
            receive_time_us: when they were read from the socket, by our clock, Unix µs.

        Returns:
            What decoding each frame by itself would bring, in the same order; None when a frame is
            anything but trades that need no second look: then each is decoded by itself. Never
            raises.
        """
        try:
            rows = self.rows(frames)
            return None if rows is None else self.numbered(rows, receive_time_us)
        except _NOT_TOGETHER:
            return None

    def numbered(self, rows: Sequence[TradeRow], receive_time_us: int) -> list[Numbered] | None:
        """Return many rows as trades; None when one of them needs a second look.

        Args:
            rows: in the order in which they came.
            receive_time_us: see `trades`.

        Raises:
            FrameError, KeyError, ValueError: one of them is no trade of a market that is followed.
        """
        if not rows:
            return []
        ids = self.ids.many([row.trade_id for row in rows])
        times_us = self.times.many([row.time for row in rows])
        prices = self.numbers.many([row.price for row in rows])
        amounts = self.numbers.many([row.amount for row in rows])
        end_us = min(receive_time_us + AHEAD_US_MAX, TIME_US_MAX)
        if min(times_us) < TIME_US_MIN or max(times_us) >= end_us:
            return None
        if not (self._are_positive(prices) and self._are_positive(amounts)):
            return None
        exchange, symbols, sides = self._exchange, self._symbols, self.sides
        return [
            Trade(
                exchange=exchange,
                symbol=symbols[row.market],
                trade_id=trade_id,
                price=price,
                amount=amount,
                side=sides[row.side],
                trade_time_us=at_us,
                receive_time_us=receive_time_us,
            )
            for row, trade_id, price, amount, at_us in zip(
                rows, ids, prices, amounts, times_us, strict=True
            )
        ]

    def _are_positive(self, texts: Sequence[str]) -> bool:
        known = self._positive
        if known.issuperset(texts):
            return True
        new = set(texts) - known
        if not all(map(match_positive, new)):
            return False
        if len(known) > _REMEMBERED_MAX:
            known.clear()
        known |= new
        return True

    def _trades(self, frame: str, receive_time_us: int) -> list[Tick]:
        # Of one frame of trades, whatever its numbers look like.
        rows = decoded(self.decode_trades, frame, self._exchange).data
        return [self._trade(row, receive_time_us) for row in rows]

    def _trade(self, row: TradeRow, receive_time_us: int) -> Numbered:
        return Trade(
            exchange=self._exchange,
            symbol=known_symbol(self._symbols, row.market),
            trade_id=self.ids.one(row.trade_id),
            price=self.numbers.one(row.price),
            amount=self.numbers.one(row.amount),
            side=self.sides[row.side],
            trade_time_us=self.times.one(row.time),
            receive_time_us=receive_time_us,
        )
