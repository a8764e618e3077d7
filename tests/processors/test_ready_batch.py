"""What `ready_batch` leans on inside aiokafka 0.14: the batch it takes the place of."""

import inspect

import pytest
from aiokafka.producer import message_accumulator
from aiokafka.producer.message_accumulator import BatchBuilder, MessageBatch
from aiokafka.record.memory_records import MemoryRecords

from alpha_pulse.processors.wire.ready_batch import ReadyBatch
from alpha_pulse.processors.wire.records import EncodedRecords, RecordsWriter

RECORDS = [(b"k%d" % number, b"v" * number) for number in range(500)]
BATCH_BYTES_MAX = 60_000


def written(records: list[tuple[bytes, bytes]], batch_bytes_max: int) -> RecordsWriter:
    writer = RecordsWriter(batch_bytes_max)
    for record in records:
        writer.append(record)
    return writer


def content(built: bytes) -> list[tuple[int, int, bytes | None, bytes | None]]:
    batch = MemoryRecords(built).next_batch()
    assert batch is not None
    assert batch.validate_crc()
    return [(record.offset, record.timestamp, record.key, record.value) for record in batch]


def test_a_ready_batch_is_read_as_one_that_aiokafka_built() -> None:
    first = 0
    for encoded, count in written(RECORDS, BATCH_BYTES_MAX).batches():
        theirs = BatchBuilder(10**6, 4, is_transactional=True)
        for key, value in RECORDS[first : first + count]:
            assert theirs.append(timestamp=1_700_000_000_000, key=key, value=value) is not None
        ours = ReadyBatch(encoded, count, 1_700_000_000_000)
        for batch in (ours, theirs):
            batch._set_producer_state(77, 3, 1000)
        assert ours.record_count() == theirs.record_count() == count
        mine, its = bytes(ours._build()), bytes(theirs._build())
        assert content(mine) == content(its)
        # Everything but length, checksum and what is compressed is the same bytes.
        assert (mine[:8], mine[12:17], mine[21:61]) == (its[:8], its[12:17], its[21:61])
        assert ours.size() == len(mine)
        first += count
    assert first == len(RECORDS)


def test_what_does_not_get_smaller_is_sent_as_it_is() -> None:
    ((encoded, count),) = written([(b"k", b"v")], 1000).batches()
    batch = MemoryRecords(bytes(ReadyBatch(encoded, count, 5)._build())).next_batch()
    assert batch is not None
    assert (batch.compression_type, batch.is_transactional) == (0, True)


def test_batches_are_as_large_as_allowed_and_hold_every_record_once() -> None:
    writer = written(RECORDS, BATCH_BYTES_MAX)
    assert len(writer) == len(RECORDS)
    assert list(writer) == RECORDS
    sizes = [len(encoded) for encoded, _ in writer.batches()]
    assert all(size <= BATCH_BYTES_MAX for size in sizes)
    assert all(size > BATCH_BYTES_MAX - 1000 for size in sizes[:-1])


def test_a_record_larger_than_a_batch_stands_alone() -> None:
    records = [(b"a", b"1"), (b"b", b"2" * 500), (b"c", b"3")]
    writer = written(records, 100)
    assert list(writer) == records
    assert [count for _, count in writer.batches()] == [1, 1, 1]


def test_records_that_are_cut_off_or_too_few_are_refused() -> None:
    ((encoded, count),) = written(RECORDS[:20], BATCH_BYTES_MAX).batches()
    text = encoded.tobytes()
    assert len(EncodedRecords.read(text, count, 7)) == 20
    for wrong, number in (
        (text[:-1], count),
        (text, count - 1),
        (text, count + 1),
        (b"\xff" * 9, 3),
    ):
        with pytest.raises(ValueError, match="expected"):
            EncodedRecords.read(wrong, number, 7)


def test_aiokafka_asks_a_batch_for_what_a_ready_batch_has() -> None:
    asked = {
        name
        for name, _ in inspect.getmembers(BatchBuilder, inspect.isfunction)
        if name not in ("__init__", "_serialize")
    }
    assert asked <= set(dir(ReadyBatch))
    source = inspect.getsource(MessageBatch) + inspect.getsource(
        message_accumulator.MessageAccumulator._append_batch
    )
    # It is only asked, never looked into.
    assert "self._builder._builder" not in source
    assert "builder._builder" not in inspect.getsource(MessageBatch)
