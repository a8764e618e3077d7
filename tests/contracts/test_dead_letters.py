"""Dead letters have the bytes that they always had; the limit counts runs and a window."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.dead_letters import (
    PAYLOAD_BYTES_MAX,
    REFUSAL_WINDOW,
    RefusalLimit,
    dead_letter_of_frame,
    dead_letter_of_record,
    dead_letter_of_row,
    frame_identity,
)
from alpha_pulse.contracts.events import DeadLetter

# Key and value of a record; each has an error of `number * 1000` characters.
RECORDS: list[tuple[bytes | None, bytes | None]] = [
    (b"binance:BTC/USDT", b'{"exchange":"okx","symbol":"ETH/USDT"}'),
    (None, None),
    (b"\xff:" + b"s" * 200, b"\xff\x00rubbish"),
    (b"e" * 40, b'{"exchange":"kraken"}'),
    (b"k", b"[" * 100_000),
    (b"", b"x" * 300_000),
]
FRAMES: list[tuple[str | None, bytes]] = [
    ("BTC/USDT", b"{}"),
    (None, b"\xff" * 300_000),
    ("S", "\ud800x".encode("utf-8", "surrogatepass")),
]
# SHA-256, cut, of what 4d9f32e wrote of them.
OF_RECORDS = [
    "b2f35eb270834a48307a184f9d74111c",
    "425537b20c795681e3b29437174542a3",
    "d2e9b7bee2feb91ffa19f0c29643d4cb",
    "d52519bfc861ae0349476fb1ddd94fea",
    "874cd355d42af3fd738d85bc09d02038",
    "fad6028b81c7b043c531ce7d9c40684c",
]
OF_ROWS = [
    "4e4705da27373e57ae2cafe49f42061f",
    "b4da2463283202133cd831f5f7badeaf",
    "8c5324dbb6eddfb3a3bc422caac49480",
    "c079ac5dec003434366222f7dcf4220e",
    "1c0c0c62317ccf751d4f20bb98c29f2c",
    "6b86ace234ee75704d7d1dca1c1a48cf",
]
OF_FRAMES = [
    "090024131fda6b9c7dac46cc7e82cc40",
    "c53278c3b149799d6f3b9ba6e96d6b59",
    "472fea738453f7e678cb4de8a16a4d38",
]


def digest(letter: DeadLetter) -> str:
    return hashlib.sha256(encode(letter)).hexdigest()[:32]


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_records_and_rows_have_the_bytes_that_they_always_had(number: int) -> None:
    key, value = RECORDS[number]
    reason, error, timestamp_ms = "bad_schema", "e" * (number * 1000), 5 - number * 2
    record = dead_letter_of_record(
        "t.ingest", 3, number, key, value, reason=reason, error=error, timestamp_ms=timestamp_ms
    )
    assert digest(record) == OF_RECORDS[number]
    row = dead_letter_of_row(
        "t.ingest", 3, number, value,
        reason="refused_by_clickhouse", error=error, timestamp_ms=timestamp_ms,
    )  # fmt: skip
    assert digest(row) == OF_ROWS[number]


@pytest.mark.parametrize("number", range(len(FRAMES)))
def test_frames_have_the_bytes_that_they_always_had(number: int) -> None:
    symbol, frame = FRAMES[number]
    letter = dead_letter_of_frame(
        frame, "binance", symbol,
        reason="bad_frame", error="x" * (number * 1500), time_us=1_700_000_000_000_000 + number,
    )  # fmt: skip
    assert letter.identity == frame_identity(frame)
    assert digest(letter) == OF_FRAMES[number]


def test_the_payload_is_cut_and_its_length_is_not() -> None:
    letter = dead_letter_of_record(
        "t", 3, 17, b"binance:BTC/USDT", b"x" * 300_000, reason="r", error="", timestamp_ms=5
    )
    assert letter.identity == "t:3:17"
    assert len(base64.b64decode(letter.payload_base64)) == PAYLOAD_BYTES_MAX == 256 * 1024
    assert letter.payload_bytes == 300_000
    assert (letter.exchange, letter.symbol) == ("binance", "BTC/USDT")


def test_more_than_the_ratio_of_the_window_is_too_much_and_not_before() -> None:
    limit = RefusalLimit(run_max=100, ratio_max=0.1)
    for _ in range(1000):
        limit.accept(9)
        limit.refuse()
        assert not limit.is_exceeded, "10 % is allowed"
    limit.refuse()
    assert limit.is_exceeded
    assert (limit.refused, limit.window, limit.run) == (1001, REFUSAL_WINDOW, 2)


def test_a_run_is_ended_by_one_that_is_accepted() -> None:
    limit = RefusalLimit(run_max=3, ratio_max=1.0)
    for _ in range(2):
        limit.refuse()
    limit.accept(0)
    assert limit.run == 2
    limit.accept(1)
    for _ in range(2):
        limit.refuse()
    assert not limit.is_exceeded
    limit.refuse()
    assert limit.is_exceeded


@given(st.lists(st.one_of(st.just(0), st.integers(1, 9000)), max_size=40), st.integers(1, 5))
def test_the_limit_counts_as_one_by_one(steps: list[int], run_max: int) -> None:
    limit, ratio = RefusalLimit(run_max, 0.0003), 0.0003
    seen: list[bool] = []
    for accepted in steps:
        if accepted:
            limit.accept(accepted)
            seen += [False] * accepted
            continue
        limit.refuse()
        seen.append(True)
        run = next((n for n, refused in enumerate(reversed(seen)) if not refused), len(seen))
        window = seen[-REFUSAL_WINDOW:]
        assert (limit.run, limit.refused, limit.window) == (run, sum(window), len(window))
        assert limit.is_exceeded == (run >= run_max or sum(window) > ratio * REFUSAL_WINDOW)
