"""Prices, amounts, ids and times as frames and REST rows write them; digits stay the exchange's."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from alpha_pulse.contracts.decimals import AMOUNT, SUM, match_positive, match_sum, plain_text
from alpha_pulse.contracts.market import TIME_US_MAX, TIME_US_MIN
from alpha_pulse.producers.exchanges.tick import SHOWN_MAX, FrameError

_ID_DIGITS_MAX = 20
NUMBER_ID_END = 10**_ID_DIGITS_MAX  # ids that are numbers are below
_REMEMBERED_MAX = 20_000


class PositiveTexts:
    """Remembers which texts are plain decimals above 0: a price comes back many times.

    Checking a text costs six times what looking it up costs.
    """

    def __init__(self) -> None:
        self.known: set[str] = set()

    def are(self, price: str, amount: str) -> bool:
        """Return whether both are plain decimals above 0, and remember them if so.

        Args:
            price: as the frame has it.
            amount: as the frame has it.
        """
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

    Raises:
        FrameError: it is no number above 0 that fits an amount.
    """
    if match_positive(text):
        return text
    plain = _plain(text)
    if match_positive(plain):
        return plain
    raise FrameError(
        f"expected {AMOUNT} above 0, found {text[:SHOWN_MAX]!r}",
        "bad_number",
    )


def sum_text(text: str) -> str:
    """Return a volume as plain decimal text, 0 or more, its own digits where they are plain.

    Raises:
        FrameError: it is no number of 0 or more that fits a sum.
    """
    if match_sum(text):
        return text
    plain = _plain(text)
    if match_sum(plain):
        return plain
    raise FrameError(
        f"expected a volume, {SUM}, found {text[:SHOWN_MAX]!r}",
        "bad_number",
    )


def time_us(value_us: int) -> int:
    """Return a time (Unix µs) as it came.

    Raises:
        FrameError: it is not of this century.
    """
    if TIME_US_MIN <= value_us < TIME_US_MAX:
        return value_us
    raise FrameError(f"expected a time from 2009 to 2100 in µs, found {value_us}", "bad_time")


def iso_time_us(text: str) -> int:
    """Return a time such as `2023-10-06T17:35:55.440295Z` in Unix µs; further digits are cut.

    Raises:
        FrameError: it is no such time.
    """
    try:
        fraction = text[20:26] if text[19] == "." and text[-1] == "Z" else ""
        whole = text[19:] == "Z" or text[20:-1].isdecimal()
        if not whole or not text.isascii():
            raise ValueError("no time with Z")
        digits = fraction.rstrip("Z").ljust(6, "0")
        return time_us(_second_us(text[:19]) + int(digits))
    except (ValueError, IndexError) as error:
        raise FrameError(
            f"expected a time such as 2023-10-06T17:35:55.440295Z, found {text[:SHOWN_MAX]!r}",
            "bad_time",
        ) from error


@lru_cache(maxsize=256)
def _second_us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def number_id(text: str) -> str:
    """Return a trade id as it came.

    Raises:
        FrameError: it is no number of at most 20 digits.
    """
    if text.isascii() and text.isdecimal() and len(text) <= _ID_DIGITS_MAX:
        return text
    raise FrameError(f"expected a trade id of digits, found {text[:SHOWN_MAX]!r}", "bad_id")


def _plain(text: str) -> str:
    if len(text) > SHOWN_MAX:
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
