"""Settings that change on data in use (rule 25): no wrong candle, whatever is turned on or off.

The oracle is a kernel that had today's settings from the log's beginning: each version that is
published equals the newest that the oracle knew at that record.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, HistoryMarker, Trade
from alpha_pulse.contracts.market import (
    MINUTE_US,
    PUBLISHED_TIMEFRAMES,
    SECOND_US,
    TIMEFRAMES,
    message_key,
)
from alpha_pulse.processors.candles import rules
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import StateWriter, restore
from alpha_pulse.processors.wire.records import EncodedRecords

# 2025-11-24 00:00 UTC, a Monday: every timeframe opens here.
MONDAY_US = 1_763_942_400_000_000
KAFKA_MS = MONDAY_US // 1000 + 40_000_000
CONFIG = ProcessorConfig(dead_letter_run_max=10**6, dead_letter_ratio_max=1.0)
ALL = ("1s", *PUBLISHED_TIMEFRAMES)
COVERAGES = ("contiguous", "exchange", "unverified", "partial", "gap")

Log = list[tuple[bytes, bytes]]
# Job, timeframe and open time of a candle; its symbol.
Window = tuple[bytes, str | None, str, int]
thorough = settings(max_examples=25, deadline=None, print_blob=True)
seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Settings:
    """What a start was configured with."""

    names: tuple[str, ...] = ALL[1:]
    grace_s: float = 2.0
    closed_candle_keep_s: float = 600.0

    def kernel(self) -> Kernel:
        with timeframes(self.names):
            return Kernel(
                replace(
                    CONFIG, one_second_candles="1s" in self.names, grace_s=self.grace_s,
                    closed_candle_keep_s=self.closed_candle_keep_s, dedupe_window_s=60.0,
                ),
                "ingest.events.v1", 0,
            )  # fmt: skip


@contextmanager
def timeframes(names: tuple[str, ...]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "PUBLISHED_TIMEFRAMES", tuple(name for name in names if name != "1s"))
        yield


# --- logs -----------------------------------------------------------------------------------------


class Story:
    """A symbol's events around Monday 00:00, in order of arrival."""

    def __init__(self, random: Random, exchange: str, step_us: int, count: int) -> None:
        self.random, self.exchange = random, exchange
        self.market: dict[str, Any] = {"exchange": exchange, "symbol": "BTC/USDT"}
        self.key = message_key(exchange, "BTC/USDT")
        self.events: list[tuple[int, Any]] = []
        self.number = random.randrange(1, 1000)
        time_us = MONDAY_US - count * step_us * random.randrange(1, 9) // 10
        for _ in range(count):
            time_us += random.choice((random.randrange(step_us), random.randrange(3 * step_us)))
            time_us -= time_us % (SECOND_US // 4)
            self.step(time_us, step_us)
        if random.random() < 0.5:
            self.history(time_us, step_us)

    def trade(self, trade_id: str, time_us: int, job: str | None = None) -> Trade:
        rng = self.random
        price = rng.choice(("100", "100.0", "101.5", "99.25", "102"))
        return Trade(
            **self.market, trade_id=trade_id, price=price, amount=rng.choice(("1", "0.125", "2.0")),
            side=rng.choice(("buy", "sell", "unknown")), trade_time_us=time_us,
            receive_time_us=time_us, job=job,
        )  # fmt: skip

    def step(self, time_us: int, step_us: int) -> None:
        rng = self.random
        kind = rng.randrange(12)
        if kind == 0:
            state: Any = rng.choice(("live", "live", "disconnected", "halted"))
            self.put(time_us, Heartbeat(**self.market, complete_until_us=time_us, state=state))
            return
        self.number += 1
        text = str(self.number)
        if self.exchange == "bybit":
            text = f"{self.number * 0x9E3779B1 % 2**32:08x}-{self.number}"
        trade = self.trade(text, time_us)
        if kind in (1, 2):  # comes later, within the time that closed candles are kept
            self.put(time_us + rng.randrange(min(4 * step_us, 300 * SECOND_US)), trade)
        elif kind == 3:
            self.put(time_us, trade)
            self.put(time_us + rng.randrange(2 * step_us), trade)
        elif kind == 4 and self.exchange != "bybit":  # never comes
            self.put(time_us, self.gap(text, time_us - step_us, time_us))
            if rng.random() < 0.5:
                self.put(
                    time_us + step_us, self.gap(text, time_us - step_us, time_us, "unfillable")
                )
        else:
            self.put(time_us, trade)

    def gap(self, text: str, start_us: int, end_us: int, status: Any = "open") -> Gap:
        return Gap(
            **self.market, first_trade_id=text, last_trade_id=text, start_time_us=start_us,
            end_time_us=end_us, status=status, reason="test",
        )  # fmt: skip

    def history(self, until_us: int, step_us: int) -> None:
        """A job of trades, and one of candles, that run beside the live stream."""
        rng = self.random
        first_us = MONDAY_US - 5 * step_us
        first_us -= first_us % MINUTE_US
        end_us = first_us + 12 * step_us
        end_us -= end_us % MINUTE_US
        at_us = until_us - 30 * step_us
        for job, timeframe in (("trades", None), ("candles", "1m")):
            marker = HistoryMarker(
                **self.market, job=job, edge="start", timeframe=timeframe, start_time_us=first_us,
                end_time_us=end_us,
            )  # fmt: skip
            self.put(at_us, marker)
        count, minutes = 40, range(first_us, end_us, MINUTE_US)
        for number in range(count):
            time_us = first_us + (end_us - first_us) * number // count
            trade = self.trade(str(number + 1), time_us, "trades")
            self.put(at_us + (number + 1) * step_us // 2, trade)
        for number, open_us in enumerate(minutes):
            if rng.random() < 0.95:
                self.put(at_us + 1 + number * 20 * step_us // len(minutes), self.candle(open_us))

    def candle(self, open_us: int) -> Candle:
        return Candle(
            **self.market, timeframe="1m", open_time_us=open_us, open="100", high="102", low="99.5",
            close=self.random.choice(("101", "100.5")), volume="2.5", quote_volume="250",
            buy_volume=None, trade_count=3, first_trade_id=None, last_trade_id=None, revision=0,
            source="exchange", coverage="exchange", job="candles",
        )  # fmt: skip

    def put(self, at_us: int, event: Any) -> None:
        self.events.append((at_us, event))

    def timed(self) -> list[tuple[int, bytes, bytes]]:
        return [(at_us, self.key, encode(event)) for at_us, event in self.events]


def log_of(random: Random, step_us: int, count: int, exchanges: tuple[str, ...]) -> Log:
    rows = [row for name in exchanges for row in Story(random, name, step_us, count).timed()]
    rows.sort(key=lambda row: row[0])
    return [(key, value) for _, key, value in rows]


# --- running --------------------------------------------------------------------------------------


def feed(kernel: Kernel, log: Log, start: int, stop: int) -> list[tuple[int, Candle]]:
    """Return the candles of a stretch of the log, and the offset of the record that caused each."""
    keys, values = zip(*log[start:stop], strict=True)
    kernel.process(EncodedRecords.of(range(start, stop), keys, values), KAFKA_MS, stop)
    candles = []
    for topic, records in kernel.drain_outputs().items():
        if topic.startswith("market.candles."):
            candles += [decode_event(value) for _, value in records]
    return [(candle.revision % 2**44, candle) for candle in candles if isinstance(candle, Candle)]


def window_of(candle: Candle) -> Window:
    key = message_key(candle.exchange, candle.symbol)
    return key, candle.job, candle.timeframe, candle.open_time_us


def oracle(log: Log, chosen: Settings) -> dict[Window, list[tuple[int, Candle]]]:
    found: dict[Window, list[tuple[int, Candle]]] = {}
    for offset, candle in feed(chosen.kernel(), log, 0, len(log)):
        found.setdefault(window_of(candle), []).append((offset, candle))
    return found


def run(
    log: Log, starts: list[tuple[int, Settings]], record_bytes_max: int
) -> Iterator[tuple[int, Candle, Settings]]:
    """Yield what is published, with its offset and the settings of that time."""
    stored: dict[bytes, bytes] = {}
    for place, (start, chosen) in enumerate(starts):
        stop = starts[place + 1][0] if place + 1 < len(starts) else len(log)
        kernel, writer = chosen.kernel(), StateWriter(record_bytes_max)
        kernel.state_record_bytes_max = record_bytes_max
        if stored:
            writer = restore(kernel, stored)
        assert kernel.position == start
        middle = (start + stop) // 2
        for first, last in ((start, middle), (middle, stop)):
            if last > first:
                for offset, candle in feed(kernel, log, first, last):
                    yield offset, candle, chosen
                stored.update(writer.snapshot(kernel))


def same_values(a: Candle, b: Candle) -> bool:
    changes: dict[str, Any] = {"revision": 0, "coverage": "gap"}
    fields = [name for name in a.__struct_fields__ if name not in changes]
    return all(getattr(a, name) == getattr(b, name) for name in fields)


def starts_of(
    random: Random, log: Log, choices: list[Settings]
) -> list[tuple[int, Settings]]:  # fmt: skip
    cuts = sorted({0, *(random.randrange(1, len(log)) for _ in range(random.randrange(1, 5)))})
    return [(cut, random.choice(choices)) for cut in cuts]


def check(log: Log, starts: list[tuple[int, Settings]], record_bytes_max: int) -> None:
    oracles = {chosen: oracle(log, chosen) for _, chosen in starts}
    newest: dict[Window, Candle] = {}
    for offset, candle, chosen in run(log, starts, record_bytes_max):
        window = window_of(candle)
        known = [c for at, c in oracles[chosen].get(window, []) if at <= offset]
        assert known, (window, offset)
        assert same_values(candle, known[-1]), (window, offset, known[-1], candle)
        # Where a second may be unknown and its minute is not, a base may say what the other says.
        said = {
            [c.coverage for at, c in found.get(window, []) if at <= offset][-1]
            for found in oracles.values()
            if any(at <= offset for at, _ in found.get(window, []))
        }
        assert candle.coverage in said, (window, offset, known[-1], candle)
        newest[window] = candle
    # Nothing is missing that was begun and ended under the last settings.
    start, chosen = starts[-1]
    for window, versions in oracles[chosen].items():
        offset, candle = versions[-1]
        if offset < start:
            continue
        key, job, name, open_us = window
        if window not in newest:
            duration_us = TIMEFRAMES[name].duration_us
            before = time_before(log[:start], key, job)
            assert before is not None, window
            assert open_us <= before, (window, before, duration_us)
        else:
            assert same_values(newest[window], candle), (window, candle, newest[window])


def time_before(log: Log, key: bytes, job: str | None) -> int | None:
    """Return the newest event time of a stream."""
    times = []
    for found, value in log:
        event: Any = decode_event(value)
        if found == key and event.job == job:
            if isinstance(event, Trade):
                times.append(event.trade_time_us)
            elif isinstance(event, Heartbeat):
                times.append(event.complete_until_us)
            elif isinstance(event, Candle):
                times.append(event.open_time_us)
    return max(times, default=None)


# --- properties -----------------------------------------------------------------------------------


def without(*names: str) -> Settings:
    return Settings(tuple(name for name in ALL[1:] if name not in names))


@thorough
@given(seeds, st.sampled_from([2_000, 512 * 1024]))
def test_timeframes_come_and_go_and_no_candle_is_wrong(seed: int, record_bytes_max: int) -> None:
    random = Random(seed)
    step_us = random.choice((20 * SECOND_US, 3 * MINUTE_US, 40 * MINUTE_US))
    log = log_of(random, step_us, random.randrange(5, 120), ("binance", "bybit"))
    choices = [
        without(),
        without("2h"),
        without("4h"),
        without("30m", "1d"),
        without("5m"),
        without("1w", "15m"),
    ]
    check(log, starts_of(random, log, choices), record_bytes_max)


@thorough
@given(seeds, st.sampled_from([2_000, 512 * 1024]))
def test_seconds_come_and_go_and_no_candle_is_wrong(seed: int, record_bytes_max: int) -> None:
    random = Random(seed)
    step_us = random.choice((SECOND_US, 5 * SECOND_US, 20 * SECOND_US))
    log = log_of(random, step_us, random.randrange(5, 80), ("binance",))
    choices = [without(), Settings(ALL), Settings(tuple(n for n in ALL if n != "30m"))]
    check(log, starts_of(random, log, choices), record_bytes_max)
