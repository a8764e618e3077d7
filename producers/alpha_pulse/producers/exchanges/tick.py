"""What a decoder reads out of one raw frame: ticks, or an error that names the part.

A decoder sees a frame's text, a table of market ids and the time of receipt; no clock, no socket.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.market import DAY_US

DecodedT = TypeVar("DecodedT")
SymbolOf = Mapping[str, str]  # the exchange's market id -> unified symbol

# A trade further ahead of our clock than any clock can be wrong would hold its symbol's time there.
AHEAD_US_MAX = DAY_US
SHOWN_MAX = 80  # characters of a bad value that an error shows


class FrameError(ValidationError):
    """A frame is no frame: cut, of a wrong type, an unknown symbol, an absurd number.

    reason: a short code for the dead letter. symbol: where it is known.
    """

    def __init__(self, message: str, reason: str = "bad_frame", symbol: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.symbol = symbol


@dataclass(frozen=True, slots=True)
class FrameTime:
    """The exchange's clock (µs), read from a frame that carries nothing else to publish."""

    symbol: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The exchange will not send a symbol; the others are not concerned. "" when none is named."""

    symbol: str
    reason: str


Tick = Trade | Candle | FrameTime | Refusal


class FrameDecoder:
    """Turns raw frames of one websocket address into their ticks, in the frames' order.

    exchange: the name that events carry. symbols: the followed markets of the address; it changes
    while the decoder is used.
    """

    def __init__(self, exchange: str, symbols: SymbolOf) -> None:
        self._exchange = exchange
        self._symbols = symbols

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

    def trades(self, frames: Sequence[str], receive_time_us: int) -> list[Trade] | None:
        """Return the trades of many frames at once: the fast way for a loop turn full of trades.

        Args:
            frames: in the order in which they were read.
            receive_time_us: when they were read from the socket, by our clock, Unix µs.

        Returns:
            One trade for each frame, in their order; None when they are not all that, or where
            this way is not written: then each frame is decoded by itself. Never raises.
        """
        return None


def decoded(decode: Callable[[str], DecodedT], frame: str, exchange: str) -> DecodedT:
    """Return what msgspec reads in a frame.

    Args:
        decode: a msgspec decoder's `decode`.
        frame: the frame's text.
        exchange: for the error.

    Raises:
        FrameError: the frame is cut or of another shape; its start is in the message.
    """
    try:
        return decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FrameError(
            f"expected a frame of {exchange}, found {frame[:120]!r}: {error}"
        ) from error


def known_symbol(symbols: SymbolOf, market_id: str) -> str:
    """Return the symbol of a market id.

    Args:
        symbols: the followed markets of the frame's address.
        market_id: as the frame names it.

    Raises:
        FrameError: the market is not followed.
    """
    symbol = symbols.get(market_id)
    if symbol is None:
        raise FrameError(
            f"expected a market that is followed, found {market_id[:SHOWN_MAX]!r}",
            "unknown_symbol",
        )
    return symbol
