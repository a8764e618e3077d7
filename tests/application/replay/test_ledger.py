from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.replay.exchange.ledger import Ranges

PIECES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=30)


@given(pieces=PIECES)
def test_ranges_hold_what_was_added_and_count_what_came_again(
    pieces: list[tuple[int, int]],
) -> None:
    ranges, seen, again = Ranges(), set[int](), 0
    for first, size in pieces:
        new = set(range(first, first + size))
        again += len(seen & new)
        seen |= new
        ranges.add(first, first + size)
    assert {n for first, end in ranges.ranges for n in range(first, end)} == seen
    assert ranges.count == len(seen)
    assert ranges.again == again
    missing = {n for first, end in ranges.missing(5, 50) for n in range(first, end)}
    assert missing == set(range(5, 50)) - seen
