"""The containers in their long form: Compose's own reader, the images' install step.

`make faults` runs them; where an engine answers, the images are built and started for real.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.patience import FULL

ROOT = Path(__file__).parents[2]
ROLES = ("producers", "processors", "sinks")
LONG_S = 900

pytestmark = [
    pytest.mark.skipif(
        not FULL,
        reason="minutes each: make faults, or ALPHA_PULSE_FAULTS=full",
    ),
    pytest.mark.timeout(LONG_S),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Only what the image is built from, as a build context without leftovers."""
    tracked = subprocess.run(
        ["git", "ls-files", "requirements", "docker", "contracts", *ROLES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    context = tmp_path / "context"
    for name in tracked:
        if (ROOT / name).exists():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, context / name)
    return context


@pytest.mark.skipif(
    shutil.which("go") is None, reason="needs go: Compose's reader is written in it"
)
def test_compose_itself_reads_the_file_as_we_do() -> None:
    done = subprocess.run(
        ["go", "run", ".", str(ROOT / "compose.yaml")],
        cwd=ROOT / "tests/application/containers/compose_go",
        env={**os.environ, "GOFLAGS": "-mod=readonly"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)["services"]
    ours = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert read.keys() == ours.keys()
    for name, service in ours.items():
        assert read[name].get("command") == service.get("command"), name
        for key in ("environment", "depends_on"):
            asked, found = (set(of.get(key) or ()) for of in (service, read[name]))
            assert asked == found, (name, key)
        assert read[name].get("read_only", False) == service.get("read_only", False), name


@pytest.mark.parametrize("role", ROLES)
def test_the_install_step_gives_a_role_that_runs_and_no_other(
    source: Path, tmp_path: Path, role: str
) -> None:
    for other in set(ROLES) - {role}:
        shutil.rmtree(source / other)
    target = tmp_path / "installed"
    step = ["sh", "docker/install-role.sh", role, str(target)]
    installed = subprocess.run(step, cwd=source, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    shutil.rmtree(source)
    started = {"processors": "alpha_pulse.processors.app"}.get(role, f"alpha_pulse.{role}.role")
    importing = f"import {started}, alpha_pulse.contracts.roles.metrics.probe"
    done = subprocess.run(
        [target / "bin/python", "-I", "-c", importing], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (there,) = (target / "lib").glob("python*/site-packages/alpha_pulse")
    assert {path.name for path in there.iterdir() if path.is_dir()} == {"contracts", role}


@pytest.fixture
def engine() -> str:
    """The docker command, where an engine answers."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("needs docker")
    answer = subprocess.run([docker, "version"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"no Docker engine answers: {answer.stderr.strip().splitlines()[-1:]}")
    return docker


@pytest.mark.docker
@pytest.mark.parametrize("role", ROLES)
def test_an_image_is_built_and_runs_as_nobody_on_a_read_only_root(
    engine: str, source: Path, role: str
) -> None:
    shutil.copy(ROOT / "Dockerfile", source / "Dockerfile")
    tag = f"alpha-pulse-test-{role}-{os.getpid()}"
    subprocess.run(
        [engine, "build", "--build-arg", f"ROLE={role}", "--tag", tag, str(source)], check=True
    )
    try:
        asking = "import os; print(os.getuid(), os.environ['ALPHA_PULSE_ROLE'])"
        limits = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]
        shown = subprocess.run(
            [engine, "run", "--rm", *limits, tag, "python", "-c", asking],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert shown == ["10001", role]
    finally:
        subprocess.run([engine, "rmi", "--force", tag], check=False, capture_output=True)
