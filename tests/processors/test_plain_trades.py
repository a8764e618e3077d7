"""Without the compiled loop: nothing of it is imported, and the log gives the same bytes."""

import json
import subprocess
import sys
from pathlib import Path

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import StateWriter, restore
from alpha_pulse.processors.wire.records import EncodedRecords
from tests.patience import PATIENCE_S

START_US = 1_763_942_400_000_000
KEY = b"binance:BTC/USDT"
COUNT, CUT = 60, 40


def values() -> list[bytes]:
    """Return a trade every half minute."""
    times_us = [START_US + number * MINUTE_US // 2 for number in range(COUNT)]
    return [
        encode(
            Trade(
                exchange="binance", symbol="BTC/USDT", trade_id=str(number), price=f"{number}.50",
                amount="2", side="sell", trade_time_us=time_us, receive_time_us=time_us,
            )
        )
        for number, time_us in enumerate(times_us, 1)
    ]  # fmt: skip


def ingest(kernel: Kernel, first: int, end: int) -> dict[str, list[str]]:
    """Return what comes out of a kernel that takes in some of the trades."""
    part = values()[first:end]
    records = EncodedRecords.of(range(first, end), [KEY] * len(part), part)
    kernel.process(records, (START_US + COUNT * MINUTE_US) // 1000, end)
    outputs = kernel.drain_outputs()
    return {
        name: [value.decode() for _, value in outputs[name]] for name in outputs if outputs[name]
    }


def new_kernel(*, compiled: bool) -> Kernel:
    return Kernel(ProcessorConfig(compiled=compiled), "ingest.events.v1", 0)


def go_on_without(state: str) -> str:
    """Return what a kernel without the loop makes of the rest; called in a process of its own."""
    records = {bytes.fromhex(key): bytes.fromhex(value) for key, value in json.loads(state)}
    kernel = new_kernel(compiled=False)
    restore(kernel, records)
    found = ingest(kernel, CUT, COUNT)
    loaded = [name for name in sys.modules if name.startswith("alpha_pulse.processors.compiled")]
    assert loaded == [], f"expected no module of the compiled loop, found {loaded}"
    return json.dumps(found)


def test_a_process_without_it_goes_on_from_its_state_and_imports_nothing_of_it() -> None:
    kernel = new_kernel(compiled=True)
    ingest(kernel, 0, CUT)
    progress = kernel.plain.progress(KEY)
    assert progress is not None
    assert progress.closed, "the state holds windows that only the loop knows"
    assert progress.newest
    state = StateWriter(10**6).snapshot(kernel)
    expected = ingest(kernel, CUT, COUNT)
    assert len(expected["market.candles.1m.v1"]) == (COUNT - CUT) // 2

    code = (
        "import alpha_pulse.processors.worker.trade_path\n"
        "import sys; from tests.processors.test_plain_trades import go_on_without\n"
        "print(go_on_without(sys.stdin.read()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=PATIENCE_S, capture_output=True,
        input=json.dumps([(key.hex(), value.hex()) for key, value in state]), text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert json.loads(found.stdout) == expected
