"""Roles kept running: one that ends is reported and started again, each time a little later."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import typer

from alpha_pulse.cli.pipeline.role_processes import RoleProcesses, role_processes
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.roles.stopping import stop_on_signal
from alpha_pulse.embedded.child import Child
from alpha_pulse.embedded.errors import EmbeddedRuntimeError
from alpha_pulse.embedded.runtime import Runtime

RESTART_WAIT_S = 0.5
RESTART_WAIT_S_MAX = 30.0
# A role that ran so long before it ended starts again at once: wrong settings, rights and
# addresses have ended it by then.
HEALTHY_S = 10.0
LOG_INTERVAL_S = 0.2
_LOUD = {"warning", "error", "critical"}
# The same event of the same role is repeated this often at most; its log has them all.
REPEAT_S_MIN = 5.0


@dataclass(frozen=True)
class Worker:
    """One process to keep running: a role, or one of several workers of it."""

    name: str
    role: str
    config: Config


async def supervise(
    workers: Sequence[Worker], log_dir: Path, runtime: Runtime | None = None
) -> None:
    """Run the workers until SIGINT or SIGTERM, then end them in the order of the flow.

    runtime: its own servers are kept running, too.
    Their warnings and errors are repeated on stderr; all they say is in `<log_dir>/<name>.log`.
    """
    stop = asyncio.Event()
    stop_on_signal(stop)
    async with role_processes(log_dir) as roles:
        tasks = [asyncio.create_task(_keep_running(roles, worker)) for worker in workers]
        tasks.append(asyncio.create_task(_repeat_warnings([w.name for w in workers], log_dir)))
        if runtime is not None:
            tasks.append(asyncio.create_task(keep_servers(runtime)))
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
        for task in done - {stopping}:
            task.result()
        typer.echo("stopping: producers, processors, sinks", err=True)


async def _keep_running(roles: RoleProcesses, worker: Worker) -> None:
    loop = asyncio.get_running_loop()
    wait_s = RESTART_WAIT_S
    while True:
        started = loop.time()
        child = roles.start(worker.name, worker.role, worker.config)
        code = await child.wait()
        if code == 0 and worker.config.producer.until_us and worker.role == "producer":
            return
        wait_s = RESTART_WAIT_S if loop.time() - started > HEALTHY_S else wait_s
        typer.echo(
            f"{worker.name} ended with exit code {code}{_last_words(child)}; it starts again in "
            f"{wait_s:.1f} s (log: {child.log}.1)",
            err=True,
        )
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, RESTART_WAIT_S_MAX)


def _last_words(child: Child) -> str:
    """Return why a role said that it ends, as far as it did."""
    for line in reversed(child.log_tail().splitlines()):
        with contextlib.suppress(msgspec.DecodeError):
            entry = msgspec.json.decode(line, type=dict[str, object])
            if entry.get("level") in ("error", "critical") and "logger" not in entry:
                return f" ({entry.get('event')}: {entry.get('error', '')})"
    return ""


async def keep_servers(runtime: Runtime) -> None:
    """Start an embedded server again whenever it ends by itself, each time a little later."""
    loop = asyncio.get_running_loop()
    wait_s = RESTART_WAIT_S
    started = loop.time()
    while True:
        name, death = await runtime.wait_dead_server()
        wait_s = RESTART_WAIT_S if loop.time() - started > HEALTHY_S else wait_s
        typer.echo(f"{death}\n{name} starts again in {wait_s:.1f} s", err=True)
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, RESTART_WAIT_S_MAX)
        try:
            await runtime.restart(name)
            started = loop.time()
            typer.echo(f"{name} is up again", err=True)
        except EmbeddedRuntimeError as error:
            typer.echo(str(error), err=True)


async def _repeat_warnings(names: Sequence[str], log_dir: Path) -> None:
    positions = dict.fromkeys(names, 0)
    said = Said()
    while True:
        for name in names:
            positions[name] = _repeat(name, log_dir / f"{name}.log", positions[name], said)
        await asyncio.sleep(LOG_INTERVAL_S)


class Said:
    """When each event of each role was repeated last, and how often it came since."""

    def __init__(self) -> None:
        self._last_s: dict[tuple[str, object], float] = {}
        self._since: dict[tuple[str, object], int] = {}

    def again(self, name: str, event: object, now_s: float) -> int | None:
        """Return how often it was left out before, None when it is left out now, too."""
        key = (name, event)
        if now_s - self._last_s.get(key, -REPEAT_S_MIN) < REPEAT_S_MIN:
            self._since[key] = self._since.get(key, 0) + 1
            return None
        self._last_s[key] = now_s
        return self._since.pop(key, 0)


def _repeat(name: str, log: Path, position: int, said: Said) -> int:
    """Print what is loud in the log from a position on; return where to go on."""
    try:
        if log.stat().st_size < position:
            position = 0  # started again: a new log
        with log.open("rb") as file:
            file.seek(position)
            text = file.read()
    except FileNotFoundError:
        return position
    whole, newline, _ = text.rpartition(b"\n")
    for line in whole.splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            entry = msgspec.json.decode(line, type=dict[str, object])
            # What libraries say has a logger's name: it stays in the log, ours says what it means.
            if entry.get("level") in _LOUD and "logger" not in entry:
                left_out = said.again(name, entry.get("event"), time.monotonic())
                if left_out is None:
                    continue
                fields = " ".join(
                    f"{key}={value}"
                    for key, value in entry.items()
                    if key not in ("event", "level", "timestamp")
                )
                more = f" (and {left_out} more since)" if left_out else ""
                typer.echo(f"{name}: {entry.get('event')} {fields}{more}", err=True)
    return position + len(whole) + len(newline)
