"""Records as Kafka carries them: read without an object for each, written ready to be sent.

A record, format 2: length, attributes, timestamp delta, offset delta, key, value, headers; lengths
and deltas are zigzag varints, a missing key or value has length -1.
Source: Kafka documentation, "Message Format"; KIP-98.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alpha_pulse.processors.wire.compiler import compiled, copy_bytes

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Record = tuple[bytes, bytes]

# Columns of a batch's index.
OFFSET, KEY_AT, KEY_BYTES, VALUE_AT, VALUE_BYTES = range(5)
# Length, timestamp delta, offset delta, key length, value length: five bytes each at most; and one
# byte each for attributes and the number of headers.
RECORD_OVERHEAD_BYTES = 27
_FIRST_BYTES = 4096


class EncodedRecords:
    """The records of one Kafka batch: their bytes, and where in them each key and value is.

    index: a row per record (OFFSET, KEY_AT, KEY_BYTES, VALUE_AT, VALUE_BYTES), in offset order;
    a length of -1: there is none.
    """

    __slots__ = ("bytes", "index", "text")

    def __init__(self, text: bytes, index: Integers) -> None:
        self.text = text
        self.bytes: Bytes = np.frombuffer(text, np.uint8)
        self.index = index

    @classmethod
    def read(cls, text: bytes, count: int, base_offset: int) -> "EncodedRecords":
        """Return the records of a batch; raises ValueError when the bytes are none."""
        index: Integers = np.empty((count, 5), np.int64)
        records = cls(text, index)
        if count > len(text) or index_records(records.bytes, base_offset, index) != len(text):
            raise ValueError(f"expected {count} records in {len(text)} bytes, found something else")
        return records

    @classmethod
    def of(
        cls, offsets: Sequence[int], keys: Sequence[bytes | None], values: Sequence[bytes | None]
    ) -> "EncodedRecords":
        """Return records that did not come from Kafka, as if they had."""
        parts: list[bytes] = []
        index: Integers = np.empty((len(offsets), 5), np.int64)
        at = 0
        for row, (offset, key, value) in enumerate(zip(offsets, keys, values, strict=True)):
            key_bytes = -1 if key is None else len(key)
            value_bytes = -1 if value is None else len(value)
            index[row] = (offset, at, key_bytes, at + max(key_bytes, 0), value_bytes)
            parts += (key or b"", value or b"")
            at += max(key_bytes, 0) + max(value_bytes, 0)
        return cls(b"".join(parts), index)

    def __len__(self) -> int:
        return len(self.index)

    def record(self, row: int) -> tuple[int, bytes | None, bytes | None]:
        """Return offset, key and value of one record."""
        offset, key_at, key_bytes, value_at, value_bytes = self.index[row].tolist()
        text = self.text
        return (
            offset,
            None if key_bytes < 0 else text[key_at : key_at + key_bytes],
            None if value_bytes < 0 else text[value_at : value_at + value_bytes],
        )

    def columns(self) -> tuple[list[int], list[bytes | None], list[bytes | None]]:
        """Return offsets, keys and values of all records."""
        text, rows = self.text, self.index.tolist()
        return (
            [row[OFFSET] for row in rows],
            [None if size < 0 else text[at : at + size] for _, at, size, _, _ in rows],
            [None if size < 0 else text[at : at + size] for _, _, _, at, size in rows],
        )

    def since(self, offset: int) -> "EncodedRecords":
        """Return the records from an offset on."""
        start = int(np.searchsorted(self.index[:, OFFSET], offset))
        return self if start == 0 else EncodedRecords(self.text, self.index[start:])


class RecordsWriter:
    """Records of one topic and partition, in order, in batches that Kafka takes.

    batch_bytes_max: no batch is larger, unless a single record is. The hot path writes into
    `buffer` by itself, after `open_buffer`: `state` is how much of it is used, how many records
    that is, and how large a batch may become; `room_for` makes place.
    """

    __slots__ = ("_appended", "_full", "buffer", "state")

    def __init__(self, batch_bytes_max: int) -> None:
        self._full: list[tuple[Bytes, int]] = []
        self._appended: list[Record] = []
        self.buffer: Bytes = np.empty(_FIRST_BYTES, np.uint8)
        self.state: Integers = np.array([0, 0, batch_bytes_max], np.int64)

    def append(self, record: Record) -> None:
        """Add one record."""
        self._appended.append(record)

    def extend(self, records: Iterable[Record]) -> None:
        """Add many records."""
        self._appended.extend(records)

    def open_buffer(self) -> None:
        """Write what was appended into the buffer, so that others may write behind it."""
        if not self._appended:
            return
        appended, self._appended = self._appended, []
        used, count, batch_bytes_max = self.state.tolist()
        began = used
        parts: list[bytes] = []
        for key, value in appended:
            if count and used + len(key) + len(value) + RECORD_OVERHEAD_BYTES > batch_bytes_max:
                self._put(parts, began, used, count)
                self._full.append((self.buffer[:used], count))
                self.buffer, parts = np.empty(batch_bytes_max, np.uint8), []
                began = used = count = 0
            body = b"\0\0%b%b%b%b%b\0" % (
                _varint(count), _varint(len(key)), key, _varint(len(value)), value,
            )  # fmt: skip
            size = _varint(len(body))
            parts += (size, body)
            used += len(size) + len(body)
            count += 1
        self._put(parts, began, used, count)

    def _put(self, parts: list[bytes], began: int, used: int, count: int) -> None:
        if used > len(self.buffer):
            grown = np.empty(max(min(4 * used, int(self.state[2])), used), np.uint8)
            grown[:began] = self.buffer[:began]
            self.buffer = grown
        self.buffer[began:used] = np.frombuffer(b"".join(parts), np.uint8)
        self.state[:2] = used, count

    def room_for(self, size: int) -> None:
        """Make place for a record with a key and value of so many bytes together."""
        used, count, batch_bytes_max = self.state.tolist()
        needed = used + size + RECORD_OVERHEAD_BYTES
        if count and needed > batch_bytes_max:
            self._full.append((self.buffer[:used], count))
            self.buffer = np.empty(max(batch_bytes_max, size + RECORD_OVERHEAD_BYTES), np.uint8)
            self.state[:2] = 0
        elif needed > len(self.buffer):
            grown = np.empty(max(min(4 * needed, batch_bytes_max), needed), np.uint8)
            grown[:used] = self.buffer[:used]
            self.buffer = grown

    def batches(self) -> list[tuple[Bytes, int]]:
        """Return the batches, in order: the bytes of their records, and how many these are."""
        self.open_buffer()
        used, count, _ = self.state.tolist()
        return [*self._full, (self.buffer[:used], count)] if count else list(self._full)

    def __len__(self) -> int:
        full = sum(count for _, count in self._full)
        return full + int(self.state[1]) + len(self._appended)

    def __iter__(self) -> Iterator[Record]:
        for text, count in self.batches():
            records = EncodedRecords.read(text.tobytes(), count, 0)
            for row in range(count):
                _, key, value = records.record(row)
                assert key is not None
                assert value is not None
                yield key, value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RecordsWriter | list):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]


def _varint(number: int) -> bytes:
    return _SHORT[number] if number < len(_SHORT) else _varint_of(number)


def _varint_of(number: int) -> bytes:
    number <<= 1  # zigzag; nothing that is written here is negative
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


_SHORT = [_varint_of(number) for number in range(2048)]


@compiled
def _read_varint(text: Any, at: int) -> tuple[int, int]:  # pragma: no cover - compiled
    """Return the number and the position behind it; a position of -1: there is no number."""
    number = 0
    shift = 0
    while at < len(text) and shift < 64:
        byte = int(text[at])
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
    return 0, -1


@compiled
def index_records(text: Any, base_offset: int, index: Any) -> int:  # pragma: no cover - compiled
    """Fill the index of a batch's records; return where they end, -1 when they are malformed."""
    at = 0
    for row in range(len(index)):
        length, at = _read_varint(text, at)
        if at < 0 or length < 0 or length > len(text) - at:
            return -1
        end = at + length
        at += 1  # attributes
        _, at = _read_varint(text, at)  # timestamp delta
        if at < 0:
            return -1
        delta, at = _read_varint(text, at)
        if at < 0:
            return -1
        index[row, OFFSET] = base_offset + delta
        for column in (KEY_AT, VALUE_AT):
            size, at = _read_varint(text, at)
            if at < 0 or size > end - at:
                return -1
            index[row, column] = at
            index[row, column + 1] = max(size, -1)
            at += max(size, 0)
        at = end  # headers are nobody's concern
    return at


@compiled
def write_varint(buffer: Any, at: int, number: int) -> int:  # pragma: no cover - compiled
    """Write a number that is not negative; return the position behind it."""
    number <<= 1
    while number > 0x7F:
        buffer[at] = number & 0x7F | 0x80
        number >>= 7
        at += 1
    buffer[at] = number
    return at + 1


@compiled
def varint_bytes(number: int) -> int:  # pragma: no cover - compiled
    """Return how many bytes `write_varint` writes."""
    size = 1
    number >>= 6
    while number > 0:
        size += 1
        number >>= 7
    return size


@compiled
def write_record(
    buffer: Any, state: Any, text: Any, key_at: int, key_bytes: int, value_at: int, value_bytes: int
) -> bool:  # pragma: no cover - compiled
    """Add a record to a writer's buffer; return False, and do nothing, where it has no room."""
    at = state[0]
    count = state[1]
    size = at + key_bytes + value_bytes + RECORD_OVERHEAD_BYTES
    if size > len(buffer) or (count > 0 and size > state[2]):
        return False
    body = (
        3 + varint_bytes(count) + varint_bytes(key_bytes) + key_bytes
        + varint_bytes(value_bytes) + value_bytes
    )  # fmt: skip
    at = write_varint(buffer, at, body)
    buffer[at] = 0
    buffer[at + 1] = 0
    at = write_varint(buffer, at + 2, count)
    at = write_varint(buffer, at, key_bytes)
    copy_bytes(buffer, at, text, key_at, key_bytes)
    at = write_varint(buffer, at + key_bytes, value_bytes)
    copy_bytes(buffer, at, text, value_at, value_bytes)
    at += value_bytes
    buffer[at] = 0
    state[0] = at + 1
    state[1] = count + 1
    return True
