"""Refused rows are found by splitting; months go apart; passing faults are waited out."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.codec import EventDecoder
from alpha_pulse.contracts.events import DeadLetter
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.client import ManyMonths, PassingFault, RowsRefused
from alpha_pulse.sinks.clickhouse.tables import table_of
from alpha_pulse.sinks.lanes.offsets import OffsetStore
from alpha_pulse.sinks.lanes.writer import (
    REFUSED,
    TooManyRefused,
    Writer,
)

decode_dead_letter: EventDecoder[DeadLetter] = EventDecoder(DeadLetter)
OCTOBER_US, NOVEMBER_US = 1_793_491_199_999_999, 1_793_491_200_000_000


class FakeClickHouse:
    """Stores rows once per token; refuses those with "bad"; `faults` fail the next attempts."""

    def __init__(self, faults: list[Exception] | None = None) -> None:
        self.rows: list[int] = []
        self.tokens: list[str] = []
        self.attempts: list[tuple[bytes, str]] = []
        self.skipped: list[int] = []
        self.faults = faults or []

    async def insert(self, table: str, columns: Any, body: bytes, settings: dict[str, Any]) -> None:
        if table.endswith(".skipped_offsets"):
            match = re.search(rb'"first_offset": (\d+)', body)
            assert match
            self.skipped.append(int(match[1]))
            return
        token = settings["insert_deduplication_token"]
        self.attempts.append((body, token))
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and "after" not in str(fault):
            raise fault
        months = set(re.findall(rb'"trade_time_us":(\d+)', body))
        if b"bad" in body:
            raise RowsRefused("a row is bad", 469)
        if len(months) > 1:
            raise ManyMonths("two months")
        if token not in self.tokens:
            self.tokens.append(token)
            self.rows += [int(offset) for offset in re.findall(rb'"k_offset":(\d+)', body)]
        if fault is not None:
            raise fault


class Letters:
    def __init__(self) -> None:
        self.published: list[DeadLetter] = []

    async def __call__(self, key: bytes, value: bytes) -> None:
        self.published.append(decode_dead_letter(value))


def writer_of(clickhouse: Any, letters: Letters, run_max: int = 100) -> Writer:
    return Writer(
        clickhouse,
        OffsetStore(clickhouse, "db"),
        "db",
        letters,
        retry_wait_s_max=0.01,
        refused_run_max=run_max,
        refused_ratio_max=0.1,
    )


def batch_of(values: list[bytes | None]) -> Batch:
    return Batch("t", 1, list(range(len(values))), values, len(values), 1_700_000_000_123)


async def store(writer: Writer, batch: Batch, kind: kinds.Kind[Any] = kinds.TRADE) -> None:
    await writer.store(batch, table_of(kind), "t", 1)


@given(st.lists(st.booleans(), min_size=1, max_size=80))
async def test_each_bad_row_becomes_one_dead_letter_and_the_rest_is_stored(
    bad: list[bool],
) -> None:
    clickhouse, letters = FakeClickHouse(), Letters()
    values: list[bytes | None] = [b'{"bad":1}' if is_bad else b'{"good":1}' for is_bad in bad]
    await store(writer_of(clickhouse, letters), batch_of(values))
    expected = [offset for offset, is_bad in enumerate(bad) if is_bad]
    assert [letter.offset for letter in letters.published] == expected
    assert clickhouse.skipped == expected
    assert sorted(clickhouse.rows) == [offset for offset, is_bad in enumerate(bad) if not is_bad]


async def test_a_dead_letter_says_where_it_came_from_and_keeps_the_bytes() -> None:
    value = b'{"exchange":"kraken","symbol":"BTC/USD","bad":1}'
    letters = Letters()
    await store(writer_of(FakeClickHouse(), letters), batch_of([value]))
    (letter,) = letters.published
    assert letter.identity == "t:1:0"
    assert (letter.reason, letter.exchange, letter.symbol) == (REFUSED, "kraken", "BTC/USD")
    assert (letter.payload_bytes, letter.time_us) == (len(value), 1_700_000_000_123_000)


async def test_a_row_is_refused_only_when_it_is_refused_twice() -> None:
    # A body that a broken connection cut short is refused like bad data.
    clickhouse, letters = FakeClickHouse([RowsRefused("unexpected end", 33)] * 2), Letters()
    await store(writer_of(clickhouse, letters), batch_of([b'{"good":1}', b'{"good":2}']))
    assert sorted(clickhouse.rows) == [0, 1]
    assert letters.published == []


async def test_a_passing_fault_is_tried_again_with_the_same_bytes_and_token() -> None:
    clickhouse, letters = FakeClickHouse([PassingFault("away")] * 3), Letters()
    await store(writer_of(clickhouse, letters), batch_of([b'{"good":1}']))
    assert len(clickhouse.attempts) == 4
    assert len(set(clickhouse.attempts)) == 1
    assert letters.published == []


async def test_an_acknowledgement_lost_after_the_commit_stores_nothing_twice() -> None:
    clickhouse = FakeClickHouse([PassingFault("cut after the commit")])
    await store(writer_of(clickhouse, Letters()), batch_of([b'{"good":1}', b'{"good":2}']))
    assert clickhouse.rows == [0, 1]
    assert len(clickhouse.attempts) == 2


async def test_two_months_are_stored_in_two_inserts() -> None:
    clickhouse = FakeClickHouse()
    values: list[bytes | None] = [
        b'{"trade_time_us":%d}' % (OCTOBER_US if number % 3 else NOVEMBER_US) for number in range(6)
    ]
    await store(writer_of(clickhouse, Letters()), batch_of(values))
    assert sorted(clickhouse.rows) == list(range(6))
    assert clickhouse.tokens == ["t:1:0-3:1", "t:1:1-5:1"]


async def test_a_batch_that_ends_in_another_month_is_never_sent_whole() -> None:
    clickhouse = FakeClickHouse()
    values: list[bytes | None] = [
        b'{"trade_time_us":%d}' % (OCTOBER_US if number < 3 else NOVEMBER_US) for number in range(6)
    ]
    await store(writer_of(clickhouse, Letters()), batch_of(values))
    assert [token for _, token in clickhouse.attempts] == ["t:1:0-2:1", "t:1:3-5:1"]


async def test_too_many_refused_in_a_row_stop_the_sink() -> None:
    letters = Letters()
    writer = writer_of(FakeClickHouse(), letters, run_max=5)
    with pytest.raises(TooManyRefused, match="5 in a row"):
        await store(writer, batch_of([b'{"bad":1}'] * 20))
    assert len(letters.published) == 5


async def test_our_own_dead_letter_refused_stops_the_sink() -> None:
    value = b'{"reason":"refused_by_clickhouse","bad":1}'
    letters = Letters()
    with pytest.raises(TooManyRefused, match="our own dead letter"):
        await store(writer_of(FakeClickHouse(), letters), batch_of([value]), kinds.DEAD_LETTER)
    assert letters.published == []


async def test_more_than_the_ratio_of_the_last_rows_stops_and_not_before() -> None:
    letters = Letters()
    writer = writer_of(FakeClickHouse(), letters)
    for number in range(1000):
        good = Batch("t", 1, [10 * number], [b'{"good":1}'], 1, 0)
        await store(writer, good)
        writer._limits["t"].accept(8)
        await store(writer, batch_of([b'{"bad":1}']))  # 10 %: allowed
    with pytest.raises(TooManyRefused, match="2 in a row and 1001 of the last 10000"):
        await store(writer, batch_of([b'{"bad":1}']))
    assert len(letters.published) == 1001
