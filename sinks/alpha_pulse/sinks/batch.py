"""Rows waiting to be stored: bounded by rows, bytes and age; joined without decoding. Pure."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

# One block, which ClickHouse stores whole or not at all.
ROWS_PER_INSERT_MAX = 1_000_000


Value = bytes | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one Kafka partition, in offset order, that are stored together.

    settled_before: once the rows are stored, every offset before it is dealt with. timestamp_ms:
    the latest Kafka time among them. name: the topic, with its epoch where that is not the first.
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
        return sum(len(value) for value in self.values if value)

    def body(self) -> bytes:
        """Return the rows as JSON objects on lines, each with its Kafka position in front.

        In front, because of two equal keys ClickHouse keeps the first or refuses the row: a record
        can't claim another position than its own.
        """
        head = b'{"k_topic":"%b","k_partition":%d,"k_offset":' % (
            self.name.encode(),
            self.partition,
        )
        return b"\n".join(
            [
                b"%b%d,%b" % (head, offset, value[1:] if value else b"")
                for offset, value in zip(self.offsets, self.values, strict=True)
            ]
        )

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

    def by_month(self, time_field: str) -> dict[str, "Batch"]:
        """Return the rows of each month (`202611`; `none` where a row has no such time).

        Called only when ClickHouse has said that there is more than one.
        """
        pattern = re.compile(rb'"%b"\s*:\s*"?(-?\d{1,19})\b' % time_field.encode())
        months: dict[str, list[int]] = {}
        for index, value in enumerate(self.values):
            match = pattern.search(value or b"")
            month = _month(int(match[1])) if match else "none"
            months.setdefault(month, []).append(index)
        return {month: self.select(indexes) for month, indexes in months.items()}


class Waiting:
    """The rows of one Kafka partition that no insert has taken yet."""

    def __init__(
        self, name: str, partition: int, *, rows_max: int, bytes_max: int, age_s_max: float
    ) -> None:
        self._name = name
        self._partition = partition
        self._rows_max = min(rows_max, ROWS_PER_INSERT_MAX)
        self._bytes_max = bytes_max
        self._age_s_max = age_s_max
        self._offsets: list[int] = []
        self._values: list[Value] = []
        self._settled_before = 0
        self._timestamp_ms = 0
        self._since_s = 0.0
        self._announced: tuple[int, int] | None = None
        self._read_before = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._offsets)

    def add(
        self,
        offsets: Sequence[int],
        values: Sequence[Value],
        settled_before: int,
        timestamp_ms: int,
        now_s: float,
    ) -> None:
        """Append rows in offset order, read at `now_s` (a monotonic clock's seconds)."""
        if not self._offsets:
            self._since_s = now_s
        self._offsets.extend(offsets)
        self._values.extend(values)
        self.size_bytes += sum(len(value) for value in values if value)
        self._settled_before = settled_before
        self._timestamp_ms = max(self._timestamp_ms, timestamp_ms)

    def expect(self, first_offset: int, last_offset: int) -> None:
        """Let one insert take the rows of these offsets, all of them and no other."""
        self._announced = (first_offset, last_offset)

    def reached(self, position: int) -> None:
        """Note that everything before an offset has been read."""
        self._read_before = position

    @property
    def _is_at_announced(self) -> bool:
        if self._announced is None or not self._offsets:
            return False
        first, last = self._announced
        return first <= self._offsets[0] <= last

    @property
    def is_whole(self) -> bool:
        """Whether an insert may take rows: not while an expected one is read in parts."""
        if not self._is_at_announced or self._announced is None:
            return True
        return self._read_before > self._announced[1]

    @property
    def is_full(self) -> bool:
        """Whether an insert could not take much more."""
        if not self.is_whole:
            return False
        return len(self._offsets) >= self._rows_max or self.size_bytes >= self._bytes_max

    def due_s(self) -> float | None:
        """Return when the rows are due (monotonic seconds); None: nothing waits."""
        if not self._offsets or not self.is_whole:
            return None
        is_due = self.is_full or self._is_at_announced
        return self._since_s if is_due else self._since_s + self._age_s_max

    def take(self, now_s: float) -> Batch:
        """Remove and return the rows of one insert, oldest first."""
        count = self._count_within_bounds()
        if self._announced is not None and self._offsets:
            first, last = self._announced
            if self._offsets[0] < first:
                count = min(count, bisect_left(self._offsets, first))
            else:
                count = bisect_right(self._offsets, last) or count
                self._announced = None
        offsets, self._offsets = self._offsets[:count], self._offsets[count:]
        values, self._values = self._values[:count], self._values[count:]
        settled_before = self._offsets[0] if self._offsets else self._settled_before
        batch = Batch(
            self._name, self._partition, offsets, values, settled_before, self._timestamp_ms
        )
        self.size_bytes -= batch.size_bytes
        self._since_s = now_s
        return batch

    def _count_within_bounds(self) -> int:
        # At least one row goes, however large it is.
        if len(self._offsets) <= self._rows_max and self.size_bytes <= self._bytes_max:
            return len(self._offsets)
        size = 0
        for count, value in enumerate(self._values[: self._rows_max]):
            size += len(value or b"")
            if size > self._bytes_max:
                return max(count, 1)
        return min(self._rows_max, len(self._values))


def drop_known(
    offsets: Sequence[int], values: Sequence[Value], is_known: Sequence[bool]
) -> tuple[list[int], list[Value]]:
    """Return the rows that are not stored yet, in order."""
    kept = [index for index, known in enumerate(is_known) if not known]
    return [offsets[index] for index in kept], [values[index] for index in kept]


def _month(time_us: int) -> str:
    try:
        time = datetime.fromtimestamp(time_us // 1_000_000, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return "none"
    return f"{time:%Y%m}"
