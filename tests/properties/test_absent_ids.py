"""What an answer of REST proves of the ids that it does not show."""

from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.events import Ids, Trade
from alpha_pulse.producers.exchanges.trades import Wanted
from alpha_pulse.producers.healing.absent_ids import with_absent_ids

TIME_US = 1_700_000_000_000_000


def trade(number: int) -> Trade:
    return Trade(
        exchange="binanceusdm",
        symbol="BTC/USDT:USDT",
        trade_id=str(number),
        price="1.5",
        amount="2",
        side="buy",
        trade_time_us=TIME_US + number * 1000,
        receive_time_us=TIME_US,
    )


@given(
    st.sets(st.integers(1, 60)),
    st.integers(1, 60),
    st.none() | st.integers(0, 20),
    st.integers(1, 20),
    st.booleans(),
    st.randoms(),
)
def test_every_wanted_id_up_to_the_answers_end_is_a_trade_or_none(
    printed: set[int], first: int, more: int | None, page: int, by_id: bool, random: object
) -> None:
    last = None if more is None else first + more
    # By id, or the newest trades whatever they are.
    ordered = sorted(printed)
    shown = [n for n in ordered if n >= first][:page] if by_id else ordered[-page:]
    answer = [trade(number) for number in shown]
    random.shuffle(answer)  # type: ignore[attr-defined]
    until_us = None if last is None else TIME_US + (last + 1) * 1000
    wanted = Wanted("BTC/USDT:USDT", first, last, 0, until_us)
    found = with_absent_ids(answer, wanted, "no_trade", from_first=by_id)
    ids: list[int] = []
    newest_us = 0
    for one in found:
        if isinstance(one, Ids):
            run = list(range(int(one.first_trade_id), int(one.last_trade_id) + 1))
            assert run
            assert not printed & set(run), "no trade is called none"
            assert one.time_us >= TIME_US + run[-1] * 1000
            ids += run
            newest_us = max(newest_us, one.time_us)
        else:
            assert one.trade_time_us >= newest_us, "what follows is not earlier"
            ids.append(int(one.trade_id))
    begin = first if by_id else max(first, shown[0] if shown else first)
    end = min(shown[-1], 10**6 if last is None else last) if shown else 0
    assert ids == list(range(begin, end + 1))
