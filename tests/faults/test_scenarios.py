"""Each scenario through the whole path, held against the exchange's ledger: long form only.

`make faults` runs them (`ALPHA_PULSE_FAULTS=full`); one alone: `make soak SCENARIO="network cut"`.
`make nightly` asks for so many TRADES through each that kills or ends roles.
What failed is left in the test's directory: logs, ledger.json, summary.json, data.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.soak.__main__ import soak
from tests.faults.soak.pipeline import Load
from tests.faults.soak.plan import ROLES, SCENARIOS, plan_scenario
from tests.faults.soak.small_disk import can_mount
from tests.patience import FULL

SEED = int(os.environ.get("SEED", "20261122"))
TRADES = int(os.environ.get("TRADES", "0"))
KILLS = 20
LOAD = Load(symbols=4, rate=300.0, seed=SEED)

pytestmark = [
    pytest.mark.skipif(
        not FULL,
        reason="minutes each: make faults, or ALPHA_PULSE_FAULTS=full",
    ),
    pytest.mark.timeout(1_800),
]


@pytest.mark.parametrize("name", [*SCENARIOS, *(f"kill {role}" for role in ROLES), "terminate"])
def test_nothing_is_lost_doubled_or_different(name: str, tmp_path: Path) -> None:
    if name == "full disk" and not can_mount(tmp_path):
        pytest.skip("needs the right to mount a tmpfs")
    plan = plan_scenario(name, SEED, times=KILLS)
    seconds = max(accident.at_s + accident.seconds for accident in plan)
    load, least = LOAD, 0
    if name.startswith(("kill ", "terminate")):
        least = TRADES
        # A made-up market has quiet minutes: it prints about 0.8 of its rate in the mean.
        load = replace(LOAD, rate=max(LOAD.rate, 1.4 * TRADES / seconds))
    summary = soak(tmp_path, load, plan, seconds)
    print(json.dumps(summary))
    assert summary["failures"] == [], f"left in {tmp_path}"
    assert summary["clickhouse"]["published"] >= least, f"left in {tmp_path}"
