"""Windows that the compiled loop closes are those that Python closes: same bytes, same state."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.decimals import units_text
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, StreamState, Trade
from alpha_pulse.contracts.market import DAY_US, MINUTE_US, SECOND_US
from alpha_pulse.processors.candles.packed import open_time_and_close, pack, unpack
from alpha_pulse.processors.candles.progress import Progress
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.candles.value import Value, quote_text
from alpha_pulse.processors.compiled import numbers as compiled_numbers
from alpha_pulse.processors.compiled import trades
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import StateWriter, restore
from alpha_pulse.processors.wire.records import EncodedRecords

KEY = b"binance:BTC/USDT"
# 2025-11-24 00:00 UTC, a Monday: every timeframe opens here.
MONDAY_US = 1_763_942_400_000_000
RULES: dict[str, Any] = {"dead_letter_run_max": 10**6, "dead_letter_ratio_max": 1.0}
MARKET: dict[str, Any] = {"exchange": "binance", "symbol": "BTC/USDT"}

Outputs = dict[str, list[tuple[bytes, bytes]]]


def number_text(write: Callable[[Any, int, Any, Any], int], number: int) -> str:
    out = np.zeros(64, np.uint8)
    high, low = np.uint64(number >> 64), np.uint64(number & (2**64 - 1))
    return out[: write(out, 0, high, low)].tobytes().decode()


@settings(max_examples=500, deadline=None, print_blob=True)
@given(
    st.integers(0, 2**127)
    | st.integers(0, 10**14)
    | st.builds(lambda n: n * 10**12, st.integers(0, 10**24))
)
def test_sums_are_written_as_python_writes_them(number: int) -> None:
    assert number_text(compiled_numbers.write_units, number) == units_text(number)
    assert number_text(compiled_numbers.write_quote, number) == quote_text(number)


@settings(max_examples=300, deadline=None, print_blob=True)
@given(st.integers(0, 10**20), st.sampled_from([-1, 0, 1]), st.integers(0, 3))
def test_halves_are_rounded_to_even(whole: int, beside: int, odd: int) -> None:
    number = (whole * 4 + odd) * 10**12 + 10**12 // 2 + beside
    assert number_text(compiled_numbers.write_quote, number) == quote_text(number)


def trade(number: int, time_us: int, price: str, amount: str, side: Any) -> bytes:
    return encode(
        Trade(
            **MARKET, trade_id=str(number), price=price, amount=amount, side=side,
            trade_time_us=time_us, receive_time_us=time_us,
        )
    )  # fmt: skip


def kernel_of(config: dict[str, Any]) -> Kernel:
    return Kernel(ProcessorConfig(**RULES, **config), "ingest.events.v1", 0)


def taken_in(
    values: list[bytes], batch: int, *configs: dict[str, Any], restarts: bool = False
) -> tuple[Outputs, Kernel]:
    """Return what came out.

    With restarts, a new kernel goes on from the state of each batch, by the next configuration.
    """
    turns = itertools.cycle(configs)
    kernel, writer = kernel_of(next(turns)), StateWriter(10**9)
    kafka_ms = MONDAY_US // 1000 + 20 * 86_400_000
    found: Outputs = {}
    for first in range(0, len(values), batch):
        part = values[first : first + batch]
        offsets = range(first, first + len(part))
        records = EncodedRecords.of(offsets, [KEY] * len(part), part)
        kernel.process(records, kafka_ms, first + len(part))
        for name, taken in kernel.drain_outputs().items():
            found.setdefault(name, []).extend(taken)
        if restarts:
            records_of_state = dict(writer.snapshot(kernel))
            kernel = kernel_of(next(turns))
            writer = restore(kernel, records_of_state)
    return found, kernel


def state_of(kernel: Kernel) -> Any:
    """Return what a kernel knows of the symbol, however it is written."""
    kernel.bring_all_back()
    live = kernel.symbols[KEY].live
    closing, order = live.closing, live.order
    windows = [
        [
            (w.open_us, w.close_us, w.trades, w.settled, w.exchange, w.price, w.standing, w.closed)
            for w in level.values()
        ]
        for level in live.windows.levels
    ]
    return (
        windows, live.proof, order.first_id, order.last_id, order.last_trade_us,
        closing.watermark_us, closing.closed_until_us, closing.close_at_us, live.versions.price,
        live.versions.price_open_us,
        live.late, live.windows.followed_from_us,
    )  # fmt: skip


class Closings:
    """Counts the windows that the loop closed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        before = Stream.follow

        def follow(stream: Stream, progress: Progress) -> None:
            self.count += len(progress.closed)
            before(stream, progress)

        patch.setattr(Stream, "follow", follow)


def check(values: list[bytes], batch: int, **config: Any) -> int:
    """Compare all ways; return how many windows the loop closed."""
    by_rules = {**config, "compiled": False}
    with pytest.MonkeyPatch.context() as patch:
        closings = Closings(patch)
        found, kernel = taken_in(values, batch, config)
    state = state_of(kernel)
    expected, kernel = taken_in(values, len(values), by_rules)
    assert found == expected
    assert state == state_of(kernel)
    # The loop takes trades, and closes nothing.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trades, "_closes_plainly", lambda stream: False)
        open_only, kernel = taken_in(values, len(values), config)
    assert open_only == expected
    assert state == state_of(kernel)
    # Each batch in a new kernel, of which forty are enough: the same one, and the two in turn.
    batch = max(batch, len(values) // 40)
    for configs in ([config], [config, by_rules]):
        restarted, kernel = taken_in(values, batch, *configs, restarts=True)
        assert restarted == expected
        assert state_of(kernel) == state
    return closings.count


prices = st.sampled_from(["2.5", "2.50", "2.500", "3", "3.0", "0.00000012", "98765.4321"])
amounts = st.sampled_from(["1", "1.0", "0.5", "12345.678901234567", "0.000000000001"])
sides = st.sampled_from(["buy", "buy", "sell", "unknown"])


@st.composite
def logs(draw: Any) -> list[bytes]:
    """Some hours of a symbol, mostly plain, with everything that isn't in between."""
    minutes = draw(st.integers(3, 200))
    rng = random.Random(draw(st.integers(0, 2**32)))
    price, amount, side = draw(prices), draw(amounts), draw(sides)
    # Drawn by the generator: hypothesis would favour the plainest log.
    accident, late = rng.choice([0.0, 0.01, 0.1]), rng.choice([0.0, 0.02, 0.1])
    start_us = MONDAY_US - draw(st.sampled_from([0, 7, 61, 250])) * MINUTE_US
    values: list[bytes] = []
    held: list[bytes] = []
    number = draw(st.sampled_from([7, 98, 99_999]))
    time_us = start_us
    for minute in range(minutes):
        open_us = start_us + minute * MINUTE_US
        if rng.random() < accident:
            continue  # nothing is traded
        for _ in range(rng.choice([1, 1, 2, 3])):
            number += 1
            time_us = max(time_us, open_us + rng.randrange(60) * SECOND_US)
            # The next id may be of a minute that was closed long ago.
            back_us = rng.randrange(700) * SECOND_US if rng.random() < late else 0
            row = trade(
                number, time_us - back_us, rng.choice([price, "3", "2.5", "2.50"]), amount,
                rng.choice([side, "sell"]),
            )  # fmt: skip
            if rng.random() < accident / 2:
                held.append(row)  # comes later, by seconds or by minutes
            else:
                values.append(row)
        if rng.random() < accident:
            values.append(accident_of(rng, open_us, number))
        if held and rng.random() < 0.5:
            values.append(held.pop(rng.randrange(len(held))))
    return values + held


def accident_of(rng: random.Random, open_us: int, number: int) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return encode(Heartbeat(**MARKET, complete_until_us=open_us + 30 * SECOND_US, state="live"))
    if kind == 1:
        states: list[StreamState] = ["live", "disconnected", "halted"]
        state = rng.choice(states)
        return encode(Heartbeat(**MARKET, complete_until_us=open_us, state=state))
    if kind == 2:
        return encode(
            Gap(
                **MARKET, first_trade_id=str(number + 1), last_trade_id=str(number + 2),
                start_time_us=open_us, end_time_us=open_us + SECOND_US,
                status=rng.choice(["open", "unfillable"]), reason="test",
            )
        )  # fmt: skip
    timeframe, length = rng.choice([("1m", MINUTE_US), ("5m", 5 * MINUTE_US)])
    return encode(
        Candle(
            **MARKET, timeframe=timeframe, open_time_us=open_us - open_us % length, open="2.5",
            high="3", low="2.5", close="3", volume="2", quote_volume="5", buy_volume=None,
            trade_count=2, first_trade_id=None, last_trade_id=None, revision=0, source="exchange",
            coverage="exchange",
        )
    )  # fmt: skip


@settings(max_examples=60, deadline=None, print_blob=True)
@given(
    logs(),
    st.integers(1, 60),
    st.sampled_from([{}, {"audits": False}, {"closed_candle_keep_s": 60.0}]),
)
def test_any_hours_give_the_same_bytes_and_the_same_state(
    values: list[bytes], batch: int, config: dict[str, Any]
) -> None:
    if values:
        check(values, batch, **config)


@pytest.mark.parametrize("config", [{}, {"audits": False}, {"one_second_candles": True}])
def test_plain_trades_of_nine_days_are_closed_up_to_the_week(config: dict[str, Any]) -> None:
    rng = random.Random(5)
    step_us = SECOND_US if "one_second_candles" in config else MINUTE_US
    # Every window costs the same; an hour of seconds around that Monday ends one of each length.
    count = 9 * DAY_US // MINUTE_US if step_us == MINUTE_US else 3_600
    start_us = MONDAY_US - (count // 2) * step_us
    values = [
        trade(
            number, start_us + number * step_us + rng.randrange(step_us),
            f"{rng.randrange(90, 110)}.{rng.randrange(100):02}", f"0.{rng.randrange(1, 999):03}",
            rng.choice(["buy", "sell"]),
        )
        for number in range(count)
    ]  # fmt: skip
    closed = check(values, count // 3, **config)
    if step_us == SECOND_US:
        # The grace is longer than a second: there is always more than one window to close.
        assert closed == 0
        return
    # All but the first of each timeframe, which were not followed from their beginning.
    assert closed > 0.98 * count


@pytest.mark.parametrize("late_minute", range(8))
@pytest.mark.parametrize("next_minutes", [3, 9, 30])
def test_a_late_trade_changes_what_is_closed_after_it(late_minute: int, next_minutes: int) -> None:
    # The longer windows that are still open have merged the minute as it was.
    times_s = [minute * 60 + second for minute in range(8 + next_minutes) for second in (5, 25)]
    times_s.insert(16, late_minute * 60 + 30)
    values = [
        trade(7 + number, MONDAY_US + time_s * SECOND_US, "2.5", "1", "buy")
        for number, time_s in enumerate(times_s)
    ]
    assert check(values, 1) > 0


def test_room_that_runs_out_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alpha_pulse.processors.compiled.closed_candles._CANDLES_MAX", 20)
    # Behind the grace: a trade within it would leave two windows to be closed at once.
    values = [
        trade(number, MONDAY_US + number * MINUTE_US + 5 * SECOND_US, "2.5", "1", "buy")
        for number in range(500)
    ]
    assert check(values, 500) > 480


texts = st.from_regex(r"\A(0|[1-9][0-9]{0,8})(\.[0-9]{1,8})?\Z")
ids = st.none() | st.integers(0, 10**17).map(str)
units = st.integers(0, 2**126 - 1)
values_of_windows = st.builds(
    Value, st.integers(0, 2**50), st.integers(-1, 10**17), ids, texts, st.integers(0, 2**50),
    st.integers(-1, 10**17), ids, texts, units, texts, units, texts, units, units, units,
    st.integers(0, 10**9), st.booleans(), st.booleans(), st.booleans(), st.booleans(),
    st.integers(0, 4), st.integers(1, 3), st.integers(1, 10_080),
)  # fmt: skip


@settings(max_examples=200, deadline=None, print_blob=True)
@given(values_of_windows)
def test_a_value_comes_back_as_it_was_packed(value: Value) -> None:
    packed = pack(MONDAY_US, value)
    assert packed is not None
    assert unpack(packed) == (MONDAY_US, value)
    assert open_time_and_close(packed) == (MONDAY_US, value.close)


@pytest.mark.parametrize(
    "change",
    [
        {"first_rank": (3, "abc")},
        {"last_id": "007"},
        {"first_id": "a"},
        {"first_id": "1" * 19},
        {"high": "1" * 21},
        {"volume_units": 2**126},
    ],
)
def test_what_does_not_fit_is_not_packed(change: dict[str, Any]) -> None:
    value = Value(1, 1, "1", "2", 1, 1, "1", "2", 2, "2", 2, "2", 1, 2, 1, 1)
    for name, found in change.items():
        setattr(value, name, found)
    assert pack(MONDAY_US, value) is None


def test_symbols_side_by_side_are_closed_as_each_alone() -> None:
    rng = random.Random(11)
    symbols = [f"C{number}/USDT" for number in range(5)]
    rows: list[tuple[bytes, bytes]] = []
    for number in range(200):
        for symbol in symbols:
            time_us = MONDAY_US + number * MINUTE_US + rng.randrange(3, 60) * SECOND_US
            value = trade(number, time_us, f"{rng.randrange(9, 12)}.5", "0.25", "buy")
            rows.append((f"binance:{symbol}".encode(), value.replace(b"BTC/USDT", symbol.encode())))

    def closed(of: list[tuple[bytes, bytes]]) -> list[bytes]:
        kernel = kernel_of({"audits": False})
        keys, values = [key for key, _ in of], [value for _, value in of]
        records = EncodedRecords.of(range(len(of)), keys, values)
        kernel.process(records, MONDAY_US // 1000 + DAY_US // 1000, len(of))
        taken = kernel.drain_outputs()
        candles = [value for name in taken if "candles" in name for _, value in taken[name]]
        # Another log has other offsets, which revisions are of.
        return [value[: value.index(b',"revision"')] for value in candles]

    together = closed(rows)
    assert len(together) > 1_000
    for symbol in symbols:
        key = f"binance:{symbol}".encode()
        alone = closed([row for row in rows if row[0] == key])
        assert alone == [value for value in together if symbol.encode() in value]
