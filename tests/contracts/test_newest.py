"""One event of each identity: whatever the order and however often they come."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, Trade
from alpha_pulse.contracts.kinds import KINDS
from alpha_pulse.contracts.newest import Newest, identity
from alpha_pulse.contracts.schema.examples import EXAMPLES

CANDLE: Any = EXAMPLES[Candle]["contiguous"]
MINUTE_US = 60_000_000


def candle(minute: int, revision: int) -> Candle:
    made: Candle = msgspec.structs.replace(
        CANDLE,
        open_time_us=CANDLE.open_time_us + minute * MINUTE_US,
        revision=revision,
        trade_count=revision,
    )
    return made


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=60), st.randoms())
def test_what_stands_is_the_highest_revision_in_any_order(
    versions: list[tuple[int, int]], order: random.Random
) -> None:
    highest: dict[int, int] = {}
    for minute, revision in versions:
        highest[minute] = max(revision, highest.get(minute, 0))
    shuffled = versions * 2
    order.shuffle(shuffled)
    newest = Newest[Candle]()
    accepted = [version for version in shuffled if newest.accept(candle(*version))]
    assert {e.open_time_us: e.revision for e in newest} == {
        candle(minute, 1).open_time_us: revision for minute, revision in highest.items()
    }
    assert len(accepted) == len(set(accepted))


def test_a_trade_that_comes_twice_is_news_once() -> None:
    newest = Newest[Trade]()
    trade: Any = EXAMPLES[Trade]["binance"]
    assert newest.accept(trade)
    assert not newest.accept(trade)
    assert newest.accept(msgspec.structs.replace(trade, trade_id="7"))


def test_the_oldest_identity_is_forgotten_first_and_a_correction_does_not_make_it_young() -> None:
    newest = Newest[Candle](identities_max=2)
    for minute, revision in ((1, 10), (2, 20), (1, 11), (3, 30)):
        newest.accept(candle(minute, revision))
    assert [e.open_time_us for e in newest] == [
        candle(2, 1).open_time_us,
        candle(3, 1).open_time_us,
    ]
    assert len(newest) == 2


def test_every_field_of_an_identity_exists_and_none_is_a_revision() -> None:
    with_identity = [kind for kind in KINDS if kind.identity]
    assert len(with_identity) >= 8
    for kind in with_identity:
        assert set(kind.identity) <= {field.name for field in kind.fields}
        assert "revision" not in kind.identity
        for example in EXAMPLES[kind.event].values():
            assert identity(example) == tuple(getattr(example, name) for name in kind.identity)


def test_kinds_of_one_struct_have_one_identity_and_one_key() -> None:
    for kind in KINDS:
        same = [other for other in KINDS if other.event is kind.event]
        assert {(other.identity, other.key) for other in same} == {(kind.identity, kind.key)}


def test_gaps_without_ids_are_told_apart_by_their_start() -> None:
    gap: Any = msgspec.structs.replace(EXAMPLES[Gap]["open"], first_trade_id=None)
    later = msgspec.structs.replace(gap, start_time_us=gap.start_time_us + 1)
    assert identity(gap) != identity(later)


def test_an_event_that_speaks_of_the_log_itself_has_no_identity() -> None:
    heartbeat: Any = EXAMPLES[Heartbeat]["live"]
    with pytest.raises(ValidationError, match="found Heartbeat"):
        identity(heartbeat)
