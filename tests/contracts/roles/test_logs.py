"""The log of every role: one place, one form."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_SAY = """
import logging
import structlog
from alpha_pulse.contracts.roles.logs import configure_logs
configure_logs()
log = structlog.get_logger()
log.debug("frame.taken")
log.info("batch.flushed", table="trades", rows=3)
logging.getLogger("aiokafka").info("joined")
try:
    raise OSError("gone")
except OSError:
    logging.getLogger("aiokafka").warning("no %s", "broker", exc_info=True)
"""


def test_where_nobody_looks_every_line_is_json_and_libraries_speak_from_warnings_on() -> None:
    said = subprocess.run([sys.executable, "-c", _SAY], capture_output=True, text=True, check=True)
    assert said.stdout == ""
    ours, theirs = map(json.loads, said.stderr.splitlines())
    assert (ours["event"], ours["level"], ours["rows"]) == ("batch.flushed", "info", 3)
    assert (theirs["event"], theirs["level"], theirs["logger"]) == (
        "no broker",
        "warning",
        "aiokafka",
    )
    assert "OSError: gone" in theirs["exception"]
    assert ours["timestamp"].endswith("Z")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_on_a_terminal_a_line_is_for_people(no_color: str) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", _SAY], stderr=theirs, env=environment, check=True)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65_536):
            said += chunk
    except OSError:  # Linux's way to say that a terminal has ended
        pass
    os.close(ours)
    assert b"batch.flushed" in said
    assert b"OSError: " in said
    assert b'{"' not in said
    assert (b"\x1b[" in said) == (not no_color)


def test_nothing_else_configures_the_log() -> None:
    for part in ("producers", "processors", "sinks", "contracts", "alpha_pulse"):
        for path in (ROOT / part).rglob("*.py"):
            if path.name != "logs.py":
                assert "structlog.configure(" not in path.read_text(), path
