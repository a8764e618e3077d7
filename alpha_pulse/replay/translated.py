"""A recording as another exchange would have printed it."""

from dataclasses import replace

from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.recorded import RecordedMarket
from alpha_pulse.replay.markets.recording import Recording


def as_dialect(recording: Recording, name: str) -> Recording:
    """Return the recording under an exchange's name, symbol, ids and precision of time.

    name: a key of DIALECTS; the recording's own exchange changes nothing but the precision.
    """
    kind = DIALECTS[name]
    symbol = kind.unified_symbol(recording.symbol)
    feed = Feed(RecordedMarket(recording), symbol)
    dialect = kind([feed], Options())
    ids = [dialect.trade_id(feed, row) for row in recording.trades]
    step_us = dialect.time_precision_us
    trades = tuple(
        row._replace(trade_time_us=row.trade_time_us - row.trade_time_us % step_us)
        for row in recording.trades
    )
    numbered = ids == [str(row.trade_id) for row in recording.trades]
    return replace(
        recording,
        exchange=name,
        symbol=symbol,
        trades=trades,
        native_ids=() if numbered else tuple(ids),
    )
