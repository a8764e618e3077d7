"""Rows waiting to be stored: bounded by rows, bytes and age; joined without decoding. Pure."""

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from alpha_pulse.contracts.codec import JOB_MARK

# One block, which ClickHouse stores whole or not at all.
ROWS_PER_INSERT_MAX = 1_000_000

_PAGE_ROWS = 1_000

Value = bytes | None


def size_of(values: Sequence[Value]) -> int:
    """Return the length of the values together, those that are None left out."""
    try:
        return sum(map(len, values))  # type: ignore[arg-type]
    except TypeError:
        return sum(len(value) for value in values if value)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one Kafka partition, in offset order, that are stored together.

    Attributes:
        name: the topic, with its epoch where that is not the first.
        partition: Kafka's.
        offsets: ascending.
        values: one for each offset; None where the record has none.
        settled_before: once the rows are stored, every offset before it is stored or skipped.
        timestamp_ms: the latest Kafka time among them.
    """

    name: str
    partition: int
    offsets: Sequence[int]
    values: Sequence[Value]
    settled_before: int
    timestamp_ms: int

    @property
    def size_bytes(self) -> int:
        """Length of the values together."""
        return size_of(self.values)

    def body(self) -> bytes:
        """Return the rows as JSON objects on lines, each with its Kafka position in front.

        In front, because of two equal keys ClickHouse keeps the first or refuses the row: a record
        can't claim another position than its own.
        """
        row = b'{"k_topic":"%b","k_partition":%d,"k_offset":%%d,%%b' % (
            self.name.encode().replace(b"%", b"%%"),
            self.partition,
        )
        # In pages, which stay in the processor's cache until they are joined.
        pages = []
        for first in range(0, len(self.offsets), _PAGE_ROWS):
            offsets = self.offsets[first : first + _PAGE_ROWS]
            values = self.values[first : first + _PAGE_ROWS]
            rows = [
                row % (offset, value[1:] if value else b"")
                for offset, value in zip(offsets, values, strict=True)
            ]
            pages.append(b"\n".join(rows))
        return b"\n".join(pages)

    def token(self, generation: int, part: str = "") -> str:
        """Return the name under which ClickHouse stores these rows once only.

        part: which of the batch's rows, where not all are sent together.
        """
        first, last = self.offsets[0], self.offsets[-1]
        return f"{self.name}:{self.partition}:{first}-{last}:{generation}{part}"

    def select(self, indexes: Sequence[int]) -> "Batch":
        """Return a batch of some of the rows only."""
        return Batch(
            self.name,
            self.partition,
            [self.offsets[i] for i in indexes],
            [self.values[i] for i in indexes],
            self.settled_before,
            self.timestamp_ms,
        )

    def halves(self) -> tuple["Batch", "Batch"]:
        """Return the first and the second half of the rows."""
        middle = len(self.offsets) // 2
        return self.select(range(middle)), self.select(range(middle, len(self.offsets)))

    def spans_months(self, time_field: str) -> bool:
        """Return whether the first and the last row say so; of those between nobody knows.

        History crosses months all the time: asking ClickHouse costs as much as storing.
        """
        month = _month_reader(time_field)
        return month(self.values[0]) != month(self.values[-1])

    def by_month(self, time_field: str) -> dict[str, "Batch"]:
        """Return the rows of each month (`202611`; `none` where a row has no such time).

        Called only when there seems to be more than one.
        """
        month = _month_reader(time_field)
        months: dict[str, list[int]] = {}
        for index, value in enumerate(self.values):
            months.setdefault(month(value), []).append(index)
        return {month: self.select(indexes) for month, indexes in months.items()}


class Waiting:
    """The rows of one Kafka partition that are in no insert yet.

    Where all of them are history they wait for more as long as more comes: an insert costs
    ClickHouse as much as thousands of rows.

    Args:
        name: the topic, with its epoch where that is not the first.
        partition: Kafka's.
        rows_max: of one insert.
        bytes_max: of one insert; a single row may be longer.
        age_s_max: how long the oldest row waits, in seconds.
        history_age_s_max: how long it waits where all are history.
    """

    def __init__(
        self, name: str, partition: int, *, rows_max: int, bytes_max: int, age_s_max: float,
        history_age_s_max: float = 0.0,
    ) -> None:  # fmt: skip
        self._name = name
        self._partition = partition
        self._rows_max = min(rows_max, ROWS_PER_INSERT_MAX)
        self._bytes_max = bytes_max
        self._age_s_max = age_s_max
        # What each fetch brought, as it came: rows are counted and moved by the thousand.
        self._chunks: deque[_Chunk] = deque()
        self._rows = 0
        self._history_age_s_max = history_age_s_max
        self._is_history = True
        self._newest_s = 0.0
        self._settled_before = 0
        self._timestamp_ms = 0
        self._since_s = 0.0
        self._announced: tuple[int, int] | None = None
        self._read_before = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return self._rows

    def add(
        self,
        offsets: Sequence[int],
        values: Sequence[Value],
        settled_before: int,
        timestamp_ms: int,
        now_s: float,
    ) -> None:
        """Append rows in offset order, read at `now_s` (a monotonic clock's seconds)."""
        if not self._rows:
            self._since_s, self._is_history = now_s, True
        self._newest_s = now_s
        # Live rows end this at their first one.
        self._is_history = self._is_history and all(JOB_MARK in (value or b"") for value in values)
        chunk = _Chunk(offsets, values, size_of(values))
        self._chunks.append(chunk)
        self._rows += len(offsets)
        self.size_bytes += chunk.size_bytes
        self._settled_before = settled_before
        self._timestamp_ms = max(self._timestamp_ms, timestamp_ms)

    def expect(self, first_offset: int, last_offset: int) -> None:
        """Let the next insert be of these offsets, all of them and no other."""
        self._announced = (first_offset, last_offset)

    def reached(self, position: int) -> None:
        """Note that everything before an offset has been read."""
        self._read_before = position

    @property
    def _is_at_announced(self) -> bool:
        if self._announced is None or not self._rows:
            return False
        first, last = self._announced
        return first <= self._first_offset <= last

    @property
    def _first_offset(self) -> int:
        return self._chunks[0].offsets[0]

    @property
    def is_whole(self) -> bool:
        """Whether an insert may start: not while the expected one is read in parts only."""
        if not self._is_at_announced or self._announced is None:
            return True
        return self._read_before > self._announced[1]

    @property
    def is_full(self) -> bool:
        """Whether an insert has no room for much more."""
        if not self.is_whole:
            return False
        return self._rows >= self._rows_max or self.size_bytes >= self._bytes_max

    def due_s(self) -> float | None:
        """Return when the rows are due (monotonic seconds); None: nothing waits.

        Few rows wait for their whole age, half a batch half of it, a full one not at all.
        """
        if not self._rows or not self.is_whole:
            return None
        if self._is_at_announced:
            return self._since_s
        # What waiting saves is the cost of an insert: the more rows share it, the less is gained.
        full = max(self._rows / self._rows_max, self.size_bytes / self._bytes_max)
        share = max(0.0, 1.0 - full)
        due_s = self._since_s + self._age_s_max * share
        if self._is_history:
            patient_s = self._since_s + self._history_age_s_max * share
            due_s = max(due_s, min(self._newest_s + self._age_s_max * share, patient_s))
        return due_s

    def next_batch(self, now_s: float) -> Batch:
        """Remove and return the rows of one insert, oldest first."""
        before: int | None = None
        is_announced = False
        if self._announced is not None and self._rows:
            first, last = self._announced
            is_announced = self._first_offset >= first
            before = last + 1 if is_announced else first
        offsets: list[int] = []
        values: list[Value] = []
        size_bytes = 0
        while self._chunks:
            chunk = self._chunks[0]
            count = len(chunk.offsets)
            if before is not None:
                count = bisect_left(chunk.offsets, before)
            if not is_announced:
                count = min(count, self._count_within_bounds(chunk, len(offsets), size_bytes))
            if count == 0:
                break
            part = self._split_off(chunk, count)
            offsets.extend(part.offsets)
            values.extend(part.values)
            size_bytes += part.size_bytes
        if is_announced:
            self._announced = None
            if not offsets:
                return self.next_batch(now_s)  # it ended before what waits
        self.size_bytes -= size_bytes
        self._rows -= len(offsets)
        self._since_s = now_s
        settled_before = self._first_offset if self._rows else self._settled_before
        return Batch(
            self._name, self._partition, offsets, values, settled_before, self._timestamp_ms
        )

    def _split_off(self, chunk: "_Chunk", count: int) -> "_Chunk":
        # The first rows of the first chunk; the others stay.
        self._chunks.popleft()
        if count == len(chunk.offsets):
            return chunk
        part, left = chunk.split(count)
        self._chunks.appendleft(left)
        return part

    def _count_within_bounds(self, chunk: "_Chunk", rows: int, size_bytes: int) -> int:
        # How many rows of a chunk still fit into the batch. At least one row goes, however
        # large it is.
        count = min(len(chunk.offsets), self._rows_max - rows)
        if count == len(chunk.offsets) and size_bytes + chunk.size_bytes <= self._bytes_max:
            return count
        for place, value in enumerate(chunk.values[:count]):
            size_bytes += len(value or b"")
            if size_bytes > self._bytes_max:
                return place if rows + place else 1
        return count


@dataclass(frozen=True, slots=True)
class _Chunk:
    offsets: Sequence[int]
    values: Sequence[Value]
    size_bytes: int

    def split(self, count: int) -> "tuple[_Chunk, _Chunk]":
        first, second = self.values[:count], self.values[count:]
        return (
            _Chunk(self.offsets[:count], first, size_of(first)),
            _Chunk(self.offsets[count:], second, size_of(second)),
        )


def drop_known(
    offsets: Sequence[int], values: Sequence[Value], is_known: Sequence[bool]
) -> tuple[list[int], list[Value]]:
    """Return the rows that are not stored yet, in order."""
    kept = [index for index, known in enumerate(is_known) if not known]
    return [offsets[index] for index in kept], [values[index] for index in kept]


@cache
def _month_reader(time_field: str) -> Callable[[Value], str]:
    search = re.compile(rb'"%b"\s*:\s*"?(-?\d{1,19})\b' % time_field.encode()).search

    def month(value: Value) -> str:
        match = search(value or b"")
        return _month(int(match[1])) if match else "none"

    return month


def _month(time_us: int) -> str:
    try:
        time = datetime.fromtimestamp(time_us // 1_000_000, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return "none"
    return f"{time:%Y%m}"
