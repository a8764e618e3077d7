"""A server process never outlives the one that started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alpha_pulse.embedded.child import GUARD, Child
from alpha_pulse.embedded.errors import ChildDiedError
from tests.patience import PATIENCE_S

# Writes its process id, then runs for ever.
SERVER = "import os,sys,time; print(os.getpid(), flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVER


def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def start(tmp_path: Path, code: str, grace_s: float = 10.0) -> tuple[Child, int]:
    child = Child.start(
        "the server", [sys.executable, "-c", code], log=tmp_path / "log", grace_s=grace_s
    )
    until(lambda: child.log_text().strip())
    return child, int(child.log_text().split()[0])


def test_a_stopped_child_ends_in_order(tmp_path: Path) -> None:
    child, pid = start(tmp_path, SERVER)
    assert child.stop_blocking(PATIENCE_S) == 128 + signal.SIGTERM
    assert not is_running(pid)


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    child, pid = start(tmp_path, STUBBORN, grace_s=0.2)
    assert child.stop_blocking(PATIENCE_S) == 128 + signal.SIGKILL
    assert not is_running(pid)


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, {str(GUARD)!r}, '5', sys.executable, '-c', "
        f"{SERVER!r}], stdin=subprocess.PIPE, start_new_session=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    until(lambda: not is_running(pid))
    parent.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_child_ends_when_its_guard_is_killed(tmp_path: Path) -> None:
    child, pid = start(tmp_path, SERVER)
    os.kill(child.pid, signal.SIGKILL)
    until(lambda: not is_running(pid))
    child.stop_blocking(1.0)


async def test_kill_ends_the_child_without_a_chance_to_tidy_up(tmp_path: Path) -> None:
    child, pid = start(tmp_path, STUBBORN)
    await child.kill()
    assert not is_running(pid)
    assert child.exit_code == 128 + signal.SIGKILL


async def test_the_error_of_a_dead_child_names_it_and_shows_its_last_lines(tmp_path: Path) -> None:
    child = Child.start(
        "the server",
        [sys.executable, "-c", "import sys; print('no such disk'); sys.exit(3)"],
        log=tmp_path / "log",
        grace_s=1.0,
    )
    assert await child.wait() == 3
    error = child.death()
    assert isinstance(error, ChildDiedError)
    assert "the server" in str(error)
    assert "exit code 3" in str(error)
    assert str(error).endswith("no such disk")


async def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    child = Child.start("the server", ["/no/such/program"], log=tmp_path / "log", grace_s=1.0)
    await child.wait()
    assert "/no/such/program" in str(child.death())
