"""Which ids an answer of REST proves to belong to no trade. Pure."""

from collections.abc import Sequence

from alpha_pulse.contracts.events import Ids, Trade
from alpha_pulse.producers.exchanges.tick import Numbered
from alpha_pulse.producers.exchanges.trades import Wanted


def with_absent_ids(
    trades: Sequence[Trade], wanted: Wanted, reason: str, *, from_first: bool
) -> list[Numbered]:
    """Return the wanted trades of an answer, and the wanted ids that are absent among them.

    For exchanges that leave out of REST what is no trade. The answer is whole from its first trade
    to its last one; what lies behind that it says nothing of.

    Args:
        trades: the whole answer, in any order; those after the wanted ones count too.
        wanted: what was asked for.
        reason: what the absent ids are; see `TradeSource.absent_ids`.
        from_first: the answer begins with the first wanted id, or the first trade after it; else
            with its own first trade.

    Returns:
        In id order. Absent ids have the time of the trade that follows them.
    """
    rows = sorted((int(trade.trade_id), trade) for trade in trades) if trades else []
    if not rows:
        return []
    expected = wanted.first_id if from_first else max(wanted.first_id, rows[0][0])
    found: list[Numbered] = []
    for number, trade in rows:
        if number < expected:
            continue
        at_us, last_id = trade.trade_time_us, wanted.last_id
        if last_id is not None and number > last_id:
            if expected <= last_id:
                at_us = min(at_us, wanted.until_us or at_us)
                found.append(_run(trade, expected, last_id, at_us, reason))
            break
        if expected < number:
            found.append(_run(trade, expected, number - 1, at_us, reason))
        found.append(trade)
        expected = number + 1
    return found


def _run(after: Trade, first: int, last: int, at_us: int, reason: str) -> Ids:
    return Ids(
        exchange=after.exchange,
        symbol=after.symbol,
        first_trade_id=str(first),
        last_trade_id=str(last),
        time_us=at_us,
        reason=reason,
    )
