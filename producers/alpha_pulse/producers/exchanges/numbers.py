"""Prices, amounts, ids and times as frames and REST rows write them; digits stay the exchange's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Generic, TypeVar

from alpha_pulse.contracts.decimals import AMOUNT, SUM, match_positive, match_sum, plain_text
from alpha_pulse.contracts.market import TIME_US_MAX, TIME_US_MIN
from alpha_pulse.producers.exchanges.tick import SHOWN_MAX, FrameError

ReadT = TypeVar("ReadT")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ID_DIGITS_MAX = 20
NUMBER_ID_END = 10**_ID_DIGITS_MAX  # ids that are numbers are below


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
        digits = text[20:26]
        if len(text) == 27 and text[19::7] == ".Z" and digits.isdecimal() and text.isascii():
            return time_us(_second_us(text[:19]) + int(digits))
        fraction = digits if text[19] == "." and text[-1] == "Z" else ""
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
    since = datetime.fromisoformat(f"{text}+00:00") - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000


def number_id(text: str) -> str:
    """Return a trade id as it came.

    Raises:
        FrameError: it is no number of at most 20 digits.
    """
    if text.isascii() and text.isdecimal() and len(text) <= _ID_DIGITS_MAX:
        return text
    raise FrameError(f"expected a trade id of digits, found {text[:SHOWN_MAX]!r}", "bad_id")


@dataclass(frozen=True, slots=True)
class Form(Generic[ReadT]):
    """How an exchange writes one part of a trade.

    one: reads a value; raises FrameError for one that can't be used.
    many: reads a column of at least one value faster; raises FrameError, or lets pass what `one`
    would change or refuse where the decoder looks at it again (numbers, and the range of times).
    """

    one: Callable[[Any], ReadT]
    many: Callable[[Sequence[Any]], Sequence[ReadT]]


def _number_ids(texts: Sequence[str]) -> Sequence[str]:
    joined, lengths = "".join(texts), set(map(len, texts))
    are_numbers = joined.isascii() and joined.isdecimal()
    if are_numbers and min(lengths) > 0 and max(lengths) <= _ID_DIGITS_MAX:
        return texts
    return [number_id(text) for text in texts]


def _integer_ids(numbers: Sequence[int]) -> list[str]:
    if min(numbers) >= 0 and max(numbers) < NUMBER_ID_END:
        return [str(number) for number in numbers]
    return [number_id(str(number)) for number in numbers]


def _iso_times_us(texts: Sequence[str]) -> list[int]:
    # Trades of one order have one time.
    found = {text: iso_time_us(text) for text in set(texts)}
    return [found[text] for text in texts]


NUMBER_IDS: Form[str] = Form(number_id, _number_ids)
INTEGER_IDS: Form[str] = Form(lambda number: number_id(str(number)), _integer_ids)
MS_TIMES: Form[int] = Form(
    lambda time_ms: time_us(time_ms * 1000),
    lambda times_ms: [time_ms * 1000 for time_ms in times_ms],
)
MS_TEXT_TIMES: Form[int] = Form(
    lambda text: time_us(int(number_id(text)) * 1000),
    lambda texts: [int(text) * 1000 for text in _number_ids(texts)],
)
ISO_TIMES: Form[int] = Form(iso_time_us, _iso_times_us)
TEXT_NUMBERS: Form[str] = Form(positive_text, lambda texts: texts)


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
