"""The exchange as a process of its own."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alpha_pulse.replay.markets.recording import Recording
from tests.application.replay.conftest import write_recording
from tests.patience import PATIENCE_S


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    running = subprocess.Popen(
        [sys.executable, "-m", "alpha_pulse.replay", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        yield running, json.loads(line) if line else {}
    finally:
        running.kill()
        running.wait(PATIENCE_S)
        for pipe in (running.stdin, running.stdout, running.stderr):
            if pipe is not None:
                pipe.close()


def gone(pid: int) -> bool:
    """Return whether a process has ended, reaped or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        return json.load(response)


def test_it_says_where_it_is_and_ends_with_its_standard_input(
    tmp_path: Path, recording: Recording
) -> None:
    folder = write_recording(tmp_path / "recording", recording)
    with process(str(folder)) as (running, ready):
        assert ready["symbols"] == ["BTC/USDT"]
        assert ready["end_us"] == recording.end_us
        assert ready["pid"] == running.pid
        assert get(ready["url"] + "/_state")["waiting_for"]
        assert get(ready["url"] + "/_ledger")["symbols"]["BTC/USDT"]["published"] == 0
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(PATIENCE_S) == 0


def test_it_ends_on_a_signal() -> None:
    with process("--synthetic", "BTC/USDT,ETH/USDT", "--seed", "3") as (running, ready):
        assert ready["end_us"] is None
        info = get(ready["url"] + "/api.binance.com/api/v3/exchangeInfo")
        assert [s["symbol"] for s in info["symbols"]] == ["BTCUSDT", "ETHUSDT"]
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE_S) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told on Linux alone")
def test_it_ends_when_its_parent_is_killed() -> None:
    script = (
        "import subprocess,sys,time\n"
        "p=subprocess.Popen([sys.executable,'-m','alpha_pulse.replay','--synthetic','BTC/USDT',"
        "'--keep-running'],stdout=subprocess.PIPE,stdin=subprocess.DEVNULL)\n"
        "print(p.stdout.readline().decode(),end='',flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = json.loads(parent.stdout.readline())["pid"]
        parent.kill()
        parent.wait(PATIENCE_S)
        ends = time.monotonic() + PATIENCE_S
        while not gone(child) and time.monotonic() < ends:
            time.sleep(0.05)
        assert gone(child)
    finally:
        parent.kill()
        parent.communicate()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["/no/such/folder"], "recording folder"),
        ([], "recording folder or --synthetic"),
        (["--synthetic", "BTC/USDT", "--faults", "earthquake"], "earthquake"),
        (["--synthetic", "BTC/USDT", "--minutes", "5", "--speed", "0"], "speed above 0"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_2(arguments: list[str], reason: str) -> None:
    with process(*arguments) as (running, ready):
        assert ready == {}
        assert running.stderr is not None
        errors = running.stderr.read()
        assert running.wait(20) == 2
        assert reason in errors
        assert "Traceback" not in errors
