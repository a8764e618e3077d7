"""The order to end: heard before the imports, while running, and when it is repeated at the end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from alpha_pulse.contracts.roles.stopping import SIGNALS, hold_signals_for_exec, stop_on_signal
from tests.patience import PATIENCE_S

ROLES = ["alpha_pulse.producers", "alpha_pulse.processors", "alpha_pulse.sinks"]


@pytest.fixture
def own_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@pytest.fixture
def endless_import(tmp_path: Path) -> dict[str, str]:
    # Every role imports msgspec, none can do without: this one says so and never ends.
    code = "import time\nprint('importing', flush=True)\nwhile True: time.sleep(60)\n"
    (tmp_path / "msgspec.py").write_text(code)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", [*([role] for role in ROLES), ["alpha_pulse.cli", "sink"]])
def test_a_role_that_is_told_to_end_while_it_imports_ends_with_0(
    command: list[str], number: signal.Signals, endless_import: dict[str, str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", *command], env=endless_import, stdout=subprocess.PIPE
    ) as role:
        assert role.stdout is not None
        assert role.stdout.readline() == b"importing\n"
        role.send_signal(number)
        assert role.wait(PATIENCE_S) == 0


def test_a_role_that_was_told_before_its_first_line_ends_with_0(own_handlers: None) -> None:
    hold_signals_for_exec()  # what a process does that replaces itself by a role
    with subprocess.Popen([sys.executable, "-m", ROLES[-1]]) as role:
        role.send_signal(signal.SIGTERM)
        assert role.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_order_that_is_repeated_does_not_cut_the_end_short(
    new_loop: Callable[[], asyncio.AbstractEventLoop], number: signal.Signals, own_handlers: None
) -> None:
    async def work() -> None:
        stop = asyncio.Event()
        stop_on_signal(stop)
        signal.raise_signal(number)
        await asyncio.wait_for(stop.wait(), PATIENCE_S)
        signal.raise_signal(number)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(work())
    signal.raise_signal(number)  # its loop is closed: a default handler would end the tests here


@pytest.mark.parametrize("number", SIGNALS)
def test_a_role_that_hangs_while_it_ends_is_gone_with_0_when_its_time_is_over(
    number: signal.Signals,
) -> None:
    program = f"""
import asyncio, signal
from alpha_pulse.contracts.roles import stopping

async def work():
    stop = asyncio.Event()
    stopping.stop_on_signal(stop, 0.1)
    signal.raise_signal({int(number)})
    await stop.wait()
    print("told", flush=True)
    await asyncio.Event().wait()  # a client that never closes

asyncio.run(work())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        timeout=PATIENCE_S, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("told")
    assert "ending.cut_short" in done.stdout + done.stderr
