"""Writes what commit 4d9f32e leaves behind, as fixtures: `4d9f32e/processor_state.msgpack.gz`.

Run it with a plain checkout of that commit, whose modules it imports, from that checkout:

    git worktree add /tmp/4d9f32e 4d9f32e && cd /tmp/4d9f32e && make setup
    .venv/bin/python PATH/tests/upgrade/write_4d9f32e.py PATH/tests/upgrade/4d9f32e

It gives the same bytes each time. A log leads to a cut; there the state is written, and the records
after it are processed by the same code: what comes out then is what today's code must give.
"""

import gzip
import hashlib
import sys
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, HistoryMarker, Trade
from alpha_pulse.contracts.market import HOUR_US, MINUTE_US, SECOND_US
from alpha_pulse.processors.kernel import Kernel  # type: ignore[attr-defined]
from alpha_pulse.processors.state import StateWriter  # type: ignore[attr-defined]
from alpha_pulse.processors.wire import EncodedRecords  # type: ignore[attr-defined]

# 2025-11-24 00:00 UTC, a Monday: every timeframe closes here, an hour after the cut.
MONDAY_US = 1_763_942_400_000_000
START_US, END_US = MONDAY_US - 127 * MINUTE_US, MONDAY_US + 23 * MINUTE_US
CUT_US = MONDAY_US - 40 * MINUTE_US + 20 * SECOND_US
KAFKA_MS = MONDAY_US // 1000 + 3_600_000
BATCH = 64
SECONDS_TOPIC = "market.candles.1s.v1"

Timed = tuple[int, Any]  # when it arrives, and the event


class Market:
    """One symbol's events."""

    def __init__(self, seed: int, exchange: str, symbol: str) -> None:
        self.random = Random(seed)
        self.names: dict[str, Any] = {"exchange": exchange, "symbol": symbol}
        self.price = self.random.randrange(2_000, 90_000)
        self.events: list[Timed] = []

    def trade(self, trade_id: str, time_us: int, late_us: int = 0, job: str | None = None) -> None:
        rng = self.random
        self.price += rng.choice((-2, -1, 0, 1, 2))
        price = f"{self.price // 100}.{self.price % 100:02}" + rng.choice(("", "", "0"))
        trade = Trade(
            **self.names, trade_id=trade_id, price=price,
            amount=f"{rng.randrange(4)}.{rng.randrange(1, 10**8):08}",
            side=rng.choice(("buy", "sell", "sell", "buy", "buy", "unknown")),
            trade_time_us=time_us, receive_time_us=time_us + 37_000, job=job,
        )  # fmt: skip
        self.events.append((time_us + late_us, trade))

    def heartbeat(self, time_us: int, state: Any = "live") -> None:
        beat = Heartbeat(**self.names, complete_until_us=time_us, state=state)
        self.events.append((time_us, beat))

    def gap(self, first: int | None, last: int | None, start_us: int, end_us: int, at_us: int,
            status: Any = "open") -> None:  # fmt: skip
        gap = Gap(
            **self.names, first_trade_id=None if first is None else str(first),
            last_trade_id=None if last is None else str(last),
            start_time_us=start_us, end_time_us=end_us, status=status, reason="the fixture says so",
        )  # fmt: skip
        self.events.append((at_us, gap))

    def candle(self, open_us: int, at_us: int, job: str | None = None) -> None:
        rng = self.random
        low = self.price + rng.randrange(50)
        texts = [f"{n // 100}.{n % 100:02}" for n in (low + 3, low + 9, low, low + 5)]
        candle = Candle(
            **self.names, timeframe="1m", open_time_us=open_us, open=texts[0], high=texts[1],
            low=texts[2], close=texts[3], volume=f"{rng.randrange(1, 99)}.50", quote_volume="812.5",
            buy_volume=None, trade_count=rng.randrange(1, 9), first_trade_id=None,
            last_trade_id=None, revision=0, source="exchange", coverage="exchange", job=job,
        )  # fmt: skip
        self.events.append((at_us, candle))

    def history(self, edge: Any, job: str, start_us: int, end_us: int, at_us: int,
                timeframe: str | None = None) -> None:  # fmt: skip
        marker = HistoryMarker(
            **self.names, job=job, edge=edge, timeframe=timeframe, start_time_us=start_us,
            end_time_us=end_us,
        )  # fmt: skip
        self.events.append((at_us, marker))


def minutes() -> range:
    return range(START_US, END_US, MINUTE_US)


def plain() -> Market:
    """Trades in every minute, which the compiled loop takes and closes."""
    market = Market(1, "binance", "BTC/USDT")
    number = 9_000
    for open_us in minutes():
        offsets = sorted(market.random.sample(range(1, 59), market.random.choice((1, 2, 2))))
        for offset in offsets:
            number += 1
            market.trade(str(number), open_us + offset * SECOND_US)
    return market


def candle_history() -> Market:
    """A job of candles that the cut divides."""
    market = Market(6, "okx", "BTC/USDT")
    for open_us in minutes()[::10]:
        market.trade(str(open_us // MINUTE_US), open_us + 4 * SECOND_US)
    start_us = MONDAY_US - 4 * HOUR_US
    end_us = start_us + 3 * HOUR_US
    step_us = (CUT_US - START_US) // 400
    at_us = CUT_US - 100 * step_us
    market.history("start", "candles-1", start_us, end_us, at_us - 1, "1m")
    for place in range(180):
        market.candle(start_us + place * MINUTE_US, at_us + place * step_us, "candles-1")
    market.history("end", "candles-1", start_us, end_us, at_us + 181 * step_us, "1m")
    return market


def with_holes() -> Market:
    """Holes that are open at the cut: one is filled, one given up, one stays; late trades."""
    market = Market(2, "kraken", "ETH/EUR")
    number, held = 500, []
    for place, open_us in enumerate(minutes()):
        market.heartbeat(open_us)
        for offset in (7, 31):
            number += 1
            hole = (open_us - CUT_US) // MINUTE_US
            if hole in (-50, -30, -29, -9):
                held.append((number, open_us + offset * SECOND_US, hole))
            elif place % 37 or offset != 31:
                late_us = 80 * SECOND_US if place % 11 == 5 else 0
                market.trade(str(number), open_us + offset * SECOND_US, late_us)
    for number, time_us, hole in held:
        if hole == -30:
            market.trade(str(number), time_us, CUT_US - time_us - 5 * MINUTE_US)
        elif hole == -29:
            market.trade(str(number), time_us, CUT_US - time_us + 9 * MINUTE_US)
    lost = [number for number, _, hole in held if hole == -50]
    start_us = CUT_US - 51 * MINUTE_US
    market.gap(lost[0], lost[-1], start_us, start_us + 2 * MINUTE_US, CUT_US + 20 * MINUTE_US,
               "unfillable")  # fmt: skip
    for open_us in minutes()[3::9]:
        market.candle(open_us, open_us + 64 * SECOND_US)
    return market


def without_numbers(seed: int, exchange: str, symbol: str, pattern: str) -> Market:
    """Ids that are not consecutive, some trades twice, a gap known by its times, halts."""
    market = Market(seed, exchange, symbol)
    number = 0
    for place, open_us in enumerate(minutes()):
        if place % 5 == 4:
            market.heartbeat(open_us + 55 * SECOND_US)
            continue
        for offset in (11, 11, 43):
            number += 7
            trade_id = pattern % (number * 0x9E3779B1 % 2**32)
            market.trade(trade_id, open_us + offset * SECOND_US)
            if place % 6 == 1:
                _, again = market.events[-1]
                market.events.append((open_us + offset * SECOND_US + 3 * MINUTE_US, again))
        market.heartbeat(open_us + 55 * SECOND_US)
    down_us = CUT_US - 2 * MINUTE_US
    market.heartbeat(down_us, "disconnected")
    market.gap(None, None, down_us - MINUTE_US, down_us, down_us + 1)
    market.gap(None, None, down_us - MINUTE_US, down_us, CUT_US + 9 * MINUTE_US, "filled")
    return market


def history() -> Market:
    """A live stream of a testnet, and a job of trades that the cut divides."""
    market = Market(5, "coinbase-testnet", "SOL/USD")
    number = 70
    for open_us in minutes()[::4]:
        number += 1
        market.trade(str(number), open_us + 4 * SECOND_US)
        market.heartbeat(open_us + 30 * SECOND_US)
    start_us = MONDAY_US - 30 * HOUR_US
    end_us = start_us + 2 * HOUR_US
    market.history("start", "trades-1", start_us, end_us, CUT_US - 61 * SECOND_US)
    for place in range(120):
        at_us = CUT_US - 60 * SECOND_US + place * SECOND_US
        time_us = start_us + place * MINUTE_US + 9 * SECOND_US
        market.trade(str(place + 1), time_us, at_us - time_us, "trades-1")
    market.history("end", "trades-1", start_us, end_us, CUT_US + 61 * SECOND_US)
    return market


def woven() -> tuple[list[tuple[str, str]], int]:
    """Return the log, and how many records lie before the cut."""
    markets = (
        plain(), with_holes(), without_numbers(3, "bybit", "XRP/USDT", "%08x-4c1d"),
        without_numbers(4, "gate", "ADA/USDT", "%d"), history(),
        candle_history(),
    )  # fmt: skip
    timed = [
        (at_us, place, f"{m.names['exchange']}:{m.names['symbol']}", encode(event).decode())
        for place, m in enumerate(markets)
        for at_us, event in m.events
    ]
    timed += [(CUT_US + seconds * SECOND_US, 9, "rubbish", '{"event":') for seconds in (-9, 9)]
    timed.sort(key=lambda row: row[:2])
    before = sum(at_us < CUT_US for at_us, *_ in timed)
    return [(key, value) for _, _, key, value in timed], before


def feed(kernel: Any, log: list[tuple[str, str]], start: int, stop: int) -> None:
    keys, values = zip(*((k.encode(), v.encode()) for k, v in log[start:stop]), strict=True)
    kernel.process(EncodedRecords.of(range(start, stop), keys, values), KAFKA_MS, stop)


def case(
    name: str, log: list[tuple[str, str]], cut: int, end: int, settings: dict[str, Any]
) -> dict[str, Any]:
    config = ProcessorConfig(**settings)
    kernel = Kernel(config, "ingest.events.v1", 0)
    writer, state = StateWriter(config.state_record_bytes_max), {}
    for start in range(0, cut, BATCH):
        feed(kernel, log, start, min(start + BATCH, cut))
        state.update(writer.snapshot(kernel))
        kernel.take_outputs()
    saved = sum(kernel.hot.saved(key) is not None for key in kernel.symbols)
    for start in range(cut, end, BATCH):
        feed(kernel, log, start, min(start + BATCH, end))
    outputs = {topic: list(records) for topic, records in kernel.take_outputs().items()}
    expected: dict[str, Any] = {topic: digests(records) for topic, records in outputs.items()}
    if SECONDS_TOPIC in expected:  # thousands of them: one digest for all
        found = expected[SECONDS_TOPIC]
        expected[SECONDS_TOPIC] = [len(found), hashlib.sha256("".join(found).encode()).hexdigest()]
    counts = {topic: len(records) for topic, records in outputs.items()}
    print(name, len(state), "state records,", saved, "symbols with rows of the loop,", counts)
    return {
        "name": name, "settings": settings, "cut": cut, "end": end,
        "state": dict(sorted(state.items())),
        "expected": dict(sorted(expected.items())),
    }  # fmt: skip


def digests(records: list[tuple[bytes, bytes]]) -> list[str]:
    """Return a digest of each record: its key and its value."""
    return [hashlib.sha256(b"%b\n%b" % record).hexdigest()[:8] for record in records]


def main(folder: Path) -> None:
    log, cut = woven()
    cases = [
        case("whole", log, cut, len(log), {}),
        case("split", log, cut - 300, len(log), {"state_record_bytes_max": 3_000}),
        case(
            "seconds",
            log,
            cut,
            cut + 400,
            {
                "one_second_candles": True,
                "closed_candle_keep_s": 90.0,
                "dedupe_window_s": 90.0,
            },
        ),
    ]
    found = {"kafka_ms": KAFKA_MS, "log": log, "cases": cases}
    text = msgspec.msgpack.encode(found)
    folder.mkdir(exist_ok=True)
    target = folder / "processor_state.msgpack.gz"
    target.write_bytes(gzip.compress(text, 9, mtime=0))
    print(len(log), "records,", len(text), "bytes,", target.stat().st_size, "packed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
