"""One target of the fuzzer in its own process: `target.py NAME CORPUS [libFuzzer's options]`."""

import importlib.util
import sys
from pathlib import Path

import atheris


def compiled_modules() -> list[str]:
    """Return the modules with functions that numba compiles: it can't read what atheris adds."""
    package = "alpha_pulse.processors"
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return [
        f"{package}.{source.stem}"
        for source in sorted(Path(found.origin).parent.glob("*.py"))
        if "\n@compiled" in source.read_text()
    ]


with atheris.instrument_imports(include=["alpha_pulse"], exclude=compiled_modules()):
    from alpha_pulse.contracts.codec import decode_event, decode_ingest, encode
    from alpha_pulse.contracts.config import ProcessorConfig
    from alpha_pulse.contracts.events import Candle, Trade
    from alpha_pulse.contracts.market import message_key
    from alpha_pulse.contracts.schema.examples import EXAMPLES
    from alpha_pulse.contracts.topics import DEAD_LETTERS, TRADES
    from alpha_pulse.processors.kernel.kernel import Kernel
    from alpha_pulse.processors.wire.records import EncodedRecords
    from alpha_pulse.producers.exchanges.decoder import FrameDecoder
    from alpha_pulse.producers.exchanges.tick import FrameError
    from tests.rooms import a_decoder

RECEIVED_US = 1_790_000_000_000_000
_EVENT = next(trade for trade in EXAMPLES[Trade].values() if isinstance(trade, Trade))
_KEY = message_key(_EVENT.exchange, _EVENT.symbol)
_RULES = ProcessorConfig(dead_letter_run_max=1_000_000, dead_letter_ratio_max=1.0)


def a_frame(name: str, data: bytes) -> None:
    """Decode one frame: ticks within their contract, or None, or `FrameError`."""
    decoder: FrameDecoder = a_decoder(name)
    text = data.decode("utf-8", "replace")
    try:
        ticks = decoder(text, RECEIVED_US)
    except FrameError:
        ticks = None
    for tick in ticks or ():
        if isinstance(tick, Trade | Candle):
            assert decode_ingest(encode(tick)) == tick
    # The fast way takes only what the slow way takes, and as the same trades.
    together = a_decoder(name).trades([text, text], RECEIVED_US)
    assert together is None or together == [*(ticks or ()), *(ticks or ())]


def some_records(data: bytes) -> None:
    """Admit lines as records: each goes on, counts as known, or becomes a dead letter."""
    values: list[bytes | None] = list(data.split(b"\n"))
    whole, single = (Kernel(_RULES, "ingest.events.v1", 0) for _ in range(2))
    timestamp_ms = _EVENT.trade_time_us // 1000
    offsets = range(len(values))
    lines = EncodedRecords.of(offsets, [_KEY] * len(values), values)
    whole.process(lines, timestamp_ms, len(values))
    for offset, value in enumerate(values):
        single.process(EncodedRecords.of([offset], [_KEY], [value]), timestamp_ms, offset + 1)
    outputs = whole.drain_outputs()
    parts = single.drain_outputs()
    assert {k: v for k, v in outputs.items() if v} == {k: v for k, v in parts.items() if v}
    for topic, records in outputs.items():
        for _, value in records:
            assert decode_event(value) is not None
            assert topic != TRADES.name or value in values
    assert len(outputs.get(DEAD_LETTERS.name, ())) == whole.counters.dead_letters


def main() -> None:
    """Hand libFuzzer the target that is named."""
    name = sys.argv.pop(1)

    def take(data: bytes) -> None:
        if name == "kernel":
            some_records(data)
        else:
            a_frame(name, data)

    atheris.Setup(sys.argv, take)
    atheris.Fuzz()


main()
