"""One runtime at a time in a directory, and a clear line where it cannot be had."""

import fcntl
import os
from pathlib import Path

import pytest

from alpha_pulse.embedded.data_dir import DataDir
from alpha_pulse.embedded.errors import DataDirError


def open_dir(path: Path, **changes: int) -> DataDir:
    return DataDir.open(path, wait_s=0.0, on_wait=lambda: None, **changes)


def test_a_directory_in_use_is_refused_with_the_process_that_holds_it(tmp_path: Path) -> None:
    held = open_dir(tmp_path)
    with pytest.raises(DataDirError, match=f"in use by process {os.getpid()}; stop that one"):
        open_dir(tmp_path)
    held.close()
    open_dir(tmp_path).close()


def test_the_lock_lasts_as_long_as_a_child_has_inherited_it(tmp_path: Path) -> None:
    held = open_dir(tmp_path)
    inherited = os.dup(held.lock_fd)  # as a server has it
    held.close()
    with pytest.raises(DataDirError, match="in use"):
        open_dir(tmp_path)
    os.close(inherited)
    open_dir(tmp_path).close()


def test_a_directory_that_becomes_free_is_waited_for(tmp_path: Path) -> None:
    held = open_dir(tmp_path)
    waited = []

    def release() -> None:
        waited.append(True)
        fcntl.flock(held.lock_fd, fcntl.LOCK_UN)

    DataDir.open(tmp_path, wait_s=30.0, on_wait=release).close()
    held.close()
    assert waited == [True]


def test_too_little_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match="of free disk") as caught:
        open_dir(tmp_path, free_bytes_min=2**62)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(DataDirError, match="choose another one"):
        open_dir(path)
