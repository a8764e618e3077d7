"""What every decoder gives and takes: ticks out of one raw frame, or an error that names the part.

A decoder sees a frame's text, a market-id-to-symbol table and the time of receipt; no clock, no
socket. Prices and amounts keep the exchange's own digits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Protocol, TypeVar

import msgspec

from alpha_pulse.contracts.codec import decode_ingest, encode
from alpha_pulse.contracts.decimals import AMOUNT, SUM, match_positive, match_sum, plain_text
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.contracts.market import DAY_US, TIME_US_MAX, TIME_US_MIN
from alpha_pulse.contracts.validation import validate_candle

DecodedT = TypeVar("DecodedT")
SymbolOf = Mapping[str, str]  # the exchange's market id -> unified symbol


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
    """The exchange's clock, read from a frame that carries nothing else to publish."""

    symbol: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The exchange will not send a symbol; the others are not concerned. "" when none is named."""

    symbol: str
    reason: str


Tick = Trade | Candle | FrameTime | Refusal


class FrameDecoder(Protocol):
    """Turns raw frames into their ticks, in the frames' order."""

    def __call__(self, frame: str, receive_time_us: int) -> list[Tick] | None:
        """Return the frame's ticks, or None when it is none of ours (acks, pings: ccxt's).

        Raises: FrameError when it is ours but can't be used; no tick of it counts then.
        """
        ...

    def trades(self, frames: Sequence[str], receive_time_us: int) -> list[Trade] | None:
        """Return the trades of many frames at once, one each; None when they are not all that.

        The fast way for a loop turn full of trades; never raises. None: take them one by one.
        """
        ...


_LENGTH_MAX = 80
_ID_DIGITS_MAX = 20
NUMBER_ID_END = 10**_ID_DIGITS_MAX  # ids that are numbers are below
# A trade further ahead of our clock than any clock can be wrong would hold its symbol's time there.
AHEAD_US_MAX = DAY_US
_REMEMBERED_MAX = 20_000


class PositiveTexts:
    """Remembers which texts are plain decimals above 0: a price comes back many times.

    Checking a text costs six times what looking it up costs.
    """

    def __init__(self) -> None:
        self.known: set[str] = set()

    def are(self, price: str, amount: str) -> bool:
        """Return whether both are as they must be; remembers them then."""
        if not (match_positive(price) and match_positive(amount)):
            return False
        if len(self.known) > _REMEMBERED_MAX:
            self.known.clear()
        self.known.add(price)
        self.known.add(amount)
        return True


def positive_text(text: str) -> str:
    """Return a price or amount as plain decimal text above 0, its own digits where they are plain.

    >>> positive_text("9e-08")
    '0.00000009'
    """
    if match_positive(text):
        return text
    plain = _plain(text)
    if match_positive(plain):
        return plain
    raise FrameError(
        f"expected {AMOUNT} above 0, found {text[:_LENGTH_MAX]!r}",
        "bad_number",
    )


def sum_text(text: str) -> str:
    """Return a volume as plain decimal text, 0 or more, its own digits where they are plain."""
    if match_sum(text):
        return text
    plain = _plain(text)
    if match_sum(plain):
        return plain
    raise FrameError(
        f"expected a volume, {SUM}, found {text[:_LENGTH_MAX]!r}",
        "bad_number",
    )


def time_us(value_us: int) -> int:
    """Return a time as it came, or raise FrameError when it is not of this century."""
    if TIME_US_MIN <= value_us < TIME_US_MAX:
        return value_us
    raise FrameError(f"expected a time from 2009 to 2100 in µs, found {value_us}", "bad_time")


def iso_time_us(text: str) -> int:
    """Return a time such as `2023-10-06T17:35:55.440295Z` in µs; digits beyond those are cut."""
    try:
        fraction = text[20:26] if text[19] == "." and text[-1] == "Z" else ""
        whole = text[19:] == "Z" or text[20:-1].isdecimal()
        if not whole or not text.isascii():
            raise ValueError("no time with Z")
        digits = fraction.rstrip("Z").ljust(6, "0")
        return time_us(_second_us(text[:19]) + int(digits))
    except (ValueError, IndexError) as error:
        raise FrameError(
            f"expected a time such as 2023-10-06T17:35:55.440295Z, found {text[:_LENGTH_MAX]!r}",
            "bad_time",
        ) from error


@lru_cache(maxsize=256)
def _second_us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def number_id(text: str) -> str:
    """Return a trade id as it came, or raise FrameError when it is no number."""
    if text.isascii() and text.isdecimal() and len(text) <= _ID_DIGITS_MAX:
        return text
    raise FrameError(f"expected a trade id of digits, found {text[:_LENGTH_MAX]!r}", "bad_id")


def decoded(decode: Callable[[str], DecodedT], frame: str, exchange: str) -> DecodedT:
    """Return what msgspec makes of a frame, or raise FrameError with the start of it."""
    try:
        return decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FrameError(
            f"expected a frame of {exchange}, found {frame[:120]!r}: {error}"
        ) from error


def exchange_candle(
    exchange: str,
    symbol: str,
    *,
    open_time_us: int,
    prices: tuple[str, str, str, str],
    volume: str,
    quote_volume: str | None = None,
    buy_volume: str | None = None,
    trade_count: int | None = None,
    ids: tuple[int, int] | None = None,
) -> Candle:
    """Return the exchange's own closed 1m candle, or raise FrameError when it breaks the contract.

    prices: open, high, low, close. ids: of the first and last trade, None when there was none or
    the exchange does not say.
    """
    open_, high, low, close = prices
    candle = Candle(
        exchange=exchange,
        symbol=symbol,
        timeframe="1m",
        open_time_us=time_us(open_time_us),
        open=positive_text(open_),
        high=positive_text(high),
        low=positive_text(low),
        close=positive_text(close),
        volume=sum_text(volume),
        quote_volume=None if quote_volume is None else sum_text(quote_volume),
        buy_volume=None if buy_volume is None else sum_text(buy_volume),
        trade_count=trade_count,
        first_trade_id=None if ids is None else str(ids[0]),
        last_trade_id=None if ids is None else str(ids[1]),
        revision=0,
        source="exchange",
        coverage="exchange",
    )
    try:
        # There is one a minute: the whole contract may be checked.
        decode_ingest(encode(candle))
        validate_candle(candle)
    except ValidationError as error:
        raise FrameError(str(error), "bad_candle", symbol) from error
    return candle


def known_symbol(symbols: SymbolOf, market_id: str) -> str:
    """Return the symbol of a market id, or raise FrameError when it is not followed."""
    symbol = symbols.get(market_id)
    if symbol is None:
        raise FrameError(
            f"expected a market that is followed, found {market_id[:_LENGTH_MAX]!r}",
            "unknown_symbol",
        )
    return symbol


def _plain(text: str) -> str:
    if len(text) > _LENGTH_MAX:
        return ""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return ""
    # A giant exponent would become a giant text.
    if not number.is_finite() or not -40 < number.adjusted() < 40:
        return ""
    plain = plain_text(number)
    # Zeros beyond the twelfth digit say nothing; any other digit there may not be cut.
    whole, point, fraction = plain.partition(".")
    return whole + point + fraction[:12] if point and not fraction[12:].strip("0") else plain
