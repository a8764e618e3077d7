"""Roles kept running: reported, started again later and later, ended in time and in order."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from alpha_pulse.cli.pipeline import role_processes, supervise
from alpha_pulse.cli.pipeline.role_processes import RoleProcesses
from alpha_pulse.cli.pipeline.supervise import Worker
from alpha_pulse.contracts.config import Config
from alpha_pulse.embedded.errors import ChildDiedError, EmbeddedRuntimeError
from tests.patience import PATIENCE_S

FAILING = """
import sys
print('{"event": "sink.failed", "level": "error", "error": "no tables"}', file=sys.stderr)
sys.exit(1)
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
ORDERLY = """
import signal, sys, time
def end(*_):
    with open(ORDER, "a") as file:
        file.write(ROLE + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of made-up roles, importable by the processes that are started."""
    for name, text in {"failing": FAILING, "stubborn": STUBBORN}.items():
        (tmp_path / f"made_up_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


async def ready(roles: RoleProcesses, *names: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for name in names:
            while True:
                if "ready" in roles[name].log_text():
                    break
                await asyncio.sleep(0.02)


async def test_a_role_that_dies_starts_again_later_and_later_with_its_last_words(
    modules: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(role_processes.ROLE_MODULES, "sink", "made_up_failing")
    monkeypatch.setattr(supervise, "RESTART_WAIT_S", 0.01)
    monkeypatch.setattr(supervise, "RESTART_WAIT_S_MAX", 0.04)
    running = asyncio.create_task(
        supervise.supervise([Worker("sink", "sink", Config())], modules / "logs")
    )
    said = ""
    async with asyncio.timeout(PATIENCE_S):
        while said.count("it starts again") < 4:
            await asyncio.sleep(0.02)
            said += capsys.readouterr().err
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    lines = [line for line in said.splitlines() if "it starts again" in line]
    assert lines[0].startswith("sink ended with exit code 1 (sink.failed: no tables)")
    waits = [float(line.split(" again in ")[1].split()[0]) for line in lines[:4]]
    assert waits == sorted(waits)
    assert "no tables" in (modules / "logs/sink.log.1").read_text()


async def test_all_roles_end_in_time_although_one_does_not_listen(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in role_processes.ROLE_MODULES:
        monkeypatch.setitem(role_processes.ROLE_MODULES, role, "made_up_stubborn")
    monkeypatch.setattr(role_processes, "STOP_RESERVE_S", 0.2)
    roles = RoleProcesses(modules / "logs")
    names = {"producer": "producer", "processor-1": "processor", "sink": "sink"}
    for name, role in names.items():
        roles.start(name, role, Config())
    await ready(roles, *names)
    children = [roles[name] for name in names]
    # Each of them alone has that much grace.
    async with asyncio.timeout(role_processes.STOP_GRACE_S):
        await roles.stop_all(within_s=1.0)
    assert all(child.exit_code is not None for child in children)


async def test_roles_end_in_the_order_of_the_flow(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = RoleProcesses(modules / "logs")
    for role in role_processes.ROLE_MODULES:
        (modules / f"made_up_{role}.py").write_text(
            f"ROLE = {role!r}\nORDER = {str(modules / 'order')!r}\n{ORDERLY}"
        )
        monkeypatch.setitem(role_processes.ROLE_MODULES, role, f"made_up_{role}")
    for role in ("sink", "processor", "producer"):
        roles.start(role, role, Config())
    await ready(roles, "sink", "processor", "producer")
    await roles.stop_all()
    assert (modules / "order").read_text().split() == ["producer", "processor", "sink"]


class Servers:
    """A runtime whose Kafka dies twice and does not come up at the first attempt."""

    def __init__(self) -> None:
        self.deaths = 3
        self.restarts = 0

    async def wait_dead_server(self) -> tuple[str, ChildDiedError]:
        if self.deaths == 0:
            await asyncio.Event().wait()
        self.deaths -= 1
        return "kafka", ChildDiedError("expected Kafka to run, found it ended by signal 9")

    async def restart(self, name: str) -> None:
        assert name == "kafka"
        self.restarts += 1
        if self.restarts == 1:
            raise EmbeddedRuntimeError("expected port 1 to be free, found it taken")


async def test_an_embedded_server_that_dies_starts_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(supervise, "RESTART_WAIT_S", 0.0)
    servers = Servers()
    task = asyncio.create_task(supervise.keep_servers(servers))  # type: ignore[arg-type]
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if servers.restarts == 3:
                break
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    said = capsys.readouterr().err
    assert said.count("found it ended by signal 9") == 3
    assert "expected port 1 to be free" in said
    assert said.count("kafka is up again") == 2


def test_what_a_role_says_again_and_again_is_repeated_now_and_then() -> None:
    said = supervise.Said()
    assert said.again("sink", "a", 0.0) == 0
    assert said.again("sink", "a", 1.0) is None
    assert said.again("sink", "a", 2.0) is None
    assert said.again("sink", "b", 2.0) == 0
    assert said.again("processor", "a", 2.0) == 0
    assert said.again("sink", "a", supervise.REPEAT_S_MIN) == 2
    assert said.again("sink", "a", supervise.REPEAT_S_MIN * 2) == 0
