"""Batches: bounds, joined bytes, tokens, months."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.sinks.batching.batch import Batch, Waiting, drop_known
from alpha_pulse.sinks.batching.resume import announced_range

VALUES = st.lists(st.binary(max_size=40) | st.none(), min_size=1, max_size=60)


def batch_of(values: list[bytes | None], first: int = 0) -> Batch:
    offsets = range(first, first + len(values))
    return Batch("market.trades.v1", 3, list(offsets), values, first + len(values), 0)


def waiting(
    rows_max: int = 10, bytes_max: int = 1000, age_s_max: float = 1.0, history_age_s_max: float = 0
) -> Waiting:
    return Waiting(
        "t", 0, rows_max=rows_max, bytes_max=bytes_max, age_s_max=age_s_max,
        history_age_s_max=history_age_s_max,
    )  # fmt: skip


PAST, LIVE = b'{"a":1,"job":"backfill-1"}', b'{"a":1}'


def test_history_waits_while_more_of_it_comes_but_not_for_ever() -> None:
    rows = waiting(10**6, 10**9, age_s_max=0.5, history_age_s_max=3.0)
    rows.add([1], [PAST], 2, 0, now_s=100.0)
    assert rows.due_s() == pytest.approx(100.5, abs=1e-3), "nothing more came"
    rows.add([2], [PAST], 3, 0, now_s=100.4)
    assert rows.due_s() == pytest.approx(100.9, abs=1e-3)
    for offset in range(3, 10):
        rows.add([offset], [PAST], offset + 1, 0, now_s=100.0 + offset * 0.4)
    assert rows.due_s() == pytest.approx(103.0, abs=1e-3)


def test_full_history_waits_no_longer() -> None:
    rows = waiting(rows_max=2, age_s_max=0.5, history_age_s_max=3.0)
    rows.add([1, 2], [PAST, PAST], 3, 0, now_s=100.0)
    assert rows.due_s() == 100.0


def test_a_live_row_waits_for_no_history() -> None:
    for values in ([LIVE], [PAST, LIVE, PAST], [LIVE, PAST], [None]):
        rows = waiting(10**6, 10**9, age_s_max=0.5, history_age_s_max=3.0)
        rows.add([1], [PAST], 2, 0, now_s=100.0)
        rows.add(range(2, 2 + len(values)), values, 5, 0, now_s=100.3)
        rows.add([5], [PAST], 6, 0, now_s=100.4)
        assert rows.due_s() == pytest.approx(100.5, abs=1e-3)
        rows.next_batch(101.0)
        rows.add([7], [PAST], 8, 0, now_s=102.0)
        rows.add([8], [PAST], 9, 0, now_s=102.4)
        assert rows.due_s() == pytest.approx(102.9, abs=1e-3), "the live row is gone"


def test_a_live_row_that_says_job_in_a_text_is_no_history() -> None:
    rows = waiting(10**6, 10**9, age_s_max=0.5, history_age_s_max=3.0)
    rows.add([1], [rb'{"reason":"x\",\"job\":\"h"}'], 2, 0, now_s=100.0)
    rows.add([2], [LIVE], 3, 0, now_s=100.4)
    assert rows.due_s() == pytest.approx(100.5, abs=1e-3)


def test_each_row_carries_its_own_position_in_front_of_its_fields() -> None:
    lines = batch_of([b'{"a":1}', b'{"k_offset":99,"b":"x\\n"}'], first=7).body().split(b"\n")
    assert lines[0] == b'{"k_topic":"market.trades.v1","k_partition":3,"k_offset":7,"a":1}'
    # Of two equal keys ClickHouse keeps the first, ours, or refuses the row.
    pairs = json.loads(lines[1], object_pairs_hook=list)
    assert [value for key, value in pairs if key == "k_offset"] == [8, 99]


def test_a_record_without_a_value_becomes_a_row_that_no_parser_takes() -> None:
    assert batch_of([None]).body().endswith(b'"k_offset":0,')


def test_the_token_names_topic_partition_offsets_and_generation() -> None:
    assert batch_of([b"{}", b"{}"], first=5).token(2) == "market.trades.v1:3:5-6:2"


def test_rows_wait_until_their_age_and_the_more_they_are_the_less_long() -> None:
    rows = waiting(age_s_max=1.0)
    assert rows.due_s() is None
    rows.add([1], [b"{}"], 2, 0, now_s=100.0)
    assert rows.due_s() == 100.0 + 1.0 * (1 - 1 / 10)
    rows.add([2, 3, 4, 5], [b"{}"] * 4, 6, 0, now_s=100.4)
    # Half a batch waits half as long.
    assert rows.due_s() == 100.5


def test_rows_beyond_a_bound_are_due_at_once() -> None:
    rows = waiting(rows_max=2)
    rows.add([1, 2], [b"{}", b"{}"], 3, 0, now_s=100.0)
    assert rows.is_full
    assert rows.due_s() == 100.0


def test_a_row_larger_than_the_bound_goes_alone() -> None:
    rows = waiting(bytes_max=10)
    rows.add([1, 2], [b"x" * 50, b"y"], 3, 0, now_s=0.0)
    assert rows.next_batch(0.0).offsets == [1]
    assert rows.next_batch(0.0).offsets == [2]


def test_what_is_settled_after_a_part_is_the_next_row_and_after_all_the_next_offset() -> None:
    rows = waiting(rows_max=2)
    rows.add([4, 6, 9], [b"a", b"b", b"c"], 12, 0, now_s=0.0)
    assert rows.next_batch(0.0).settled_before == 9
    assert rows.next_batch(0.0).settled_before == 12


@given(VALUES, st.integers(1, 20), st.integers(1, 20), st.integers(1, 200))
def test_every_row_is_taken_once_in_order_within_the_bounds(
    values: list[bytes | None], fetch_rows: int, rows_max: int, bytes_max: int
) -> None:
    rows = waiting(rows_max=rows_max, bytes_max=bytes_max)
    for first in range(0, len(values), fetch_rows):
        fetched = values[first : first + fetch_rows]
        end = first + len(fetched)
        rows.add(range(first, end), fetched, end, 0, now_s=0.0)
    assert len(rows) == len(values)
    taken: list[int] = []
    while rows:
        batch = rows.next_batch(0.0)
        assert 1 <= len(batch.offsets) <= rows_max
        assert batch.size_bytes <= bytes_max or len(batch.offsets) == 1
        # One more would have been too much.
        following = taken[-1] + 1 + len(batch.offsets) if taken else len(batch.offsets)
        if following < len(values) and len(batch.offsets) < rows_max:
            assert batch.size_bytes + len(values[following] or b"") > bytes_max
        taken.extend(batch.offsets)
    assert taken == list(range(len(values)))
    assert rows.size_bytes == 0


@given(VALUES)
def test_halves_are_the_whole(values: list[bytes | None]) -> None:
    batch = batch_of(values)
    first, second = batch.halves()
    assert [*first.offsets, *second.offsets] == batch.offsets
    assert [*first.values, *second.values] == values
    assert abs(len(first.offsets) - len(second.offsets)) <= 1


def test_rows_are_told_apart_by_the_month_of_their_time() -> None:
    # 2026-10-31 23:59:59.999999, 2026-11-01 00:00:00, quoted, with a space, none, nonsense.
    values: list[bytes | None] = [
        b'{"trade_time_us":1793491199999999}',
        b'{"trade_time_us": 1793491200000000}',
        b'{"trade_time_us":"1793491200000001"}',
        b'{"other":1}',
        None,
        b'{"trade_time_us":9223372036854775807}',
    ]
    months = batch_of(values).by_month("trade_time_us")
    assert {month: part.offsets for month, part in months.items()} == {
        "202610": [0],
        "202611": [1, 2],
        "none": [3, 4, 5],
    }


def test_a_batch_whose_ends_are_of_two_months_is_known_to_span_them() -> None:
    october, november = b'{"open_time_us":1793491199999999}', b'{"open_time_us":1793491200000000}'
    assert batch_of([october, october, november]).spans_months("open_time_us")
    assert not batch_of([october, november, october]).spans_months("open_time_us")
    assert not batch_of([november]).spans_months("open_time_us")
    assert not batch_of([None, b"{}"]).spans_months("open_time_us")


def test_a_time_inside_a_string_is_no_time() -> None:
    value = rb'{"reason":"\"start_time_us\":1","start_time_us":1793491200000000}'
    assert list(batch_of([value]).by_month("start_time_us")) == ["202611"]


def test_known_rows_are_dropped() -> None:
    assert drop_known([1, 2, 3], [b"a", b"b", b"c"], [True, False, True]) == ([2], [b"b"])


def test_an_announced_batch_waits_until_it_is_whole_and_goes_as_it_was() -> None:
    rows = waiting(rows_max=2, age_s_max=1.0)
    rows.expect(2, 5)
    rows.add([2, 3], [b"{}", b"{}"], 4, 0, now_s=100.0)
    rows.reached(4)
    # Neither age nor size makes a part of it due, and a partition that is read on is not paused.
    assert (rows.due_s(), rows.is_full, rows.is_whole) == (None, False, False)
    rows.add([5, 6, 7], [b"{}"] * 3, 8, 0, now_s=101.0)
    rows.reached(8)
    assert rows.due_s() == 100.0
    announced = rows.next_batch(101.0)
    assert (list(announced.offsets), announced.settled_before) == ([2, 3, 5], 6)
    assert list(rows.next_batch(101.0).offsets) == [6, 7]


def test_an_announced_batch_that_is_stored_already_holds_nothing_up() -> None:
    rows = waiting(age_s_max=1.0)
    rows.expect(2, 5)
    rows.add([7], [b"{}"], 8, 0, now_s=100.0)
    rows.reached(8)
    assert rows.due_s() == 100.0 + 1.0 * (1 - 1 / 10)
    assert list(rows.next_batch(101.0).offsets) == [7]


def test_what_comes_before_an_announced_batch_goes_as_usual_and_apart() -> None:
    # The table was emptied: all of the topic is stored again, and the batch is far away.
    rows = waiting(rows_max=3, age_s_max=1.0)
    rows.expect(4, 5)
    for offset in range(8):
        rows.add([offset], [b"{}"], offset + 1, 0, now_s=100.0)
        rows.reached(offset + 1)
    batches = [list(rows.next_batch(100.0).offsets) for _ in range(4)]
    assert batches == [[0, 1, 2], [3], [4, 5], [6, 7]]


@given(st.sets(st.integers(0, 60), min_size=1), st.data())
def test_an_successor_makes_the_announced_batch_again_whatever_the_fetches(
    offsets: set[int], data: st.DataObject
) -> None:
    ordered = sorted(offsets)
    first = waiting(rows_max=7)
    first.add(ordered, [b"{}"] * len(ordered), ordered[-1] + 1, 0, 0.0)
    announced = first.next_batch(0.0).token(1)
    found = announced_range(announced, "t", 0, 1)
    assert found is not None
    successor = waiting(rows_max=data.draw(st.integers(1, 20)))
    successor.expect(*found)
    while ordered:
        size = data.draw(st.integers(1, len(ordered)))
        fetched, ordered = ordered[:size], ordered[size:]
        successor.add(fetched, [b"{}"] * size, fetched[-1] + 1, 0, 0.0)
        successor.reached(fetched[-1] + 1)
        if successor.due_s() is not None:
            break
    assert successor.next_batch(0.0).token(1) == announced
