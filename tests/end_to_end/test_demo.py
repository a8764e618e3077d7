"""`alpha-pulse demo`, the README's first command: a market, its path, a page, one Ctrl-C."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alpha_pulse.cli.run.demo import SYMBOLS
from tests.patience import PATIENCE_S
from tests.processes import descendants, started

PAGE = "candles in a browser: "
# Each look asks ClickHouse, which then has less time for what is waited for.
LOOK_INTERVAL_S = 0.4
# Minutes of the past that history brings before it counts as there; the hour has sixty.
PAST_MINUTES = 50


def asked(url: str, body: str | None = None) -> str:
    """Return an answer's text, "" while nothing answers."""
    with contextlib.suppress(OSError):
        request = urllib.request.Request(url, body.encode() if body else None)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    return ""


def until(process: subprocess.Popen[bytes], said: Path, holds: Callable[[], Any], what: str) -> Any:
    end_s = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < end_s, f"expected {what}, found:\n{said.read_text()[-4_000:]}"
        time.sleep(LOOK_INTERVAL_S)
    return found


def rows(state: Path, sql: str) -> list[dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError):
        addresses = json.loads((state / "addresses.json").read_text())
        answer = asked(f"{addresses['clickhouse']}/?database=alpha_pulse", f"{sql} FORMAT JSON")
        return list(json.loads(answer)["data"])
    return []


async def test_the_demo_shows_a_market_with_its_last_hour_and_one_ctrl_c_ends_all_of_it(
    tmp_path: Path,
) -> None:
    await asyncio.to_thread(show_and_end, tmp_path)


def show_and_end(directory: Path) -> None:
    said, state = directory / "said", directory / "state"
    own = {k: v for k, v in os.environ.items() if not k.startswith("ALPHA_PULSE_")}
    # Free ports of its own: another demo may be running.
    ports = {f"ALPHA_PULSE_METRICS_{role}_PORT": "0" for role in ("PRODUCER", "PROCESSOR", "SINK")}
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "alpha_pulse.cli", "demo", "--data-dir", str(state)],
            env={**own, **ports, "ALPHA_PULSE_PAGE_PORT": "0"},
            stdout=output,
            stderr=output,
        )
    try:
        page = until(
            process, said, lambda: said.read_text().partition(PAGE)[2].split()[:1], "a page"
        )[0]
        assert "<html" in asked(page).lower()
        live = "SELECT symbol FROM latest"
        until(process, said, lambda: {row["symbol"] for row in rows(state, live)} == set(SYMBOLS),
              "trades of every symbol")  # fmt: skip
        past = (
            "SELECT symbol, count() AS minutes FROM candles WHERE timeframe = '1m' "
            f"GROUP BY symbol HAVING minutes >= {PAST_MINUTES}"
        )
        until(process, said, lambda: len(rows(state, past)) == len(SYMBOLS), "the last hour")
        everything = {pid: started(pid) for pid in descendants(process.pid)}
        assert len(everything) > 5, "Kafka, ClickHouse, the exchange and the roles"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0, said.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert not [pid for pid, was in everything.items() if started(pid) == was]
