"""History candles in the form that our own encoder gives them: many lines at once. Pure.

A candle of a job that stands in canonical form begins and ends as all of its job do, so that one
comparison proves market, timeframe, source and job; one regular expression over all lines proves
and reads the rest. What is not plainly that goes the general way, which comes to the same result:
a property test holds the two together.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alpha_pulse.contracts.decimals import AMOUNT, SUM, UNITS, shortest_text, units_of
from alpha_pulse.contracts.market import TIME_US_MAX, TIME_US_MIN, Timeframe
from alpha_pulse.processors.candles.value import EXCHANGE, FROM_EXCHANGE, Value
from alpha_pulse.processors.wire import canonical
from alpha_pulse.processors.wire.records import EncodedRecords

_PRICE, _SUM = f"({AMOUNT.part})", f"({SUM.part})"
_SUM_OR_NULL = rf'(?:"{_SUM}"|{canonical.NULL})'
# From behind `open_time_us` up to the revision. What is null is read as an empty text.
_MIDDLES = re.compile(
    rf"^([1-9][0-9]{{{canonical.TIME_DIGITS - 1}}}+)"
    rf"{canonical.CANDLE_OPEN}{_PRICE}{canonical.CANDLE_HIGH}{_PRICE}"
    rf"{canonical.CANDLE_LOW}{_PRICE}{canonical.CANDLE_CLOSE}{_PRICE}"
    rf"{canonical.CANDLE_VOLUME}{_SUM}{canonical.CANDLE_QUOTE_VOLUME}{_SUM_OR_NULL}"
    rf"{canonical.CANDLE_BUY_VOLUME}{_SUM_OR_NULL}"
    rf"{canonical.CANDLE_TRADE_COUNT}(?:(0|[1-9][0-9]{{0,17}}+)|{canonical.NULL})"
    rf"{canonical.CANDLE_FIRST_ID}{canonical.NULL}{canonical.CANDLE_LAST_ID}{canonical.NULL}$",
    re.MULTILINE,
).findall
_CANDLE, _OPEN_TIME, _REVISION, _JOB = (
    piece.encode()
    for piece in (
        canonical.CANDLE_START,
        canonical.CANDLE_OPEN_TIME,
        canonical.CANDLE_REVISION,
        canonical.CANDLE_JOB,
    )
)
# Head, open time, prices, volumes, count, revision, rest.
_OUR_LINE = (
    f"%s%s{canonical.CANDLE_OPEN}%s{canonical.CANDLE_HIGH}%s{canonical.CANDLE_LOW}%s"
    f"{canonical.CANDLE_CLOSE}%s{canonical.CANDLE_VOLUME}%s{canonical.CANDLE_QUOTE_VOLUME}%s"
    f"{canonical.CANDLE_BUY_VOLUME}%s{canonical.CANDLE_TRADE_COUNT}%s"
    f"{canonical.CANDLE_FIRST_ID}{canonical.NULL}{canonical.CANDLE_LAST_ID}{canonical.NULL}"
    f"{canonical.CANDLE_REVISION}%d%s"
)
# Fewer candles in a row are looked at one by one.
RUN_MIN = 4

# open time, open, high, low, close, volume, quote volume, buy volume, trade count
Row = tuple[str, str, str, str, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Form:
    """How every canonical candle of one job begins, and what stands behind its revision."""

    head: str
    rest: str

    @property
    def tail(self) -> str:
        """How a candle of the ingest log ends: without a revision of its own."""
        return f"{canonical.CANDLE_REVISION}0{self.rest}"

    @classmethod
    def of(cls, exchange: str, symbol: str, timeframe: str, job: str) -> "Form":
        """Return the form of a job's candles."""
        return cls(
            canonical.start_of_candles(exchange, symbol) + canonical.timeframe_in_candle(timeframe),
            f"{canonical.CANDLE_SOURCE}exchange{canonical.CANDLE_COVERAGE}exchange"
            f"{canonical.CANDLE_JOB}{canonical.json_text(job)}{canonical.END}",
        )


@dataclass(frozen=True, slots=True)
class CandleLines:
    """Candles of one job, ascending, each valid; the columns are equally long.

    middles: a line's text from behind its open time's name up to its revision. Units are those of
    `candles.py`.
    """

    form: Form
    middles: list[str]
    rows: list[Row]
    open_times_us: list[int]
    highs: list[int]
    lows: list[int]
    volumes: list[int]

    def exchange_lines(self, revisions: Sequence[int]) -> list[bytes]:
        """Return the candles as they came, with their revisions."""
        head, rest = self.form.head, self.form.rest
        name = canonical.CANDLE_REVISION
        return _encoded(
            f"{head}{middle}{name}{revision}{rest}"
            for middle, revision in zip(self.middles, revisions, strict=True)
        )

    def our_lines(self, revisions: Sequence[int]) -> list[bytes]:
        """Return the candles as we publish them: volumes in their shortest text."""
        head, rest = self.form.head, self.form.rest
        lines: list[str] = []
        for row, volume_units, revision in zip(self.rows, self.volumes, revisions, strict=True):
            time, open_, high, low, close, volume, quote, buy, count = row
            if not volume_units and count in ("", "0"):
                quote, buy, count = quote or "0", buy or "0", "0"
            lines.append(
                _OUR_LINE
                % (head, time, open_, high, low, close, shortest_text(volume), _quoted(quote),
                   _quoted(buy), count or canonical.NULL, revision, rest)
            )  # fmt: skip
        return _encoded(lines)

    def value(self, first: int, end: int, close_us: int) -> Value:
        """Return the value of the candles [first, end) together; none of several may be empty.

        close_us: when the last of them closes.
        """
        rows = self.rows[first:end]
        highs, lows = self.highs[first:end], self.lows[first:end]
        high_units, low_units = max(highs), min(lows)
        quotes, buys, counts = ([row[n] for row in rows] for n in (6, 7, 8))
        empty = self.is_empty(first)
        return Value(
            self.open_times_us[first], -1, None, rows[0][1], close_us - 1, -1, None, rows[-1][4],
            high_units, _text_of(high_units, rows, (highs, 2), (lows, 3)),
            low_units, _text_of(low_units, rows, (lows, 3), (highs, 2)),
            sum(self.volumes[first:end]), sum(map(_units, quotes)) * UNITS, sum(map(_units, buys)),
            sum(int(count) for count in counts if count),
            quote_known=empty or "" not in quotes, sides_known=empty or "" not in buys,
            count_known=empty or "" not in counts, empty=empty,
            coverage=EXCHANGE, source=FROM_EXCHANGE, parts=end - first,
        )  # fmt: skip

    def is_empty(self, index: int) -> bool:
        """Whether nothing was traded in a candle."""
        return not self.volumes[index] and self.rows[index][8] in ("", "0")


@dataclass(frozen=True, slots=True)
class Run:
    """Records of a batch, up to row `end`, that look like candles of one job, by their bytes alone.

    All of them begin with head, up to the open time, and end with tail, from the revision on.
    """

    end: int
    key: bytes
    offsets: list[int]
    values: list[bytes]
    head: bytes
    tail: bytes

    def has_form(self, form: Form) -> bool:
        """Return whether that is how the candles of a job begin and end."""
        return self.head == form.head.encode() and self.tail == form.tail.encode()


def candle_runs(records: EncodedRecords) -> dict[int, Run]:
    """Return the runs of a batch by their first rows; none where its middle is no job's candle.

    History comes in batches of its own: that one look is all that it costs the others.
    """
    runs: dict[int, Run] = {}
    count = len(records)
    if count < RUN_MIN or not _is_history(records.record(count // 2)[2]):
        return runs
    offsets, keys, values = records.columns()
    first = 0
    while first < count:
        value, key, end = values[first], keys[first], first + 1
        if value is not None and key is not None and _is_history(value):
            head = value[: value.find(_OPEN_TIME) + len(_OPEN_TIME)]
            tail = value[value.rfind(_REVISION) :]
            found = [value]
            while (
                end < count
                and keys[end] == key
                and (value := values[end]) is not None
                and value.startswith(head)
                and value.endswith(tail)
            ):
                found.append(value)
                end += 1
            if end - first >= RUN_MIN:
                runs[first] = Run(end, key, offsets[first:end], found, head, tail)
        first = end
    return runs


def _is_history(value: bytes | None) -> bool:
    return value is not None and value.startswith(_CANDLE) and _JOB in value


def read_lines(form: Form, values: Sequence[bytes], timeframe: Timeframe) -> CandleLines | None:
    """Return the candles of values that begin and end as the form says, all of them valid.

    None when they are not all canonical, valid and ascending: then each is looked at alone.
    """
    head, tail = len(form.head), len(form.tail)
    try:
        text = b"\n".join([value[head:-tail] for value in values]).decode("ascii")
    except UnicodeDecodeError:
        return None
    rows: list[Row] = _MIDDLES(text)
    # A line break inside a value would shift all that follow.
    if len(rows) != len(values) or text.count("\n") != len(values) - 1:
        return None
    times_us = [int(row[0]) for row in rows]
    opens, highs, lows, closes, volumes = (
        [_units(row[column]) for row in rows] for column in range(1, 6)
    )
    is_valid = (
        times_us[0] >= TIME_US_MIN
        and times_us[-1] < TIME_US_MAX
        and all(map(timeframe.is_open_time, times_us))
        and all(a < b for a, b in itertools.pairwise(times_us))
        and all(
            0 < l_ <= o <= h and l_ <= c <= h
            for o, h, l_, c in zip(opens, highs, lows, closes, strict=True)
        )
        and not any(row[8] == "0" and volume for row, volume in zip(rows, volumes, strict=True))
    )
    if not is_valid:
        return None
    return CandleLines(form, text.split("\n"), rows, times_us, highs, lows, volumes)


def _units(text: str) -> int:
    # The expression above has proven what it is; an empty text is a null, and adds nothing.
    return units_of(text) if text else 0


def _text_of(
    units: int, rows: list[Row], own: tuple[list[int], int], other: tuple[list[int], int]
) -> str:
    # What `widen` keeps of equal prices in different digits, merged one after the other.
    texts = [row[own[1]] for row, found in zip(rows, own[0], strict=True) if found == units]
    if units in other[0]:
        later = zip(rows[1:], other[0][1:], strict=True)
        texts += [row[other[1]] for row, found in later if found == units]
    return texts[0] if len(texts) == 1 else min(texts, key=_length_first)


def _length_first(text: str) -> tuple[int, str]:
    return len(text), text


def _quoted(text: str) -> str:
    return f'"{shortest_text(text)}"' if text else canonical.NULL


def _encoded(lines: Iterable[str]) -> list[bytes]:
    return "\n".join(lines).encode().split(b"\n")
