"""A replay exchange at a steady rate: `python end_to_end_exchange.py SYMBOLS TRADES_PER_S`.

SYMBOLS: how many, S0000/USDT and so on; TRADES_PER_S: of all of them together.

The real replay exchange, live, with markets whose trades come evenly: a synthetic market has quiet
minutes and bursts, and a rate that must be held has none. Prints its address and runs until killed.
"""

import asyncio
import sys
import time
from collections.abc import Sequence

import uvloop

from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.market import Instrument, RecordedCandle, TradeRow
from alpha_pulse.replay.markets.synthetic import SyntheticMarket

CYCLE = 2_000  # prices and sizes repeat after so many trades, times and ids never
FIRST_ID = 1_000_001


class SteadyMarket:
    """One symbol with a trade every `interval_us`, without end; digits of a synthetic market.

    cycle: prices, amounts and sides, over and over. phase_us: by how much its trades come after
    those of the first symbol.
    """

    def __init__(
        self,
        symbol: str,
        begin_us: int,
        interval_us: float,
        phase_us: float,
        cycle: Sequence[tuple[str, str, str]],
    ) -> None:
        model = SyntheticMarket(symbol, begin_us=begin_us, trades_per_minute=1)
        self._cycle = cycle
        self._interval_us = interval_us
        self._phase_us = phase_us
        self.instrument: Instrument = model.instrument
        self.begin_us = begin_us
        self.end_us: int | None = None
        self.complete_from_us = begin_us

    def _time_us(self, position: int) -> int:
        # Whole milliseconds, as the exchange's frames have them.
        after_us = int(position * self._interval_us + self._phase_us)
        return self.begin_us + after_us // 1000 * 1000

    def position_at(self, time_us: int) -> int:
        """Return how many trades come before a time."""
        position = max(0, int((time_us - self.begin_us - self._phase_us) / self._interval_us))
        while self._time_us(position) < time_us:
            position += 1
        while position > 0 and self._time_us(position - 1) >= time_us:
            position -= 1
        return position

    def position_of(self, trade_id: int) -> int:
        """Return the position of a trade id."""
        return max(0, trade_id - FIRST_ID)

    def rows(self, first: int, end: int) -> Sequence[TradeRow]:
        """Return the trades at positions [first, end)."""
        return [
            TradeRow(FIRST_ID + n, self._time_us(n), *self._cycle[n % CYCLE])
            for n in range(max(first, 0), end)
        ]

    def settled_us(self, close_us: int) -> int:
        """Return the close: times never step back here."""
        return close_us

    def own_candle(self, open_time_us: int) -> RecordedCandle | None:
        """Return None: the candles are sums of the trades."""
        return None

    def native_id(self, row: TradeRow) -> str | None:
        """Return None: ids are numbers here."""
        return None


def made_up_cycle(begin_us: int) -> list[tuple[str, str, str]]:
    """Return prices, amounts and sides of a made-up market; to make them takes a while."""
    model = SyntheticMarket("BTC/USDT", begin_us=begin_us, trades_per_minute=CYCLE // 10)
    return [(row.price, row.amount, row.side) for row in model.rows(0, CYCLE)]


async def serve(symbols: list[str], trades_per_s: float) -> None:
    """Serve until killed. The markets begin two minutes ago, so that the first minute is whole."""
    now_us = time.time_ns() // 1000
    begin_us = now_us - now_us % MINUTE_US - 2 * MINUTE_US
    interval_us = 1e6 * len(symbols) / trades_per_s
    cycle = made_up_cycle(begin_us)
    markets = [
        SteadyMarket(symbol, begin_us, interval_us, interval_us * number / len(symbols), cycle)
        for number, symbol in enumerate(symbols)
    ]
    async with ReplayExchange(markets, live=True) as exchange:
        print(exchange.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    names = [f"S{number:04}/USDT" for number in range(int(sys.argv[1]))]
    uvloop.run(serve(names, float(sys.argv[2])))
