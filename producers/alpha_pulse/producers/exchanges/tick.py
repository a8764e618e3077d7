"""What a decoder reads out of one raw frame: ticks, or an error that names the part.

A decoder sees a frame's text, a table of market ids and the time of receipt; no clock, no socket.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle, Ids, Trade
from alpha_pulse.contracts.market import DAY_US

DecodedT = TypeVar("DecodedT")
SymbolOf = Mapping[str, str]  # the exchange's market id -> unified symbol

# A trade further ahead of our clock than any clock can be wrong would hold its symbol's time there.
AHEAD_US_MAX = DAY_US
SHOWN_MAX = 80  # characters of a bad value that an error shows


class FrameError(ValidationError):
    """A frame is no frame: cut, of a wrong type, an unknown symbol, an absurd number.

    reason: a short code for the dead letter. symbol: where it is known. at_us: the open time of a
    candle, Unix µs, where it is known.
    """

    def __init__(self, message: str, reason: str = "bad_frame", symbol: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.symbol = symbol
        self.at_us: int | None = None


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


@dataclass(frozen=True, slots=True)
class Throttled:
    """The exchange did not carry out a subscribe, for too many at once. "" when it names none."""

    symbol: str
    reason: str


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """What the exchange says of itself as a whole, in its own word, and whether it trades."""

    is_trading: bool
    status: str


# What an exchange gives an id: a trade, or (`Ids`) what it leaves out of its own candles.
Numbered = Trade | Ids
Tick = Numbered | Candle | FrameTime | Refusal | Throttled | SystemStatus

_SUBSCRIBED = re.compile("already subscribed", re.IGNORECASE)
_TOO_MANY = re.compile(
    "too many|too frequent|msg rate|rate.limit|frequency protection", re.IGNORECASE
)


def time_of(numbered: Numbered) -> int:
    """Return when it was by the exchange's clock, Unix µs."""
    return numbered.trade_time_us if isinstance(numbered, Trade) else numbered.time_us


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


def is_throttling(reason: str) -> bool:
    """Return whether an exchange's error says that we ask too much at once."""
    return _TOO_MANY.search(reason) is not None


def unsubscribed(symbols: SymbolOf, market_ids: Iterable[str], reason: str) -> list[Tick]:
    """Return what an exchange's answer means that a subscribe failed.

    Args:
        symbols: the followed markets of the frame's address.
        market_ids: the markets that the answer names.
        reason: the answer's text.

    Returns:
        A tick for each market. None where they are subscribed already: there is nothing to do.
    """
    if _SUBSCRIBED.search(reason):
        return []
    kind = Throttled if is_throttling(reason) else Refusal
    return [kind(symbols.get(market_id, ""), reason) for market_id in market_ids]


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
