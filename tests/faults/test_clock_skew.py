"""Roles whose clocks are an hour off, or step, through the whole path: long form only.

No faketime is needed: a `sitecustomize` in front of each role's imports moves `time.time` and
`time.time_ns`, which is all that the roles read of the wall clock (a test holds that). The short
form is in test_disorder.py.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from alpha_pulse.replay.markets.write_recording import write_recording
from alpha_pulse.replay.verdict import recompute_minutes
from tests.patience import FULL, PATIENCE_S

ROOT = Path(__file__).parents[2]
MINUTE_US = 60_000_000
# Where `datetime.now` or `utcnow` would read the clock past `time`.
OTHER_CLOCKS = {"now", "utcnow", "today"}

# Role to (seconds off from the start, seconds off later, from when on).
SKEWS = {
    "an hour ahead": {"producers": (3600, 3600), "processors": (3600, 3600), "sinks": (3600, 3600)},
    "an hour behind": {
        "producers": (-3600,) * 2,
        "processors": (-3600,) * 2,
        "sinks": (-3600,) * 2,
    },
    "against each other": {"producers": (3600, 3600), "processors": (-3600, -3600)},
    "a step of -10 s": {"producers": (0, -10), "processors": (0, -10), "sinks": (0, -10)},
}
STEP_AFTER_S = 6.0

SITECUSTOMIZE = """
import json, os, sys, time
skews = json.loads(os.environ["TEST_CLOCK_SKEWS"])
role = next((r for r in skews if f"alpha_pulse.{r}" in sys.orig_argv), None)
if role:
    before_s, after_s = skews[role]
    step_at = time.monotonic() + %f
    true_time, true_ns = time.time, time.time_ns
    def off_s():
        return after_s if time.monotonic() >= step_at else before_s
    time.time = lambda: true_time() + off_s()
    time.time_ns = lambda: true_ns() + int(off_s() * 1e9)
    with open(os.environ["TEST_CLOCK_FILE"], "a") as file:
        print(role, file=file)
"""


@pytest.mark.parametrize("part", ["producers", "processors", "sinks"])
def test_roles_read_the_wall_clock_through_time_only(part: str) -> None:
    for file in (ROOT / part / "alpha_pulse" / part).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                read = node.func.attr in OTHER_CLOCKS and owner in ("datetime", "date")
                assert not read, f"{file}:{node.lineno} {ast.unparse(node)}"


@pytest.mark.skipif(not FULL, reason="half a minute each: make faults, or ALPHA_PULSE_FAULTS=full")
@pytest.mark.parametrize("name", SKEWS)
def test_candles_are_the_same_whatever_the_clocks_of_the_roles_say(
    name: str, runtime: Runtime, namespace: str, tmp_path: Path
) -> None:
    market = SyntheticMarket("ETH/USDT", 7)
    first = market.position_at(market.begin_us + MINUTE_US // 3)
    trades = list(market.rows(first, market.position_at(market.begin_us + 10 * MINUTE_US)))
    recording = tmp_path / "recording"
    recording.mkdir()
    write_recording(
        recording,
        exchange="binance",
        symbol="ETH/USDT",
        source="made-up market, seed 7",
        trades=trades,
        candles=recompute_minutes(trades)[1:-1],
    )
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE % STEP_AFTER_S)
    told = tmp_path / "told"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "alpha_pulse.cli", "--namespace", namespace),
            *("replay", str(recording), "--json", "--workers", "2"),
        ],
        env={
            **os.environ,
            "ALPHA_PULSE_KAFKA": runtime.kafka,
            "ALPHA_PULSE_CLICKHOUSE": runtime.clickhouse,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
            "TEST_CLOCK_SKEWS": json.dumps(SKEWS[name]),
            "TEST_CLOCK_FILE": str(told),
        },
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(told.read_text().split()) == set(SKEWS[name]), "the clocks were moved"
    assert result["trades"]["sent"] == result["trades"]["stored"] > 100
    assert result["candles"]["equal"] == result["candles"]["compared"] > 5
    assert result["rollups"]["equal"] == result["rollups"]["compared"] > 5
