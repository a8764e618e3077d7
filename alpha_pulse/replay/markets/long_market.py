"""A market of years: four trades a minute by formula, so that any page of its past is cheap.

A trade and a candle follow from (seed, symbol, minute) by arithmetic; nothing is kept. The exchange
may have been halted for some time: then there are no trades, no candles, and ids run on across.
"""

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from decimal import Decimal

from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.replay.markets.candles import ExchangeCandle
from alpha_pulse.replay.markets.market import Instrument, RecordedCandle, TradeRow

TRADES_PER_MINUTE = 4
_SECONDS = (1, 17, 33, 52)
_FIRST_ID = 1_000_001
_TICKS = 10**2
_LOTS = 10**5


class LongMarket:
    """One symbol's trades and candles from begin_us to end_us.

    halts: stretches `[start_us, end_us)` of whole minutes in which nothing was traded, ascending.
    broken: open times of minutes whose own candle opens above its high, as exchanges serve some.
    """

    def __init__(
        self,
        symbol: str,
        seed: int = 1,
        *,
        begin_us: int,
        end_us: int,
        halts: Sequence[tuple[int, int]] = (),
        broken: Iterable[int] = (),
    ) -> None:
        for time_us in (begin_us, end_us, *(edge for halt in halts for edge in halt)):
            if time_us % MINUTE_US:
                raise ConfigError(f"expected begin, end and halts on a minute, found {time_us}")
        self.instrument = Instrument(symbol, price_digits=2, amount_digits=5)
        self.begin_us = begin_us
        self.end_us: int | None = end_us
        self.complete_from_us = begin_us
        self._end_us = end_us
        self._halts = sorted(halts)
        self._broken = frozenset(broken)
        self._seed = zlib.crc32(f"{seed}:{symbol}".encode())
        self._base = 1_000_000 + self._seed % 5_000_000
        # Minutes traded before each halt, and where each halt ends: minute numbers both.
        self._starts = [(start - begin_us) // MINUTE_US for start, _ in self._halts]
        self._lengths = [(end - start) // MINUTE_US for start, end in self._halts]

    # --- what the market protocol asks --------------------------------------------------------

    def position_at(self, time_us: int) -> int:
        """Return how many trades the exchange printed before a time."""
        time_us = min(max(time_us, self.begin_us), self._end_us)
        minute, rest_us = divmod(time_us - self.begin_us, MINUTE_US)
        position = self._traded_before(minute) * TRADES_PER_MINUTE
        if rest_us and not self._is_halted(minute):
            position += sum(second * 1_000_000 < rest_us for second in _SECONDS)
        return position

    def position_of(self, trade_id: int) -> int:
        """Return the position of a trade id."""
        return max(0, trade_id - _FIRST_ID)

    def rows(self, first: int, end: int) -> Sequence[TradeRow]:
        """Return the trades at positions [first, end)."""
        first, end = max(first, 0), min(end, self.position_at(self._end_us))
        found: list[TradeRow] = []
        for traded in range(first // TRADES_PER_MINUTE, -(-end // TRADES_PER_MINUTE)):
            found += self._minute_rows(self._minute_of(traded), traded * TRADES_PER_MINUTE)
        skip = first % TRADES_PER_MINUTE
        return found[skip : skip + max(0, end - first)]

    def settled_us(self, close_us: int) -> int:
        """Return the close: times never step back here."""
        return close_us

    def own_candle(self, open_time_us: int) -> RecordedCandle | None:
        """Return None: `closed_candle` says it all."""
        return None

    def native_id(self, row: TradeRow) -> str | None:
        """Return None: ids are numbers here."""
        return None

    def closed_candle(self, open_us: int) -> ExchangeCandle | None:
        """Return the final candle of a minute; None in a halt and outside the market."""
        if not self.begin_us <= open_us < self._end_us:
            return None
        minute = (open_us - self.begin_us) // MINUTE_US
        if self._is_halted(minute):
            return None
        prices, lots = self._minute(minute)
        costs = [price * lot for price, lot in zip(prices, lots)]  # noqa: B905 - four each
        first_id = _FIRST_ID + self._traded_before(minute) * TRADES_PER_MINUTE
        return ExchangeCandle(
            open_us,
            MINUTE_US,
            _price(max(prices) + 1 if open_us in self._broken else prices[0]),
            _price(max(prices)),
            _price(min(prices)),
            _price(prices[-1]),
            _amount(sum(lots)),
            Decimal(sum(costs)).scaleb(-7),
            Decimal(lots[0] + lots[2]).scaleb(-5),
            Decimal(costs[0] + costs[2]).scaleb(-7),
            TRADES_PER_MINUTE,
            first_id,
            first_id + TRADES_PER_MINUTE - 1,
        )

    # --- minutes ------------------------------------------------------------------------------

    def _minute(self, minute: int) -> tuple[list[int], list[int]]:
        # Prices in ticks, amounts in lots. The price wanders: slow waves of whole numbers.
        noise = (minute * 2_654_435_761 + self._seed) & 0xFFFFFFFF
        level = self._base + abs(minute % 20_000 - 10_000) * 7 + abs(minute % 700 - 350) * 11
        prices = [level + (noise >> shift & 0xFF) for shift in (0, 5, 11, 17)]
        lots = [1 + (noise >> shift & 0x3FFF) for shift in (2, 8, 13, 18)]
        return prices, lots

    def _minute_rows(self, minute: int, position: int) -> list[TradeRow]:
        prices, lots = self._minute(minute)
        open_us = self.begin_us + minute * MINUTE_US
        return [
            TradeRow(
                _FIRST_ID + position + place,
                open_us + second * 1_000_000,
                _price(price),
                _amount(lot),
                "buy" if place % 2 == 0 else "sell",
            )
            for place, (second, price, lot) in enumerate(zip(_SECONDS, prices, lots, strict=True))
        ]

    def _is_halted(self, minute: int) -> bool:
        place = bisect_right(self._starts, minute) - 1
        return place >= 0 and minute < self._starts[place] + self._lengths[place]

    def _traded_before(self, minute: int) -> int:
        if not self._halts:
            return minute
        halted = sum(
            min(max(minute - start, 0), length)
            for start, length in zip(self._starts, self._lengths, strict=True)
        )
        return minute - halted

    def _minute_of(self, traded: int) -> int:
        minute = traded
        for start, length in zip(self._starts, self._lengths, strict=True):
            if minute < start:
                break
            minute += length
        return minute


def _price(ticks: int) -> str:
    return f"{ticks // _TICKS}.{ticks % _TICKS:02d}000000"


def _amount(lots: int) -> str:
    return f"{lots // _LOTS}.{lots % _LOTS:05d}000"
