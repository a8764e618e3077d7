"""Where a sink goes on, for every state that the tables and the topic can be in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.sinks.batching.resume import KnownOffsets, TopicRecreated, announced_range, plan

WHERE = "market.trades.v1 3"
OFFSETS = st.sets(st.integers(0, 60))


def ranges_of(offsets: set[int]) -> list[tuple[int, int]]:
    return [(offset, offset) for offset in offsets]


@given(OFFSETS)
def test_ranges_hold_exactly_what_was_put_in(offsets: set[int]) -> None:
    known = KnownOffsets(ranges_of(offsets))
    assert {offset for offset in range(-1, 62) if offset in known} == offsets
    assert known.end == max(offsets, default=-1) + 1
    for (_, last), (first, _) in zip(known.ranges, known.ranges[1:], strict=False):
        assert first > last + 1


def test_overlapping_ranges_become_one() -> None:
    assert KnownOffsets([(5, 9), (0, 3), (4, 6), (8, 20)]).ranges == [(0, 20)]


def test_an_empty_table_starts_at_the_earliest_and_calls_nothing_lost() -> None:
    going_on = plan(WHERE, settled_before=None, known=KnownOffsets(), log_start=40, log_end=90)
    assert (going_on.start, going_on.lost) == (40, None)


def test_a_sink_goes_on_at_the_settled_position() -> None:
    known = KnownOffsets([(12, 20)])
    going_on = plan(WHERE, settled_before=10, known=known, log_start=0, log_end=90)
    assert (going_on.start, going_on.lost) == (10, None)
    assert [offset in going_on.known for offset in (10, 11, 12, 20, 21)] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_rows_without_progress_are_read_again_from_the_earliest_and_passed_over() -> None:
    known = KnownOffsets([(0, 20)])
    going_on = plan(WHERE, settled_before=None, known=known, log_start=0, log_end=90)
    assert (going_on.start, going_on.lost) == (0, None)


def test_retention_that_outran_the_sink_is_told_with_its_offsets() -> None:
    going_on = plan(WHERE, settled_before=10, known=KnownOffsets(), log_start=15, log_end=90)
    assert (going_on.start, going_on.lost) == (15, (10, 14))


def test_what_retention_deleted_after_it_was_stored_is_not_lost() -> None:
    known = KnownOffsets([(10, 14)])
    going_on = plan(WHERE, settled_before=10, known=known, log_start=15, log_end=90)
    assert going_on.lost is None


@given(OFFSETS, st.integers(0, 60), st.integers(0, 60))
def test_lost_spans_from_the_first_to_the_last_offset_that_nobody_has(
    stored: set[int], settled_before: int, log_start: int
) -> None:
    stored = {offset for offset in stored if offset >= settled_before}
    known = KnownOffsets(ranges_of(stored))
    going_on = plan(
        WHERE, settled_before=settled_before, known=known, log_start=log_start, log_end=100
    )
    missing = set(range(settled_before, log_start)) - stored
    assert going_on.lost == ((min(missing), max(missing)) if missing else None)
    assert going_on.start == max(settled_before, log_start)


@pytest.mark.parametrize(
    ("settled_before", "known"),
    [(91, KnownOffsets()), (None, KnownOffsets([(0, 90)])), (5, KnownOffsets([(88, 95)]))],
)
def test_a_table_beyond_the_topics_end_means_another_topic(
    settled_before: int | None, known: KnownOffsets
) -> None:
    with pytest.raises(TopicRecreated, match=r"--begin-epoch market\.trades\.v1`"):
        plan(WHERE, settled_before=settled_before, known=known, log_start=0, log_end=90)


def test_a_table_that_ends_where_the_topic_ends_is_complete() -> None:
    going_on = plan(WHERE, settled_before=90, known=KnownOffsets(), log_start=0, log_end=90)
    assert (going_on.start, going_on.lost) == (90, None)


def test_an_announcement_counts_for_its_own_partition_and_life_only() -> None:
    token = "market.trades.v1#2:3:10-20:4"
    assert announced_range(token, "market.trades.v1#2", 3, 4) == (10, 20)
    for name, partition, generation in (
        ("market.trades.v1", 3, 4),
        ("market.trades.v1#2", 13, 4),
        ("market.trades.v1#2", 3, 5),
    ):
        assert announced_range(token, name, partition, generation) is None
    assert announced_range("somebody else's words", "market.trades.v1", 3, 1) is None
