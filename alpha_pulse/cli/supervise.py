"""Roles kept running: one that ends is reported and started again, each time a little later."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import typer

from alpha_pulse.cli.role_processes import RoleProcesses, role_processes
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.stopping import stop_when_told

RESTART_WAIT_S = 0.5
RESTART_WAIT_S_MAX = 30.0
# A role that ran so long before it ended starts again at once.
HEALTHY_S = 60.0
LOG_INTERVAL_S = 0.2
_LOUD = {"warning", "error", "critical"}


@dataclass(frozen=True)
class Worker:
    """One process to keep running: a role, or one of several workers of it."""

    name: str
    role: str
    config: Config


async def supervise(workers: Sequence[Worker], log_dir: Path) -> None:
    """Run the workers until SIGINT or SIGTERM, then end them in the order of the flow.

    Their warnings and errors are repeated on stderr; all they say is in `<log_dir>/<name>.log`.
    """
    stop = asyncio.Event()
    stop_when_told(stop)
    async with role_processes(log_dir) as roles:
        tasks = [asyncio.create_task(_keep_running(roles, worker)) for worker in workers]
        tasks.append(asyncio.create_task(_repeat_warnings([w.name for w in workers], log_dir)))
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
            f"{worker.name} ended with exit code {code}; it starts again in {wait_s:.1f} s "
            f"(log: {child.log})",
            err=True,
        )
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, RESTART_WAIT_S_MAX)


async def _repeat_warnings(names: Sequence[str], log_dir: Path) -> None:
    positions = dict.fromkeys(names, 0)
    while True:
        for name in names:
            positions[name] = _repeat(name, log_dir / f"{name}.log", positions[name])
        await asyncio.sleep(LOG_INTERVAL_S)


def _repeat(name: str, log: Path, position: int) -> int:
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
            if entry.get("level") in _LOUD:
                fields = " ".join(
                    f"{key}={value}"
                    for key, value in entry.items()
                    if key not in ("event", "level", "timestamp")
                )
                typer.echo(f"{name}: {entry.get('event')} {fields}", err=True)
    return position + len(whole) + len(newline)
