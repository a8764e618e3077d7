"""The trades that every processor gets, and the candles that they must give.

Deterministic: prices walk in ticks, amounts are exponential, 0.5 % of the trades come up to two
seconds late and 0.1 % twice. Numbers of the reference are integers of 10^-8.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from alpha_pulse.contracts.market import MINUTE_US, TIMEFRAMES, message_key

START_US = 1_763_942_400_000_000
HOURS = 3
LATE, TWICE = 0.005, 0.001
CHECKED = ("1m", "5m", "15m", "30m", "1h", "4h", "1d")
GRACE_US = 2_000_000
# open, high, low, close, volume, count
Numbers = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Workload:
    """Records in order of arrival, and the closed candles: (key, timeframe, open) to numbers."""

    records: list[tuple[bytes, bytes]]
    trades: int
    candles: dict[tuple[bytes, str, int], Numbers]


def make_workload(trades: int, symbols: int, seed: int = 7) -> Workload:
    """Return the workload of so many different trades."""
    rng = random.Random(seed)
    keys = [message_key("binance", f"C{number}/USDT") for number in range(symbols)]
    prices = [rng.randint(10_000, 10_000_000) for _ in keys]
    ids = [3_000_000_000 + 1000 * number for number in range(symbols)]
    weights = [1 / (rank + 1) ** 0.6 for rank in range(symbols)]
    picks = rng.choices(range(symbols), weights, k=trades)
    times = sorted(rng.randrange(HOURS * 3_600_000) for _ in range(trades))
    minutes: dict[tuple[int, int], list[int]] = {}
    last_us = [0] * symbols
    arriving: list[tuple[float, int, int, bytes]] = []
    for number, (pick, time_ms) in enumerate(zip(picks, times, strict=True)):
        ids[pick] += 1
        if rng.random() < 0.4:
            prices[pick] = max(100, prices[pick] + rng.choice((-3, -2, -1, 1, 2, 3)))
        price, amount = prices[pick], int(rng.expovariate(1 / 50_000)) + 1
        time_us = START_US + time_ms * 1000
        value = (
            f'{{"event":"trade","exchange":"binance","symbol":"C{pick}/USDT",'
            f'"trade_id":"{ids[pick]}","price":"{price // 100}.{price % 100:02d}000000",'
            f'"amount":"{amount // 100_000}.{amount % 100_000:05d}000",'
            f'"side":"{"buy" if rng.random() < 0.5 else "sell"}",'
            f'"trade_time_us":{time_us},"receive_time_us":{time_us + 37_000}}}'
        ).encode()
        # A symbol's first trade is on time: what lies before it is not followed.
        is_late = last_us[pick] and rng.random() < LATE
        at = time_ms + (rng.uniform(1, 1999) if is_late else 0.0)
        arriving.append((at, number, pick, value))
        if rng.random() < TWICE:
            arriving.append((at + rng.uniform(0, 1000), number, pick, value))
        _count(minutes, pick, time_us // MINUTE_US * MINUTE_US, price * 10**6, amount * 1000)
        last_us[pick] = time_us
    arriving.sort()
    candles = dict(_closed(minutes, last_us, keys))
    return Workload([(keys[pick], value) for _, _, pick, value in arriving], trades, candles)


def _count(
    minutes: dict[tuple[int, int], list[int]], pick: int, open_us: int, price: int, amount: int
) -> None:
    found = minutes.get((pick, open_us))
    if found is None:
        minutes[pick, open_us] = [price, price, price, price, amount, 1]
        return
    found[1] = max(found[1], price)
    found[2] = min(found[2], price)
    found[3] = price
    found[4] += amount
    found[5] += 1


def _closed(
    minutes: dict[tuple[int, int], list[int]], last_us: list[int], keys: list[bytes]
) -> Iterator[tuple[tuple[bytes, str, int], Numbers]]:
    for name in CHECKED:
        timeframe = TIMEFRAMES[name]
        windows: dict[tuple[int, int], list[int]] = {}
        for (pick, minute_us), part in sorted(minutes.items()):
            window = windows.setdefault((pick, timeframe.open_time_us(minute_us)), [])
            if not window:
                window += part
                continue
            window[1], window[2] = max(window[1], part[1]), min(window[2], part[2])
            window[3] = part[3]
            window[4] += part[4]
            window[5] += part[5]
        for (pick, open_us), numbers in windows.items():
            if open_us + timeframe.duration_us + GRACE_US <= last_us[pick]:
                o, h, low, c, v, n = numbers
                yield (keys[pick], name, open_us), (o, h, low, c, v, n)


def numbers_of(candle: dict[str, object]) -> Numbers:
    """Return a published candle's numbers; decimal text and integers of 10^-8 are both read."""

    def units(value: object) -> int:
        if isinstance(value, str):
            whole, _, fraction = value.partition(".")
            return int(whole + fraction[:8].ljust(8, "0"))
        return round(value * 10**8) if isinstance(value, float) else int(str(value))

    fields = ("open", "high", "low", "close", "volume")
    o, h, low, c, v = (units(candle[name]) for name in fields)
    return o, h, low, c, v, int(str(candle["trade_count"]))


def compare(workload: Workload, published: dict[str, list[tuple[bytes, bytes]]]) -> tuple[int, int]:
    """Return how many of the expected candles are equal, and how many are expected.

    published: records per timeframe, in order; the last one of a window stands.
    """
    newest: dict[tuple[bytes, str, int], Numbers] = {}
    for name, records in published.items():
        for key, value in records:
            candle = json.loads(value)
            newest[key, name, candle["open_time_us"]] = numbers_of(candle)
    names = set(published)
    expected = {w: numbers for w, numbers in workload.candles.items() if w[1] in names}
    return sum(newest.get(w) == numbers for w, numbers in expected.items()), len(expected)
