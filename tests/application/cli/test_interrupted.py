"""Ctrl-C ends every command with one line and 130, from its first moments on."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from alpha_pulse.cli.main import _is_interrupted
from tests.patience import PATIENCE_S

# Interrupts a command while it imports, or once its own code runs: no clock decides.
PROGRAM = """
import builtins, os, signal, sys
# Whoever runs the tests in the background of a shell has children ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from alpha_pulse.cli.__main__ import main
real, moment = builtins.__import__, sys.argv.pop(1)
def imported(name, *rest, **named):
    if name == moment:
        builtins.__import__ = real
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest, **named)
builtins.__import__ = imported
main()
"""
COMMANDS = {
    "backfill": ["backfill", "binance", "BTC/USDT", "--start", "2024-01-01"],
    "gaps": ["gaps"],
    "verify": ["verify"],
    "status": ["status"],
}


@pytest.mark.parametrize(
    ("command", "moment"),
    [
        *((command, moment) for command in COMMANDS for moment in ("typer", "asyncio")),
        *((command, "ccxt.pro") for command in ("backfill", "gaps", "verify")),
    ],
)
def test_ctrl_c_is_one_line_and_130(command: str, moment: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, moment, *COMMANDS[command]],
        env={**os.environ, "ALPHA_PULSE_EXCHANGE_URL": "http://127.0.0.1:9"},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr.splitlines()) == (130, ["interrupted"])


def test_ctrl_c_while_a_command_waits_is_one_line_and_130() -> None:
    program = (
        "import asyncio, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from alpha_pulse.cli.__main__ import main\n"
        "import alpha_pulse.cli.history.run as run\n"
        "async def waits(settings):\n"
        "    print('here', flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "    yield\n"
        "import contextlib\n"
        "run.reachable_clickhouse = contextlib.asynccontextmanager(waits)\n"
        "main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "verify"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        guard = threading.Timer(PATIENCE_S, process.kill)
        guard.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        guard.cancel()
    assert (process.returncode, said.splitlines()) == (130, ["interrupted"])


def test_an_interrupt_among_the_causes_counts() -> None:
    ended = SystemExit(130)
    ended.__cause__ = ConnectionError()
    assert not _is_interrupted(ended)
    ended.__cause__.__context__ = KeyboardInterrupt()
    assert _is_interrupted(ended)
