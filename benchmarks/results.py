"""What was measured, kept: `benchmarks/results/NAME.ndjson`, a line per run.

A figure without its machine says little, so each line has the machine, the versions, and how busy
the machine was before and after. Compare within a run: that is what the ratios are for.
"""

import json
import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alpha_pulse.embedded.jars import KAFKA_VERSION

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("aiokafka", "ccxt", "chdb", "clickhouse-connect", "faust-streaming", "msgspec")


def keep(name: str, figures: dict[str, Any], load_before: float) -> None:
    """Append one run to the results of a benchmark."""
    RESULTS.mkdir(exist_ok=True)
    line = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "figures": figures,
    }
    with (RESULTS / f"{name}.ndjson").open("a") as file:
        file.write(json.dumps(line) + "\n")


def machine() -> dict[str, Any]:
    """Return the processor's name, cores, memory and kernel."""
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": found.group(1) if found else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release().partition("-")[0],
    }


def versions() -> dict[str, str]:
    """Return the versions of what was measured."""
    found = {"python": platform.python_version(), "kafka": KAFKA_VERSION}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def newest(name: str, figure: str = "") -> dict[str, Any] | None:
    """Return the last run of a benchmark that was kept; None when there is none.

    Args:
        name: of the benchmark.
        figure: one that the run must have; "": any run.
    """
    file = RESULTS / f"{name}.ndjson"
    if not file.exists():
        return None
    for text in reversed(file.read_text().splitlines()):
        run: dict[str, Any] = json.loads(text)
        if not figure or figure in run["figures"]:
            return run
    return None
