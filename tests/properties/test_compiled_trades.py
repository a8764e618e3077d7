"""The compiled loop takes exactly what is plain, and its numbers are those of Python's integers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.decimals import parse_units
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.market import TIME_US_MAX, TIME_US_MIN
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.processors.compiled import numbers as compiled_numbers
from alpha_pulse.processors.compiled import plain_trade
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.wire.records import EncodedRecords

KEY = b"binance:BTC/USDT"
START_US = 1_763_942_400_000_000
KAFKA_MS = START_US // 1000 + 86_400_000
RULES = ProcessorConfig(dead_letter_run_max=10**6, dead_letter_ratio_max=1.0)
many = settings(max_examples=300, deadline=None, print_blob=True)

decimals = st.from_regex(r"\A(0|[1-9][0-9]{0,20})(\.[0-9]{1,13})?\Z")
near_decimals = st.text("0123456789.+-e ", max_size=24)
uint64 = st.integers(0, 2**64 - 1)
digits = st.integers(1, 10**18 - 1)


def in_bytes(text: str) -> Any:
    return np.frombuffer(text.encode(), np.uint8)


@many
@given(decimals | near_decimals)
@example("0.00000001")
@example("999999999999999999")
@example("9999999999999999999")
@example("123456.123456789012")
@example("00.1")
@example("1.")
@example("")
def test_decimals_are_read_as_the_grammar_says(text: str) -> None:
    at, number, fraction = compiled_numbers.read_decimal(in_bytes(text + '",'), 0, len(text))
    try:
        units = parse_units(text)
    except ValidationError:
        units = 0
    if units == 0 or len(text.replace(".", "")) > compiled_numbers.DIGITS_MAX:
        # Something that is no such number may begin with one; then the rest does not follow.
        assert at != len(text) or at == 0
        return
    assert at == len(text)
    high, low = compiled_numbers.units_of(np.uint64(number), fraction)
    assert (int(high) << 64) + int(low) == units


@many
@given(uint64, uint64)
def test_products_have_all_their_bits(a: int, b: int) -> None:
    high, low = compiled_numbers.multiply(np.uint64(a), np.uint64(b))
    assert (int(high) << 64) + int(low) == a * b


@many
@given(
    st.integers(1, 10**18 - 1), st.integers(0, 12), st.integers(1, 10**18 - 1), st.integers(0, 12)
)
def test_price_times_amount_is_exact_or_goes_the_long_way(
    price: int, price_fraction: int, amount: int, amount_fraction: int
) -> None:
    fits, high, low = compiled_numbers.product_units(
        np.uint64(price), price_fraction, np.uint64(amount), amount_fraction
    )
    exact = price * amount * 10 ** (24 - price_fraction - amount_fraction)
    assert bool(fits) or exact >= 2**125
    if fits:
        assert (int(high) << 64) + int(low) == exact < 2**127


@many
@given(st.lists(st.integers(0, 2**126 - 1), max_size=3))
def test_sums_carry(numbers: list[int]) -> None:
    total = np.zeros(2, np.uint64)
    added = 0
    for number in numbers:
        if not compiled_numbers.has_room(total):
            break
        compiled_numbers.add_to(total, np.uint64(number >> 64), np.uint64(number & (2**64 - 1)))
        added += number
    assert (int(total[0]) << 64) + int(total[1]) == added


def trade(number: int, time_us: int, price: str, amount: str, side: Any) -> Trade:
    return Trade(
        exchange="binance", symbol="BTC/USDT", trade_id=str(number), price=price, amount=amount,
        side=side, trade_time_us=time_us, receive_time_us=time_us,
    )  # fmt: skip


plain_decimals = st.from_regex(r"\A(0|[1-9][0-9]{0,8})(\.[0-9]{1,8})?\Z").filter(
    lambda text: any(digit in "123456789" for digit in text)
)
trades = st.builds(
    lambda time, *rest: (START_US + time, *rest),
    st.integers(0, 400_000_000),
    plain_decimals
    | st.sampled_from(["1", "1.0", "1.00", "0.1", "0.10", "0.1000", "123456789012345678.5"]),
    plain_decimals,
    st.sampled_from(["buy", "sell", "unknown"]),
)


def outputs(
    values: list[bytes], batch: int, *, compiled: bool = True
) -> tuple[dict[str, list[tuple[bytes, bytes]]], Kernel]:
    kernel = Kernel(replace(RULES, compiled=compiled), "ingest.events.v1", 0)
    for first in range(0, len(values), batch):
        part = values[first : first + batch]
        offsets = range(first, first + len(part))
        records = EncodedRecords.of(offsets, [KEY] * len(part), part)
        kernel.process(records, KAFKA_MS, first + len(part))
    return {name: list(writer) for name, writer in kernel.drain_outputs().items()}, kernel


@settings(max_examples=150, deadline=None, print_blob=True)
@given(st.lists(trades, min_size=1, max_size=60), st.integers(1, 20), st.randoms())
def test_any_trades_in_any_order_of_time_give_the_same_bytes(
    rows: list[tuple[int, str, str, Any]], batch: int, random: Any
) -> None:
    # Mostly in order of time, as exchanges send them; a few are not, and some ids are left out.
    if random.random() < 0.5:
        # Few prices, written with more and with fewer digits: which text stands is a rule too.
        texts = ["2.5", "2.50", "2.500", "3", "3.0"]
        rows = [(row[0], random.choice(texts), *row[2:]) for row in rows]
    rows.sort(key=lambda row: row[0] + random.choice([0, 0, 0, 0, 3_000_000]))
    number, values = 7, []
    for row in rows:
        number += random.choice([1] * 9 + [2])
        values.append(encode(trade(number, *row)))
    found, _ = outputs(values, batch)
    expected, _ = outputs(values, len(values), compiled=False)
    assert found == expected


def kernel_of_one(*, compiled: bool = True) -> Kernel:
    """Return a kernel that has seen trade 1 and may take trade 2 in its loop."""
    first = encode(trade(1, START_US, "100.00", "1.000", "buy"))
    return outputs([first], 1, compiled=compiled)[1]


def is_taken(value: bytes, key: bytes | None = KEY) -> bool:
    kernel = kernel_of_one()
    writer = kernel._outputs.writer(TRADES)
    assert not len(writer)
    records = EncodedRecords.of([1], [key], [value])
    row, taken, closes = kernel.plain.run(records, 0, KAFKA_MS * 1000)
    assert row == taken == len(writer)
    assert not closes
    return taken == 1


PLAIN = encode(trade(2, START_US + 1, "100.00", "1.000", "sell"))


def test_a_plain_trade_is_taken() -> None:
    assert is_taken(PLAIN)
    for side in ("buy", "unknown"):
        assert is_taken(PLAIN.replace(b"sell", side.encode()))


NOT_PLAIN = [
    PLAIN.replace(b'"2"', b'"3"'),
    PLAIN.replace(b'"2"', b'"02"'),
    PLAIN.replace(b'"2"', b'"+2"'),
    PLAIN.replace(b'"2"', b'"2 "'),
    PLAIN.replace(b"100.00", b"0"),
    PLAIN.replace(b"100.00", b"0.00"),
    PLAIN.replace(b"100.00", b"1E2"),
    PLAIN.replace(b"100.00", b"-100"),
    PLAIN.replace(b"1.000", b"1."),
    PLAIN.replace(b"1.000", b".1"),
    PLAIN.replace(b"1.000", b"01.0"),
    PLAIN.replace(b"1.000", b"0.0000000000001"),
    PLAIN.replace(b"1.000", b"1234567890123456789"),
    PLAIN.replace(b"sell", b"Sell"),
    PLAIN.replace(b"sell", b"none"),
    PLAIN.replace(b"binance", b"kraken1"),
    PLAIN.replace(b"BTC/USDT", b"ETH/USDT"),
    PLAIN.replace(b'","price"', b'", "price"'),
    PLAIN.replace(b'"price"', b'"Price"'),
    PLAIN.replace(b'"amount"', b'"price"'),
    PLAIN.replace(b"}", b',"job":"j"}'),
    PLAIN + b" ",
    PLAIN[:-1],
    PLAIN[:-1] + b"]",
    b" " + PLAIN,
    b"",
    b"{}",
    PLAIN.replace(str(START_US + 1).encode(), str(TIME_US_MIN - 1).encode(), 1),
    PLAIN.replace(str(START_US + 1).encode(), str(TIME_US_MAX).encode(), 1),
    PLAIN.replace(str(START_US + 1).encode(), str(START_US + 1)[:-1].encode()),
    PLAIN.replace(str(START_US + 1).encode(), b"9" * 17),
    PLAIN.replace(str(START_US + 1).encode(), b'"' + str(START_US + 1)[2:].encode() + b'"'),
]


@pytest.mark.parametrize("value", NOT_PLAIN, ids=range(len(NOT_PLAIN)))
def test_whatever_is_not_plain_is_left_to_the_kernel(value: bytes) -> None:
    assert value != PLAIN
    assert not is_taken(value)


def test_every_truncation_is_left_to_the_kernel() -> None:
    assert not any(is_taken(PLAIN[:size]) for size in range(len(PLAIN)))


@many
@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 255))
def test_one_wrong_byte_is_never_taken_as_what_it_is_not(at: int, byte: int) -> None:
    value = PLAIN[:at] + bytes([byte]) + PLAIN[at + 1 :]
    kernel, by_rules = kernel_of_one(), kernel_of_one(compiled=False)
    for each in (kernel, by_rules):
        each.process(EncodedRecords.of([1], [KEY], [value]), KAFKA_MS, 2)
    names = {*(taken := kernel.drain_outputs()), *(expected := by_rules.drain_outputs())}
    for name in names:
        assert list(taken.get(name, [])) == list(expected.get(name, []))
    assert kernel.open_candles() == by_rules.open_candles()


@pytest.mark.parametrize("key", [None, b"", b"binance:BTC/USD", b"binance:BTC/USDT:USDT"])
def test_a_trade_under_another_key_is_left_to_the_kernel(key: bytes | None) -> None:
    assert not is_taken(PLAIN, key)


def test_hundreds_of_symbols_are_told_apart() -> None:
    kernel = Kernel(RULES, "ingest.events.v1", 0)
    symbols = [f"C{number}/USDT" for number in range(700)]
    for number in range(3):
        values = [
            encode(trade(number, START_US + number, "1.5", "2", "buy")).replace(
                b"BTC/USDT", symbol.encode()
            )
            for symbol in symbols
        ]
        keys = [f"binance:{symbol}".encode() for symbol in symbols]
        first = number * len(symbols)
        records = EncodedRecords.of(range(first, first + len(symbols)), keys, values)
        kernel.process(records, KAFKA_MS, first + len(symbols))
    assert kernel.counters.trades == 3 * len(symbols)
    kernel.bring_all_back()
    for symbol in kernel.symbols.values():
        newest = symbol.live.windows.newest_traded()
        assert newest is not None
        assert newest.trades is not None
        assert (symbol.live.order.last_id, newest.trades.count) == (2, 3)
        assert newest.trades.volume_units == 6 * 10**12


def test_times_are_read_from_2009_to_2100() -> None:
    for text in (str(TIME_US_MIN), str(TIME_US_MAX - 1)):
        assert plain_trade._read_time(in_bytes(text), 0, 16) == (int(text), 16)
    for text in (str(TIME_US_MIN - 1), str(TIME_US_MAX), "1" * 15 + "x", "1" * 15):
        assert plain_trade._read_time(in_bytes(text), 0, len(text))[1] == -1
