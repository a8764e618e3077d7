"""`alpha-pulse up` with secrets that are refused: told nowhere, and nothing listens beyond here.

The secrets are wrong on purpose: what goes wrong is where they could get into a log.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alpha_pulse.cli.main import make_app
from alpha_pulse.embedded.ports import free_port
from alpha_pulse.embedded.runtime import Runtime
from tests.patience import PATIENCE_S

CANARY = "canary-51be0d7e"
COMMAND = [sys.executable, "-m", "alpha_pulse.cli"]
LISTENING = "0A"


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def listeners(pids: list[int]) -> set[tuple[str, int]]:
    """Return address (hex, as the kernel writes it) and port of each listening TCP socket."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(re.sub(r"\D", "", os.readlink(descriptor)))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def is_loopback(address: str) -> bool:
    # The kernel writes words of four bytes in this machine's order.
    words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
    raw = b"".join(words)
    if len(raw) == 4:
        return raw[0] == 127
    return raw == bytes(15) + b"\1" or (raw[:12] == bytes(10) + b"\xff\xff" and raw[12] == 127)


def get(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode(errors="replace"))
    except (urllib.error.URLError, OSError, ValueError):
        return ""


@dataclass(frozen=True)
class Run:
    """What a run of `up` showed of itself."""

    listening: set[tuple[str, int]]
    said: dict[str, str]  # by source: outputs, logs, pages
    command_lines: list[str]
    exit_code: int


@pytest.fixture(scope="module")
def environment(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "kafka-password").write_text(f"{CANARY}-kafka\n")
    (folder / "api-key").write_text(f"{CANARY}-api\n")
    return {
        **os.environ,
        "ALPHA_PULSE_KAFKA": runtime.kafka,
        "ALPHA_PULSE_KAFKA_SASL_PASSWORD_FILE": str(folder / "kafka-password"),
        "ALPHA_PULSE_CLICKHOUSE": runtime.clickhouse.replace("://", f"://user:{CANARY}-url@"),
        "ALPHA_PULSE_CLICKHOUSE_PASSWORD": f"{CANARY}-clickhouse",
        "ALPHA_PULSE_PRODUCER_API_KEY_FILE": str(folder / "api-key"),
        "ALPHA_PULSE_EXCHANGE_URL": "http://127.0.0.1:1",
        "ALPHA_PULSE_NAMESPACE": folder.name.replace("_", "-"),
        "ALPHA_PULSE_DATA_DIR": str(folder / "data"),
        "ALPHA_PULSE_PROCESSOR_WEB_PORT": str(free_port(0, 0, "Faust's web")),
        "ALPHA_PULSE_METRICS_PRODUCER_PORT": "0",
        "ALPHA_PULSE_METRICS_PROCESSOR_PORT": "0",
        "ALPHA_PULSE_METRICS_SINK_PORT": "0",
    }


@pytest.fixture(scope="module")
def run(runtime: Runtime, environment: dict[str, str]) -> Run:
    return run_up(runtime, environment)


def servers(runtime: Runtime) -> list[int]:
    """Return the processes of Kafka and ClickHouse, whoever has started them."""
    directory = str(runtime.data_dir).encode()
    commands = Path("/proc").glob("[0-9]*/cmdline")
    found = []
    for command in commands:
        with contextlib.suppress(OSError):
            if directory in command.read_bytes():
                found.append(int(command.parent.name))
    return found


def run_up(runtime: Runtime, environment: dict[str, str]) -> Run:
    data_dir = Path(environment["ALPHA_PULSE_DATA_DIR"])
    data_dir.mkdir()
    output = data_dir.parent / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([*COMMAND, "up"], env=environment, stdout=file, stderr=file)
    try:
        give_up_at_s = time.monotonic() + PATIENCE_S
        web_port = int(environment["ALPHA_PULSE_PROCESSOR_WEB_PORT"])
        while not (refusals_are_told(data_dir / "logs") and get(web_port, "/symbols")):
            assert process.poll() is None, output.read_text()[-2000:]
            assert time.monotonic() < give_up_at_s, output.read_text()[-2000:]
            time.sleep(0.2)
        pids = family(process.pid)
        listening = listeners([*pids, *servers(runtime)])
        said = {
            f"{path} of {port}": get(port, path)
            for _, port in listeners(pids)
            for path in ("/metrics", "/healthz", "/readyz", "/", "/symbols")
        }
        lines = [Path(f"/proc/{pid}/cmdline") for pid in pids]
        commands = [line.read_bytes().replace(b"\0", b" ").decode() for line in lines]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            exit_code = process.wait(PATIENCE_S)
        finally:
            process.kill()
    said["output"] = output.read_text()
    for log in data_dir.rglob("*"):
        if log.is_file():
            said[log.name] = log.read_text(errors="replace")
    return Run(listening, said, commands, exit_code)


def refusals_are_told(log_dir: Path) -> bool:
    """Tell whether producer and sink have failed aloud, and the processor works."""

    def log(name: str) -> str:
        path = log_dir / f"{name}.log"
        return path.read_text() if path.exists() else ""

    return (
        "127.0.0.1:1" in log("producer")
        and "Authentication failed" in log("sink")
        and "partitions.assigned" in log("processor-1")
    )


def test_no_secret_is_in_any_log_page_or_command_line(run: Run) -> None:
    assert any("/metrics of" in source and "# TYPE" in text for source, text in run.said.items())
    assert any("alpha_pulse.sinks" in line for line in run.command_lines)
    for source, text in run.said.items():
        assert CANARY not in text, source
    for line in run.command_lines:
        assert CANARY not in line


def test_everything_listens_on_loopback_only(run: Run) -> None:
    assert len(run.listening) >= 6  # Kafka's two, ClickHouse, the roles' pages, Faust's web
    assert [address for address, _ in run.listening if not is_loopback(address)] == []


def test_up_ends_in_order_although_nothing_works(run: Run) -> None:
    assert run.exit_code == 0


@pytest.mark.parametrize("command", ["show", "check"])
def test_the_settings_are_shown_without_secrets(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(make_app(), ["config", command])
    assert result.exit_code == 0, result.output
    assert CANARY not in result.output
    if command == "show":
        assert result.output.count("***") >= 3


def test_an_address_that_is_not_loopback_would_be_seen() -> None:
    assert is_loopback("0100007F")
    assert is_loopback("00000000000000000000000001000000")
    assert is_loopback("0000000000000000FFFF00000100007F")
    assert not is_loopback("00000000")
    assert not is_loopback("00000000000000000000000000000000")
    assert not is_loopback("0101A8C0")
