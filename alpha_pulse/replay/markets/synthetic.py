"""A synthetic market without end: seeded, the same wherever it is entered, in bounded memory.

Time is cut into blocks of ten minutes. Each block holds the same number of trades, so that the
position of a block's first trade is plain arithmetic; within the block a random share goes to each
minute (none to a quiet one, many to a burst). The price walks on the tick grid from one anchor to
the next. All of it follows from (seed, symbol, begin, block), hence history equals what was
streamed.
"""

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.replay.markets.market import Instrument, RecordedCandle, TradeRow

BLOCK_MINUTES = 10
BLOCK_US = BLOCK_MINUTES * MINUTE_US
BLOCKS_CACHED_MAX = 24
# Fixed, so that a restarted exchange goes on with the same ids: 2024-01-01.
BEGIN_US = 1_704_067_200_000_000
TRADES_PER_MINUTE = 240

# Whole units of the quote; the digits are the tick's.
_PRICES = {"BTC": (60_000, 2), "ETH": (3_000, 2), "SOL": (150, 2), "BNB": (600, 2), "XRP": (1, 4)}


@dataclass(frozen=True, slots=True)
class _Block:
    rows: tuple[TradeRow, ...]
    times_us: tuple[int, ...]


class SyntheticMarket:
    """One symbol's invented trades with consecutive ids, from begin_us, without end or until one.

    trades_per_minute: on average; a minute may have none or several times as many.
    """

    def __init__(
        self,
        symbol: str,
        seed: int = 1,
        *,
        begin_us: int = BEGIN_US,
        end_us: int | None = None,
        trades_per_minute: int = TRADES_PER_MINUTE,
        quiet_minutes: float = 0.08,
    ) -> None:
        if begin_us % MINUTE_US:
            raise ConfigError(f"expected begin_us on a minute, found {begin_us}")
        if trades_per_minute < 1:
            raise ConfigError(f"expected at least 1 trade a minute, found {trades_per_minute}")
        self._key = f"{seed}:{symbol}:{begin_us}"
        known = Random(self._key)
        price, digits = _PRICES.get(symbol.split("/")[0], (known.randrange(2, 500), 3))
        self._price_ticks = price * 10**digits
        self._block_trades = trades_per_minute * BLOCK_MINUTES
        self._quiet_minutes = quiet_minutes
        self._blocks: OrderedDict[int, _Block] = OrderedDict()
        self._phases = [known.random() * math.tau for _ in range(3)]
        self._first_id = known.randrange(1_000, 9_000) * 1_000 + 1
        self.instrument = Instrument(symbol, price_digits=digits, amount_digits=5)
        self.begin_us = begin_us
        self.end_us = end_us
        self.complete_from_us = begin_us

    def position_at(self, time_us: int) -> int:
        """Return how many trades the exchange printed before a time."""
        if self.end_us is not None:
            time_us = min(time_us, self.end_us)
        if time_us <= self.begin_us:
            return 0
        number, offset_us = divmod(time_us - self.begin_us, BLOCK_US)
        first = number * self._block_trades
        return first + (bisect_left(self._block(number).times_us, time_us) if offset_us else 0)

    def position_of(self, trade_id: int) -> int:
        """Return the position of a trade id."""
        return max(0, trade_id - self._first_id)

    def rows(self, first: int, end: int) -> Sequence[TradeRow]:
        """Return the trades at positions [first, end)."""
        first = max(first, 0)
        if self.end_us is not None:
            end = min(end, self.position_at(self.end_us))
        found: list[TradeRow] = []
        while first < end:
            number, place = divmod(first, self._block_trades)
            part = self._block(number).rows[place : place + end - first]
            if not found and len(part) == end - first:
                return part
            found.extend(part)
            first += len(part)
        return found

    def settled_us(self, close_us: int) -> int:
        """Return the close: times never step back here."""
        return close_us

    def own_candle(self, open_time_us: int) -> RecordedCandle | None:
        """Return None: the candles are sums of the trades."""
        return None

    def native_id(self, row: TradeRow) -> str | None:
        """Return None: ids are numbers here."""
        return None

    def _block(self, number: int) -> _Block:
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = self._make(number)
            if len(self._blocks) > BLOCKS_CACHED_MAX:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return block

    def _make(self, number: int) -> _Block:
        random = Random(f"{self._key}:{number}")
        times_us = self._times(random, self.begin_us + number * BLOCK_US)
        ticks = self._walk(random, number, len(times_us))
        digits = self.instrument.price_digits
        scale = 10**digits
        first_id = self._first_id + number * self._block_trades
        rows = []
        previous = ticks[0]
        side = "buy"
        zeros = "0" * (8 - digits)
        for place, (time_us, tick) in enumerate(zip(times_us, ticks, strict=True)):
            chance = random.random()
            if tick != previous:
                side = "buy" if tick > previous else "sell"
                previous = tick
            elif chance < 0.1:
                side = "sell" if side == "buy" else "buy"
            # Most trades are small and a few are large: amounts of 0.00001 to 3 units.
            lots = int(10 ** (5.5 * random.random() ** 1.7))
            rows.append(
                TradeRow(
                    first_id + place,
                    time_us,
                    f"{tick // scale}.{tick % scale:0{digits}d}{zeros}",
                    f"{lots // 100_000}.{lots % 100_000:05d}000",
                    side,
                )
            )
        return _Block(tuple(rows), tuple(times_us))

    def _times(self, random: Random, begin_us: int) -> list[int]:
        # A quiet minute weighs nothing and a burst several times the usual.
        weights = [
            0.0 if random.random() < self._quiet_minutes else random.lognormvariate(0, 0.6)
            for _ in range(BLOCK_MINUTES)
        ]
        if not any(weights):
            weights[random.randrange(BLOCK_MINUTES)] = 1.0
        minutes = random.choices(range(BLOCK_MINUTES), weights, k=self._block_trades)
        counts = [minutes.count(minute) for minute in range(BLOCK_MINUTES)]
        times_ms: list[int] = []
        for minute, count in enumerate(counts):
            left = count
            while left > 0:
                # One large order meets several resting ones in the same millisecond.
                size = min(left, 1 if random.random() < 0.4 else random.randrange(2, 12))
                times_ms.extend([minute * 60_000 + random.randrange(60_000)] * size)
                left -= size
        times_ms.sort()
        return [begin_us + time_ms * 1_000 for time_ms in times_ms]

    def _walk(self, random: Random, number: int, count: int) -> list[int]:
        # A random walk bent so that it begins and ends on the block's anchors.
        begin, end = self._anchor(number), self._anchor(number + 1)
        step_ticks = max(self._price_ticks * 2e-5, 1.0)
        walk = [0.0]
        for _ in range(count):
            # A third of the trades move the price.
            moved = random.random() < 0.35
            walk.append(walk[-1] + (random.gauss(0, step_ticks) if moved else 0.0))
        drift = (end - begin - walk[-1]) / count
        return [max(1, round(begin + walk[i] + drift * i)) for i in range(count)]

    def _anchor(self, number: int) -> int:
        # Slow waves with noise: the price wanders and never runs away.
        waves = sum(
            size * math.sin(number / length + phase)
            for size, length, phase in zip(
                (0.08, 0.02, 0.006), (900.0, 97.0, 11.0), self._phases, strict=True
            )
        )
        noise = Random(f"{self._key}:anchor:{number}").gauss(0, 0.0008)
        return max(1, int(Decimal(self._price_ticks) * Decimal(1 + waves + noise)))
