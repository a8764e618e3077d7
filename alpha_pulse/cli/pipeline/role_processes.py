"""The roles as processes of their own: started, watched and stopped in the order of the flow."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import orjson

from alpha_pulse.contracts.config import Config, config_environment
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.embedded.child import Child

STOP_GRACE_S = 10.0
# All roles together end within this; of it each stage leaves so much to every later one.
STOP_ALL_S = 10.0
STOP_RESERVE_S = 2.0
EXCHANGE_START_S = 30.0

# Producers end first and sinks last, so that what was published is stored.
ROLE_MODULES = {
    "repair": "alpha_pulse.data_pipeline.history",
    "producer": "alpha_pulse.producers",
    "processor": "alpha_pulse.processors",
    "sink": "alpha_pulse.sinks",
}


class RoleProcesses:
    """Running roles by name: `processor`, or `processor-2` where there are several.

    Each writes its log to `<log_dir>/<name>.log`; that of the one before it is `<name>.log.1`.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._children: dict[str, Child] = {}

    def __getitem__(self, name: str) -> Child:
        return self._children[name]

    def start(self, name: str, role: str, config: Config) -> Child:
        """Start a `producer`, `processor` or `sink` with exactly these settings, under a name."""
        return self._start(name, [ROLE_MODULES[role]], config)

    async def start_exchange(self, arguments: list[str]) -> str:
        """Start the replay exchange as a process; return its address once it answers."""
        child = self._start("exchange", ["alpha_pulse.replay", "--keep-running", *arguments], None)
        deadline = asyncio.get_running_loop().time() + EXCHANGE_START_S
        while asyncio.get_running_loop().time() < deadline and child.exit_code is None:
            for line in child.log_text().splitlines():
                with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError):
                    return str(orjson.loads(line)["url"])
            await asyncio.sleep(0.05)
        raise child.death()

    def start_backfill(self, config: Config, arguments: Sequence[str]) -> Child:
        """Start `alpha-pulse backfill` as a process named `history`; it ends by itself."""
        return self._start("history", ["alpha_pulse.cli", "backfill", *arguments], config)

    async def wait_dead(self, *expected: str) -> AlphaPulseError:
        """Return once a role has ended that was not expected to: the error says which and how."""
        while True:
            for name, child in list(self._children.items()):
                if name not in expected and child.exit_code is not None:
                    return child.death()
            await asyncio.sleep(0.2)

    async def kill(self, name: str) -> None:
        """End a role as `kill -9` does."""
        await self._children.pop(name).kill()

    async def stop(self, name: str, timeout_s: float = STOP_GRACE_S + 5) -> int:
        """End a role in order, kill it after the time-out; return its exit code."""
        return await self._children.pop(name).stop(timeout_s)

    async def stop_all(self, within_s: float = STOP_ALL_S) -> None:
        """End every role, in the order of the flow; what takes too long is killed.

        Nothing is lost by that: what was not settled is read, or fetched, again.
        """
        loop = asyncio.get_running_loop()
        end_s = loop.time() + within_s
        stages = [
            [name for name in self._children if name.split("-")[0] == role]
            for role in ("history", *ROLE_MODULES, "exchange")
        ]
        stages = [names for names in stages if names]
        for number, names in enumerate(stages, 1):
            reserve_s = STOP_RESERVE_S * (len(stages) - number)
            left_s = max(STOP_RESERVE_S / 2, end_s - loop.time() - reserve_s)
            await asyncio.gather(*(self.stop(name, left_s) for name in names))

    def _start(self, name: str, module: list[str], config: Config | None) -> Child:
        log = self._log_dir / f"{name}.log"
        if log.exists():
            # What a role that died said last stays beside what the next one says.
            log.replace(log.with_suffix(".log.1"))
        child = Child.start(
            name,
            [sys.executable, "-m", *module],
            log=log,
            grace_s=STOP_GRACE_S,
            environment=config_environment(config) if config else {},
        )
        self._children[name] = child
        return child


@contextlib.asynccontextmanager
async def role_processes(log_dir: Path) -> AsyncIterator[RoleProcesses]:
    """Give a place to start roles; whatever still runs at the end is stopped."""
    roles = RoleProcesses(log_dir)
    try:
        yield roles
    finally:
        await asyncio.shield(roles.stop_all())
