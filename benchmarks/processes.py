"""Processes below this one: an exchange of its own, and what each has used of CPU and memory."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# What stands in a command line, and who that is.
MARKS = {
    "alpha_pulse.producers": "producer",
    "alpha_pulse.processors": "processor",
    "alpha_pulse.sinks": "sink",
    "alpha_pulse.replay": "exchange",
    "end_to_end_exchange.py": "exchange",
    "kafka.Kafka": "kafka",
    "embedded/front": "clickhouse",
    "embedded.front": "clickhouse",
}


@dataclass(frozen=True)
class Usage:
    """CPU seconds since the start of a process, and its resident memory now."""

    cpu_s: float
    rss_mib: float

    def since(self, earlier: "Usage", elapsed_s: float, rate: float) -> dict[str, float]:
        """Return cores used on average since then, CPU for each trade at a rate, and the memory."""
        cores = (self.cpu_s - earlier.cpu_s) / elapsed_s
        return {
            "cores": round(cores, 3),
            "us_per_trade": round(cores / rate * 1e6, 1),
            "rss_mib": round(self.rss_mib),
        }


@asynccontextmanager
async def serving(script: Path, *arguments: object) -> AsyncIterator[str]:
    """Run an exchange in a process of its own; yield its address, which it prints first."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


def usage_by_role() -> dict[str, Usage]:
    """Return the usage of every descendant of this process that has a role, and of itself."""
    found = {"benchmark": _usage(os.getpid())}
    for pid in _descendants(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            role = next((role for mark, role in MARKS.items() if mark in command), None)
            if role is not None and "guard.py" not in command:
                found[role] = _usage(pid)
        except OSError:
            continue  # ended meanwhile
    return found


def busy_core_s() -> float:
    """Return the CPU seconds that this machine has spent on anything since its start."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / TICKS


def fit(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what each role costs per trade and without trades, of runs at several rates.

    A straight line by least squares; empty when there is one rate only.
    """
    rates = [run["rate"] for run in runs]
    if len(set(rates)) < 2:
        return {}
    mean_rate = sum(rates) / len(rates)
    spread = sum((rate - mean_rate) ** 2 for rate in rates)
    fitted: dict[str, dict[str, float]] = {}
    for name in runs[0]["roles"]:
        cores = [run["roles"][name]["cores"] for run in runs]
        mean = sum(cores) / len(cores)
        both = zip(rates, cores, strict=True)
        slope = sum((rate - mean_rate) * (each - mean) for rate, each in both) / spread
        fitted[name] = {
            "us_per_trade": round(slope * 1e6, 2),
            "fixed_cores": round(mean - slope * mean_rate, 3),
        }
    return fitted


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _usage(pid: int) -> Usage:
    # Fields 14 and 15 of stat, counted behind the name, which may hold blanks.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Usage((int(fields[11]) + int(fields[12])) / TICKS, pages * PAGE_BYTES / 2**20)
