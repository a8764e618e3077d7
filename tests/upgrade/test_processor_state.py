"""What commit 4d9f32e wrote opens in today's code, and candles go on exactly.

`write_4d9f32e.py` made the fixtures. Whoever changes the state or a contract adds what the version
before wrote.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.market import HOUR_US, PUBLISHED_TIMEFRAMES
from alpha_pulse.processors.candles import rules
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import restore
from alpha_pulse.processors.wire.records import EncodedRecords, RecordsWriter

PUBLISHED_THEN = ("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w")
SECONDS_TOPIC = "market.candles.1s.v1"
FIXTURE = Path(__file__).parent / "4d9f32e" / "processor_state.msgpack.gz"
BATCH = 37
MONDAY_US = 1_763_942_400_000_000


@dataclass(frozen=True)
class Case:
    """A state, where in the log it was written, and digests of what came out of the log's rest."""

    name: str
    settings: dict[str, Any]
    cut: int
    end: int
    state: dict[bytes, bytes]
    expected: dict[str, list[Any]]


FOUND = msgspec.msgpack.decode(gzip.decompress(FIXTURE.read_bytes()))
KAFKA_MS: int = FOUND["kafka_ms"]
LOG: list[tuple[bytes, bytes]] = [(key.encode(), value.encode()) for key, value in FOUND["log"]]
CASES = [msgspec.convert(case, Case, strict=False) for case in FOUND["cases"]]
by_name = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def kernel_of(settings: dict[str, Any], names: tuple[str, ...] = PUBLISHED_THEN) -> Kernel:
    """Return a kernel that publishes these timeframes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "PUBLISHED_TIMEFRAMES", names)
        return Kernel(ProcessorConfig(**settings), "ingest.events.v1", 0)


def feed(kernel: Kernel, start: int, stop: int) -> dict[str, RecordsWriter]:
    keys, values = zip(*LOG[start:stop], strict=True)
    kernel.process(EncodedRecords.of(range(start, stop), keys, values), KAFKA_MS, stop)
    return kernel.drain_outputs()


def digests(records: list[tuple[bytes, bytes]]) -> list[str]:
    return [hashlib.sha256(b"%b\n%b" % record).hexdigest()[:8] for record in records]


def check(case: Case, outputs: dict[str, list[tuple[bytes, bytes]]]) -> None:
    found: dict[str, list[Any]] = {topic: digests(records) for topic, records in outputs.items()}
    if SECONDS_TOPIC in found:
        seconds = found[SECONDS_TOPIC]
        found[SECONDS_TOPIC] = [len(seconds), hashlib.sha256("".join(seconds).encode()).hexdigest()]
    assert found.keys() == case.expected.keys()
    for topic, expected in case.expected.items():
        assert found[topic] == expected, topic


@by_name
def test_the_state_of_4d9f32e_opens_and_candles_go_on_exactly(case: Case) -> None:
    kernel = kernel_of(case.settings)
    restore(kernel, case.state)
    assert kernel.position == case.cut
    outputs: dict[str, list[tuple[bytes, bytes]]] = {}
    for start in range(case.cut, case.end, BATCH):
        for topic, records in feed(kernel, start, min(start + BATCH, case.end)).items():
            outputs.setdefault(topic, []).extend(records)
    check(case, outputs)


@by_name
def test_what_is_written_then_opens_again(case: Case) -> None:
    kernel, stored = kernel_of(case.settings), dict(case.state)
    writer = restore(kernel, stored)
    outputs: dict[str, list[tuple[bytes, bytes]]] = {}
    for start in range(case.cut, case.end, BATCH):
        for topic, records in feed(kernel, start, min(start + BATCH, case.end)).items():
            outputs.setdefault(topic, []).extend(records)
        stored.update(writer.snapshot(kernel))
        kernel = kernel_of(case.settings)
        writer = restore(kernel, stored)
    check(case, outputs)


def test_the_log_of_4d9f32e_gives_the_same_candles_from_its_beginning() -> None:
    case = CASES[0]
    kernel = kernel_of(case.settings)
    feed(kernel, 0, case.cut)
    outputs = feed(kernel, case.cut, case.end)
    check(case, {topic: list(records) for topic, records in outputs.items()})


@pytest.mark.parametrize("case", CASES[:2], ids=["whole", "split"])
def test_what_is_published_since_then_begins_and_all_else_goes_on_exactly(case: Case) -> None:
    kernel = kernel_of(case.settings, PUBLISHED_TIMEFRAMES)
    writer = restore(kernel, case.state)
    assert writer.begun == [name for name in PUBLISHED_TIMEFRAMES if name not in PUBLISHED_THEN]
    assert writer.dropped == []
    found = {topic: list(records) for topic, records in feed(kernel, case.cut, case.end).items()}
    two_hours = found.pop("market.candles.2h.v1", [])
    check(case, found)
    # The window that was open at the cut is not published live; a job's windows are whole.
    opened = {msgspec.json.decode(value)["open_time_us"] for _, value in two_hours}
    assert all(open_us % (2 * HOUR_US) == 0 for open_us in opened)
    assert (MONDAY_US - 2 * HOUR_US) not in opened


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("whole", {"one_second_candles": True}),
        ("split", {"one_second_candles": True}),
        ("seconds", {"closed_candle_keep_s": 90.0, "dedupe_window_s": 90.0}),
        ("whole", {"grace_s": 20.0}),
        ("split", {"grace_s": 0.5}),
    ],
)
def test_other_settings_than_4d9f32e_had_make_no_candle_wrong(
    name: str, settings: dict[str, Any]
) -> None:
    case = next(case for case in CASES if case.name == name)
    kernel, scratch, before = kernel_of(settings), kernel_of(settings), kernel_of(case.settings)
    restore(kernel, case.state)
    feed(scratch, 0, case.cut)
    published = newest_candles(feed(before, 0, case.cut))
    expected = newest_candles(feed(scratch, case.cut, case.end))
    found = newest_candles(feed(kernel, case.cut, case.end))
    assert len(found) > 300
    for window, candle in found.items():
        assert window in expected, window
        assert candle == expected[window], window
    for window in expected.keys() - found.keys():
        # Not begun yet; or it stands as it was published with the settings before.
        assert window[2] == "1s" or window in published, window


def newest_candles(outputs: dict[str, RecordsWriter]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return what stands in each window, without how it is covered."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for topic, records in outputs.items():
        if topic.startswith("market.candles."):
            for _, value in records:
                candle = msgspec.json.decode(value)
                names = ("exchange", "symbol", "timeframe", "open_time_us")
                window = (*(candle.pop(name) for name in names), candle.get("job"))
                del candle["revision"], candle["coverage"]
                found[window] = candle
    return found
