"""The directory that holds everything an embedded runtime keeps; one runtime at a time."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from alpha_pulse.embedded.errors import DataDirError

FREE_BYTES_MIN = 512 * 1024 * 1024


class DataDir:
    """An open, locked data directory.

    The servers inherit `lock_fd`, so the lock lasts until the last of them is gone, even where
    the parent was killed and its servers are still ending.
    """

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.lock_fd = lock_fd

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        wait_s: float,
        on_wait: Callable[[], None],
        free_bytes_min: int = FREE_BYTES_MIN,
    ) -> "DataDir":
        """Make the directory where it is missing, check its disk, and lock it. Blocks.

        wait_s: how long to wait for a runtime that is just ending.
        on_wait: called once when there is something to wait for.
        Raises: DataDirError when it is in use, cannot be written, or its disk is nearly full.
        """
        path = path.resolve()
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(
                f"expected a data directory that can be written at {path}, found: "
                f"{error.strerror}; choose another one with --data-dir"
            ) from error
        try:
            free_bytes = shutil.disk_usage(path).free
            if free_bytes < free_bytes_min:
                raise DataDirError(
                    f"expected {free_bytes_min / 1e6:.0f} MB of free disk for {path}, found "
                    f"{free_bytes / 1e6:.0f} MB; free some, or choose another one with --data-dir"
                )
            _lock(path, lock_fd, wait_s, on_wait)
        except BaseException:
            os.close(lock_fd)
            raise
        return cls(path, lock_fd)

    def close(self) -> None:
        """Give up our hold on the lock."""
        os.close(self.lock_fd)


def _lock(path: Path, lock_fd: int, wait_s: float, on_wait: Callable[[], None]) -> None:
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                holder = os.pread(lock_fd, 64, 0).decode(errors="replace").strip() or "unknown"
                raise DataDirError(
                    f"expected the data directory {path} to be free, found it in use by process "
                    f"{holder}; stop that one, or choose another directory with --data-dir"
                ) from error
            if not told:
                told = True
                on_wait()
            time.sleep(0.05)
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
