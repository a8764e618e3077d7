"""A small disk in memory that runs full and is made larger again; needs the right to mount."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.soak.linked_kafka import LinkedKafka

LARGER_MIB = 2_048
FILLER = "filler"
PIECE = bytes(1 << 20)


class SmallDisk:
    """A tmpfs at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kafka_exited = False

    @classmethod
    @contextmanager
    def mounted(cls, path: Path, mib: int) -> Iterator["SmallDisk"]:
        """Mount it, and unmount it at the end. Raises OSError where that is not allowed.

        What was on it stays at the path: a run that failed is looked into afterwards.
        """
        path.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(path))
        try:
            yield cls(path)
        finally:
            left = path.with_name(f"{path.name}-left")
            try:
                shutil.copytree(path, left, ignore=shutil.ignore_patterns(FILLER))
            finally:
                _run("umount", "--lazy", str(path))
            left.replace(path)

    async def run_full(self, kafka: LinkedKafka, seconds: float) -> None:
        """Fill it until nothing fits, wait, make it larger; start the broker that gave up again."""
        await asyncio.to_thread(self._fill)
        assert kafka.child is not None
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            self.kafka_exited = self.kafka_exited or kafka.child.exit_code is not None
            await asyncio.sleep(0.1)
        _run("mount", "-o", f"remount,size={LARGER_MIB}m", str(self.path))
        if kafka.child.exit_code is not None:
            await kafka.restart()

    def _fill(self) -> None:
        with (self.path / FILLER).open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(PIECE)
            except OSError:
                return


def can_mount(path: Path) -> bool:
    """Return whether a disk can be mounted here."""
    try:
        with SmallDisk.mounted(path / "trial", 1):
            return True
    except OSError:
        return False


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"expected {command[0]} to work, found: {done.stderr.strip()}")
