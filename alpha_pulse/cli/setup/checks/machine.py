"""Python, disk, ports, open files."""

import os
import resource
import shutil
import socket
import sys
from pathlib import Path

from alpha_pulse.cli.setup.checks.check import Check, failure, ok, warning
from alpha_pulse.contracts.config import Config
from alpha_pulse.embedded.ports import HOST

PYTHON_MIN = (3, 11)
PYTHON_TESTED_MAX = (3, 13)
DISK_BYTES_MIN = 2**30
DISK_BYTES_ADVISED = 10 * 2**30
OPEN_FILES_ADVISED = 4096


def check_machine(config: Config) -> list[Check]:
    """Return what is found of this machine."""
    return [
        check_python(sys.version_info[:2]),
        check_disk(Path(config.data_dir)),
        check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        *check_ports(config),
    ]


def check_python(version: tuple[int, int]) -> Check:
    """Return whether this Python is one that the project runs on."""
    shown = ".".join(map(str, version))
    if version < PYTHON_MIN:
        return failure("python", shown, "install Python 3.11 to 3.13")
    if version > PYTHON_TESTED_MAX:
        return warning("python", f"{shown}, newer than what is tested", "use Python 3.11 to 3.13")
    return ok("python", shown)


def check_disk(data_dir: Path) -> Check:
    """Return whether the data directory can be written and has room."""
    existing = next(p for p in (data_dir.absolute(), *data_dir.absolute().parents) if p.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return failure(
            "disk", f"{existing} can't be written", "set ALPHA_PULSE_DATA_DIR to one that can"
        )
    free = shutil.disk_usage(existing).free
    found = f"{free / 2**30:.1f} GiB free at {data_dir}"
    if free < DISK_BYTES_MIN:
        return failure("disk", found, "make room: Kafka stops when its disk is full")
    if free < DISK_BYTES_ADVISED:
        return warning("disk", found, "make room, or lower [topics] retention_scale")
    return ok("disk", found)


def check_open_files(limit: int) -> Check:
    """Return whether this process may open enough files and sockets."""
    if limit != resource.RLIM_INFINITY and limit < OPEN_FILES_ADVISED:
        return warning("open files", f"{limit} at most", f"ulimit -n {OPEN_FILES_ADVISED}")
    return ok("open files", "no limit" if limit == resource.RLIM_INFINITY else f"{limit} at most")


def check_ports(config: Config) -> list[Check]:
    """Return which of the roles' ports are taken; each has nine more behind it."""
    metrics = config.metrics
    if not metrics.enabled:
        return [ok("ports", "metrics are off")]
    wanted = {
        "producer": metrics.producer_port,
        "processor": metrics.processor_port,
        "sink": metrics.sink_port,
    }
    taken = [f"{port} ({role})" for role, port in wanted.items() if port and is_taken(port)]
    if not taken:
        return [ok("ports", f"{', '.join(str(port) for port in wanted.values())} are free")]
    return [ok("ports", f"in use: {', '.join(taken)}; another worker takes the next one")]


def is_taken(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex((HOST, port)) == 0
