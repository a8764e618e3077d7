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


def children(pid: int) -> list[int]:
    """Return the processes that one has started and that still run; none when it is gone."""
    with contextlib.suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def descendants(pid: int) -> dict[int, str]:
    """Every process below one, by the name of the log that it writes."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for child in children(pid):
            found[child] = Path(os.readlink(f"/proc/{child}/fd/1")).stem
            found |= descendants(child)
    return found
