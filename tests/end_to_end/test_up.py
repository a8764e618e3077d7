"""`alpha-pulse up` as a user runs it: one file of settings, its own servers, roles kept running."""

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

import pytest

from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from tests.patience import PATIENCE_S, check_promise
from tests.processes import descendants, started

ROLES = ("producer", "processor-1", "sink")
SYMBOLS = ("BTC/USDT", "ETH/USDT")
DRAIN_S_MAX = 10.0
# Each look asks ClickHouse, which then has less time for what is waited for.
LOOK_INTERVAL_S = 0.2
# Trades stored after a kill before it counts as overcome.
FLOWING_AGAIN = 50

SETTINGS = """
namespace = "up"
data_dir = "{data_dir}"

[topics]
partitions = 2

[producer]
symbols = ["BTC/USDT", "ETH/USDT"]

[metrics]
producer_port = 0
processor_port = 0
sink_port = 0

[history]
repair = false

[page]
port = 0
"""


def environment(directory: Path, exchange: str) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("ALPHA_PULSE_")}
    return {
        **own,
        "ALPHA_PULSE_CONFIG": str(directory / "pipeline.toml"),
        "ALPHA_PULSE_EXCHANGE_URL": exchange,
    }


def run(directory: Path, exchange: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alpha_pulse.cli", *arguments],
        env=environment(directory, exchange),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


class Up:
    """`alpha-pulse up` as a process, and what can be seen of it from outside."""

    def __init__(self, directory: Path, exchange: str) -> None:
        self.directory = directory
        self._said = directory / "said"
        with self._said.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "alpha_pulse.cli", "up"],
                env=environment(directory, exchange),
                stdout=output,
                stderr=output,
            )

    def said(self, text: str = "") -> str:
        """Return what it said so far, "" when a text is not in it yet."""
        said = self._said.read_text()
        return said if text in said else ""

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            found = holds()
            if found:
                return found
            assert self.process.poll() is None, self.said()
            time.sleep(LOOK_INTERVAL_S)
        raise AssertionError(f"expected {what}, found:\n{self.said()[-4_000:]}")

    def clickhouse(self) -> str | None:
        with contextlib.suppress(OSError, ValueError):
            addresses = json.loads((self.directory / "state/addresses.json").read_text())
            return str(addresses["clickhouse"])
        return None

    def stored(self) -> int:
        query = "SELECT count() FROM up_alpha_pulse.trades_log"
        with contextlib.suppress(OSError):
            request = urllib.request.Request(self.clickhouse() or "", query.encode())
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.read())
        return 0

    def role_pid(self, name: str) -> int | None:
        # Each role runs below a guard, which shares its log.
        below = [pid for pid, log in descendants(self.process.pid).items() if log == name]
        return next((pid for pid in below if not descendants(pid)), None)

    def kill(self, name: str) -> None:
        """Kill a role, and return when it was reported, runs again and trades flow."""
        before = self.until(self.stored, "trades in ClickHouse")
        pid = self.until(lambda: self.role_pid(name), f"{name} to run")
        os.kill(pid, signal.SIGKILL)
        # 137 is 128 + SIGKILL, as shells say it.
        end = f"{name} ended with exit code 137; it starts again in "
        self.until(lambda: self.said(end), f"the end of {name} to be reported")
        self.until(lambda: self.role_pid(name) not in (None, pid), f"{name} to run again")
        more = before + FLOWING_AGAIN
        self.until(lambda: self.stored() > more, f"trades to flow again after {name}")

    def terminate(self) -> tuple[float, int]:
        """End it with SIGTERM; return the seconds until every role had ended, and its exit code."""
        roles = [self.role_pid(name) or 0 for name in ROLES]
        assert all(roles)
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        while any(started(pid) for pid in roles):
            assert time.monotonic() - begun < PATIENCE_S, self.said()
            time.sleep(0.02)
        return time.monotonic() - begun, self.process.wait(PATIENCE_S)


async def test_a_killed_role_comes_back_and_sigterm_ends_everything_with_nothing_lost(
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("SEED", "8"))
    print(f"SEED={seed}")
    (tmp_path / "pipeline.toml").write_text(SETTINGS.format(data_dir=tmp_path / "state"))
    markets = [
        SyntheticMarket(symbol, seed, trades_per_minute=600, quiet_minutes=0.0)
        for symbol in SYMBOLS
    ]
    async with ReplayExchange(markets, live=True) as exchange:
        await asyncio.to_thread(kill_terminate_and_count, tmp_path, exchange.url)


def kill_terminate_and_count(directory: Path, exchange: str) -> None:
    up = Up(directory, exchange)
    try:
        up.until(lambda: up.said("candles in a browser: http://127.0.0.1:"), "a page")
        assert up.said(f"following {', '.join(SYMBOLS)} on binance; Kafka 127.0.0.1:")
        for name in ROLES:
            up.kill(name)
        everything = {pid: started(pid) for pid in descendants(up.process.pid)}
        assert len(everything) > 2 * len(ROLES), "Kafka, ClickHouse, roles and their guards"
        drained_s, code = up.terminate()
    finally:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()
    check_promise(drained_s, DRAIN_S_MAX)
    assert code == 0, up.said()
    assert not [pid for pid, was in everything.items() if started(pid) == was]
    stored = 0
    for symbol in SYMBOLS:
        query = (
            "SELECT count() AS trades, uniqExact(trade_id) AS identities, "
            "max(toUInt64(trade_id)) - min(toUInt64(trade_id)) + 1 AS span "
            f"FROM trades WHERE symbol = '{symbol}'"
        )
        answer = run(directory, exchange, "sql", query, "--json")
        assert answer.returncode == 0, answer.stderr
        row = json.loads(answer.stdout)
        assert int(row["trades"]) == int(row["identities"]) == int(row["span"]) > 0
        stored += int(row["trades"])
    # Each kill waited for so many more; how they fall on the symbols is the market's affair.
    assert stored > FLOWING_AGAIN * len(ROLES)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ('exchange = "nosuch!"', "exchange"),
        ("heartbeat_grace = 2.0", "heartbeat_grace_s"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line_and_nothing_starts(
    setting: str, named: str, tmp_path: Path
) -> None:
    (tmp_path / "pipeline.toml").write_text(f"[producer]\n{setting}\n")
    process = run(tmp_path, "http://127.0.0.1:9", "up")
    assert process.returncode == 1
    assert "pipeline.toml:2" in process.stderr
    assert named in process.stderr
    assert not (tmp_path / "state").exists()
