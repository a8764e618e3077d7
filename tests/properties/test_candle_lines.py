"""Many history candles at once cause byte for byte what they cause one by one."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, HistoryMarker
from alpha_pulse.contracts.market import MINUTE_US, TIMEFRAMES
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import StateWriter
from alpha_pulse.processors.wire.records import EncodedRecords

MONDAY_US = 1_763_942_400_000_000
KEY = b"binance:BTC/USDT"
NOW_MS = MONDAY_US // 1000 + 30 * 86_400_000

SEEDS = 250


def price(chance: Random) -> str:
    return chance.choice(
        (
            f"{chance.randrange(1, 50)}.{chance.randrange(10**4):04d}",
            f"{chance.randrange(1, 30_000)}.{chance.randrange(10**8):08d}",
            f"{chance.randrange(1, 10)}",
            chance.choice(("1.5", "1.50", "1.500", "0.000000000001", "9" * 20 + "." + "9" * 12)),
        )
    )


def volume(chance: Random) -> str:
    return chance.choice((price(chance), price(chance), "0", "0.00000000", "9" * 25))


def candles(chance: Random, job: str = "h") -> list[Candle]:
    same = chance.random() < 0.2  # one price in many texts
    first, skipped = chance.randrange(5, 30), set(chance.choices(range(200), k=2))
    quiet = chance.random() / 2
    found = []
    for minute in range(chance.randrange(1, 70)):
        if minute in skipped:
            continue
        texts = sorted((price(chance) for _ in range(4)), key=Decimal)
        if same:
            texts = chance.choices(("1.5", "1.50", "1.500"), k=4)
        empty = chance.random() < quiet
        found.append(
            Candle(
                exchange="binance",
                symbol="BTC/USDT",
                timeframe="1m",
                open_time_us=MONDAY_US + (first + minute) * MINUTE_US,
                open=texts[1],
                high=texts[3],
                low=texts[0],
                close=texts[2],
                volume="0.00" if empty else volume(chance),
                quote_volume=chance.choice((None, volume(chance), volume(chance))),
                buy_volume=chance.choice((None, volume(chance), volume(chance))),
                trade_count=chance.choice((None, 0)) if empty else chance.choice((3, 10**17, None)),
                first_trade_id=None,
                last_trade_id=None,
                revision=0,
                source="exchange",
                coverage="exchange",
                job=job,
            )
        )
    return found


def marker(edge: Any, end: int = 200) -> bytes:
    return encode(
        HistoryMarker(
            exchange="binance", symbol="BTC/USDT", job="h", edge=edge, timeframe="1m",
            start_time_us=MONDAY_US + 10 * MINUTE_US, end_time_us=MONDAY_US + end * MINUTE_US,
        )
    )  # fmt: skip


def new_kernel() -> Kernel:
    return Kernel(ProcessorConfig(dead_letter_run_max=10**6), "ingest.events.v1", 3)


def outcome(values: list[bytes | None], cuts: list[int]) -> tuple[Any, Any, Any]:
    """Return what a log causes when it is read in batches that end at the cuts."""
    kernel, first = new_kernel(), 0
    for end in [*sorted(set(cuts)), len(values)]:
        if first < end <= len(values):
            offsets = list(range(1000 + first, 1000 + end))
            records = EncodedRecords.of(offsets, [KEY] * (end - first), values[first:end])
            kernel.process(records, NOW_MS, 1000 + end)
            first = end
    outputs = {topic: list(found) for topic, found in kernel.drain_outputs().items() if len(found)}
    return outputs, StateWriter(10**6).snapshot(kernel), (kernel.counters, kernel.position)


def one_by_one(values: list[bytes | None]) -> tuple[Any, Any, Any]:
    return outcome(values, list(range(len(values))))


SPOILERS: list[Callable[[bytes], bytes | None]] = [
    lambda value: None,
    lambda value: b"rubbish",
    lambda value: value.replace(b'"open":"', b'"open":"0'),
    lambda value: value.replace(b'"high":"', b'"high":"0.'),
    lambda value: value.replace(b'"low":"', b'"low": "'),
    lambda value: value.replace(b'"volume":', b'"volume":"1","volume":'),
    lambda value: value.replace(b'"revision":0', b'"revision":7'),
    lambda value: value.replace(b',"low"', b'\n,"low"'),
    lambda value: value + b"\n" + value,
    lambda value: value.replace(b'"high":"10.30"', b'"high":"10.15"'),
    lambda value: value.replace(b'"low":"10.00"', b'"low":"10.15"'),
    lambda value: value.replace(b'"close":"10.20"', b'"close":"10.31"'),
    lambda value: value.replace(b'"close":"10.20"', b'"close":"9.99"'),
    lambda value: value.replace(b'"low":"10.00"', b'"low":"0.00"'),
    lambda value: value.replace(b'"volume":"1.50"', b'"volume":"1.1234567890123"'),
    lambda value: value.replace(b'"volume":"1.50"', b'"volume":"-1.50"'),
    lambda value: value.replace(b'"open":"10.10"', b'"open":"10.1000000000001"'),
    lambda value: value.replace(b'"quote_volume":"15.3"', b'"quote_volume":""'),
    lambda value: value.replace(b'"trade_count":4', b'"trade_count":0'),
    lambda value: value.replace(b'"trade_count":4', b'"trade_count":04'),
    lambda value: value.replace(b'"trade_count":4', b'"trade_count":99999999999999999999'),
    lambda value: value.replace(b'_us":1', b'_us":9'),
    lambda value: value.replace(b'0,"open"', b'1,"open"'),
    lambda value: value.replace(b'"source":"exchange"', b'"source":"trades"'),
    lambda value: value.replace(b'"job":"h"', b'"job":"another"'),
    lambda value: value.replace(b"C/U", "É/U".encode()),
    lambda value: value.replace(b'"first_trade_id":null', b'"first_trade_id":"5"'),
    lambda value: value.replace(b'"open":"', "\"open\":\"\u0661".encode()),
]  # fmt: skip


def log_of(values: Sequence[bytes | None], end: int = 200) -> list[bytes | None]:
    # Behind the job's end its candles belong to no job any more.
    return [marker("start", end), *values, marker("end", end), *values[:9]]


def test_batches_of_history_cause_what_its_records_cause_one_by_one() -> None:
    for seed in range(SEEDS):
        chance = Random(seed)
        values: list[bytes | None] = [encode(row) for row in candles(chance)]
        if chance.random() < 0.2:
            values = values[len(values) // 2 :] + values  # some come again
        if chance.random() < 0.1:
            values.insert(len(values) // 2, values[len(values) // 2])
        log = log_of(values, chance.choice((40, 75, 200)))
        cuts = [chance.randrange(80) for _ in range(chance.randrange(4))]
        assert outcome(log, cuts) == one_by_one(log), f"seed {seed}"


@pytest.mark.parametrize("spoil", range(len(SPOILERS)))
def test_a_candle_that_is_not_plain_is_judged_as_it_is_alone(spoil: int) -> None:
    values: list[bytes | None] = page(20)
    values[7] = SPOILERS[spoil](values[7] or b"")
    log = log_of(values)
    assert values[7] != page(20)[7], "it spoils something"
    assert outcome(log, []) == one_by_one(log)


def test_lines_that_make_up_for_each_other_are_not_taken_for_all_of_them() -> None:
    values = page(20)
    # Two candles in one value, and a neighbour that is none: as many candles as values.
    one, two = values[7] or b"", values[8] or b""
    values[7] = one[: one.index(b',"revision"')] + b"\n" + two[two.index(b":1763") + 1 :]
    values[8] = (values[8] or b"").replace(b'"open":"', b'"open":"0')
    assert outcome(log_of(values), []) == one_by_one(log_of(values))


def page(count: int, **changes: Any) -> list[bytes | None]:
    frame = TIMEFRAMES["1m"]
    return [
        encode(
            Candle(
                exchange="binance", symbol="BTC/USDT", timeframe="1m",
                open_time_us=MONDAY_US + (10 + minute) * frame.duration_us, open="10.10",
                high="10.30", low="10.00", close="10.20", volume="1.50", quote_volume="15.3",
                buy_volume="1", trade_count=4, first_trade_id=None, last_trade_id=None, revision=0,
                source="exchange", coverage="exchange", job="h",
            )
        )
        for minute in range(count)
    ]  # fmt: skip


def test_plain_history_never_goes_candle_by_candle(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = new_kernel()
    alone: list[int] = []
    cold = Kernel._ingest

    def counted(self: Kernel, *record: Any) -> None:
        alone.append(record[0])
        cold(self, *record)

    monkeypatch.setattr(Kernel, "_ingest", counted)
    values = [marker("start"), *page(120), marker("end")]
    kernel.process(EncodedRecords.of(list(range(122)), [KEY] * 122, values), NOW_MS, 122)
    assert alone == [0, 121], "the two markers"
    counts = {topic: len(records) for topic, records in kernel.drain_outputs().items()}
    assert counts["market.candles.1m.v1"] == counts["market.exchange-candles.v1"] == 120
    assert counts["market.candles.5m.v1"] == 24


def test_history_too_far_ahead_of_its_kafka_time_is_refused_candle_by_candle() -> None:
    values = [marker("start"), *page(20)]
    kernel = new_kernel()
    at_ms = MONDAY_US // 1000 - 86_400_000 + 20 * 60_000
    kernel.process(EncodedRecords.of(list(range(21)), [KEY] * 21, values), at_ms, 21)
    assert kernel.counters.dead_letters == 10, "those that close more than a day ahead"
