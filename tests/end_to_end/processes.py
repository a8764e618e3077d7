"""Processes as they are seen from outside."""

import contextlib
import os
from pathlib import Path


def started(pid: int) -> str | None:
    """When a process began: with its id a name that no later process has. None: it has ended."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if status[0] == "Z" else status[19]
    return None


def descendants(pid: int) -> dict[int, str]:
    """Every process below one, by the name of the log that it writes."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found[int(child)] = Path(os.readlink(f"/proc/{child}/fd/1")).stem
            found |= descendants(int(child))
    return found
