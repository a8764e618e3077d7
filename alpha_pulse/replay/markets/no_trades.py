"""A market that gives some of its ids to what is no trade, as Binance's perpetuals do."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from alpha_pulse.replay.markets.market import Instrument, Market, RecordedCandle, TradeRow


@runtime_checkable
class KnowsNoTrades(Protocol):
    """A market that says how many ids of no trade stand around a trade."""

    def no_trades_before(self, trade_id: int) -> int:
        """Return how many ids of no trade stand right before a trade, at the market's beginning."""
        ...

    def no_trades_after(self, trade_id: int) -> int:
        """Return how many ids of no trade stand between a trade and the next one."""
        ...


class WithNoTrades:
    """A market with the trades of another one, numbered behind ids of no trade.

    Only trades are rows: REST, candles and the ledger know nothing of the other ids.

    Args:
        market: its ids are consecutive.
        every: after so many trades one id is no trade's; 0: never. 250: as in a busy perpetual.
        runs: so many more before the trade at a position; 0 is the first trade.
    """

    def __init__(
        self, market: Market, *, every: int = 250, runs: Mapping[int, int] | None = None
    ) -> None:
        self._market = market
        self._every = every
        self._runs = dict(sorted((runs or {}).items()))
        self.instrument: Instrument = market.instrument
        self.begin_us = market.begin_us
        self.end_us = market.end_us
        self.complete_from_us = market.complete_from_us
        self._first_id = market.rows(0, 1)[0].trade_id

    def position_at(self, time_us: int) -> int:
        """Return how many trades the exchange printed before a time."""
        return self._market.position_at(time_us)

    def position_of(self, trade_id: int) -> int:
        """Return the position of a trade id, or of the next higher id."""
        end = max(0, trade_id - self._first_id) + 1
        return bisect_right(range(end), trade_id - 1, key=self._id_at)

    def rows(self, first: int, end: int) -> Sequence[TradeRow]:
        """Return the trades at positions [first, end), fewer when the market ends before."""
        first = max(first, 0)
        return [
            row._replace(trade_id=self._id_at(first + place))
            for place, row in enumerate(self._market.rows(first, end))
        ]

    def settled_us(self, close_us: int) -> int:
        """Return from when on all trades earlier than a minute's close have been printed."""
        return self._market.settled_us(close_us)

    def own_candle(self, open_time_us: int) -> RecordedCandle | None:
        """Return the exchange's own candle where one was recorded."""
        return self._market.own_candle(open_time_us)

    def native_id(self, row: TradeRow) -> str | None:
        """Return None: ids are numbers here."""
        return None

    def no_trades_before(self, trade_id: int) -> int:
        """Return how many ids of no trade stand before the market's first trade, else 0."""
        return trade_id - self._first_id if self.position_of(trade_id) == 0 else 0

    def no_trades_after(self, trade_id: int) -> int:
        """Return how many ids of no trade stand between a trade and the next one."""
        return self._id_at(self.position_of(trade_id) + 1) - trade_id - 1

    def _id_at(self, position: int) -> int:
        shift = position // self._every if self._every else 0
        for at, count in self._runs.items():
            if at > position:
                break
            shift += count
        return self._first_id + position + shift
