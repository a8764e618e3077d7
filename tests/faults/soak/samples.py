"""Memory, descriptors and threads of the roles, sampled, and the rule that calls them flat."""

import signal
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE_BYTES = 4096
# Flat: the last third's maximum is at most the second third's, plus a tenth, plus this much.
SLACK = {"rss_mib": 48.0, "descriptors": 10.0, "threads": 4.0}
GROWTH_MAX = 1.10


def read_process(pid: int) -> dict[str, float] | None:
    """Return what a process holds now; None when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    except (OSError, IndexError):
        return None
    return {"rss_mib": pages * PAGE_BYTES / 2**20, "descriptors": descriptors, "threads": threads}


def catches(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@dataclass
class Samples:
    """By role and quantity: (seconds, value)."""

    series: dict[str, dict[str, list[tuple[float, float]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, name: str, at_s: float, values: dict[str, float]) -> None:
        """Note what a role holds at a time."""
        for quantity, value in values.items():
            self.series[name][quantity].append((at_s, value))

    def verdict(self, end_s: float) -> dict[str, Any]:
        """Return for each role and quantity the maximum of each third, and whether it is flat."""
        return {
            name: {
                quantity: self._of(points, quantity, end_s)
                for quantity, points in quantities.items()
            }
            for name, quantities in sorted(self.series.items())
        }

    def _of(self, points: list[tuple[float, float]], quantity: str, end_s: float) -> dict[str, Any]:
        thirds = [
            max(
                (v for at_s, v in points if end_s * n / 3 <= at_s < end_s * (n + 1) / 3),
                default=0.0,
            )
            for n in range(3)
        ]
        limit = thirds[1] * GROWTH_MAX + SLACK[quantity]
        return {"maxima": [round(v, 1) for v in thirds], "flat": thirds[2] <= limit}
