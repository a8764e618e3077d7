"""`make` sets the environment up when it has to, and only then. Nothing is installed here."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("contracts", "producers", "processors", "sinks")
SETS_UP = "-m venv --clear .venv"


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[str], str]:
    """Return what make would run for a target, in a folder that was set up once."""
    for name in ("requirements/dev.txt", "requirements/uv.txt", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for part in PARTS:
        (tmp_path / part).mkdir()
        (tmp_path / part / "pyproject.toml").touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/.ready").touch()

    def planned(target: str) -> str:
        command = ["make", "--dry-run", "-f", str(ROOT / "Makefile"), target]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    return planned


@pytest.mark.parametrize("target", ["test", "demo"])
def test_an_environment_that_works_is_left_alone(
    target: str, plan: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    assert SETS_UP not in plan(target)


@pytest.mark.parametrize("target", ["test", "demo"])
@pytest.mark.parametrize("interpreter", ["gone", "too old"])
def test_an_environment_without_its_interpreter_is_set_up_again(
    target: str, interpreter: str, plan: Callable[[str], str], tmp_path: Path
) -> None:
    python = tmp_path / ".venv/bin/python"
    if interpreter == "gone":
        python.symlink_to(tmp_path / "removed/python3")
    else:
        python.write_text("#!/bin/sh\nexit 1\n")  # what its version check answers
        python.chmod(0o755)
    steps = plan(target)
    assert steps.index(SETS_UP) < steps.index("touch .venv/.ready")
