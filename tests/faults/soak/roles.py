"""The running roles of `alpha-pulse up`, as their supervisor's children: found, killed, frozen."""

import asyncio
import contextlib
import os
import signal
import time
from collections import defaultdict
from pathlib import Path
from random import Random

from alpha_pulse.cli.replay.accidents import Accident
from tests.faults.soak.plan import ROLES
from tests.faults.soak.samples import catches, read_process
from tests.processes import children

BACK_S_MAX = 60.0  # the supervisor's longest wait is 30 s, and the start
# A role that was waited for is let run for up to so long, so that not every end meets a start.
THEN_RUNS_S_MAX = 14.0


class RunningRoles:
    """The roles below one supervisor.

    endings_s: from each SIGTERM until the process was gone.
    """

    def __init__(self, supervisor_pid: int, random: Random) -> None:
        self.endings_s: list[float] = []
        self._supervisor_pid = supervisor_pid
        self._random = random
        self._ends: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def pids(self) -> dict[str, int]:
        """Return the running roles, known by the log that each writes."""
        found = {}
        for up in children(self._supervisor_pid):
            for guard in children(up):
                for role in children(guard):
                    with contextlib.suppress(OSError):
                        name = Path(os.readlink(f"/proc/{role}/fd/1")).stem
                        if name in ROLES:
                            found[name] = role
        return found

    async def hurt(self, accident: Accident) -> None:
        """Kill, end or freeze a role, and return when that is over."""
        if accident.kind == "freeze":
            await self._freeze(accident.role, accident.seconds)
            return
        # One end after the other: each meets a role that runs, however long it was waited for.
        async with self._ends[accident.role]:
            if accident.kind == "kill":
                await self._end(accident.role, signal.SIGKILL)
            else:
                self.endings_s.append(await self._end(accident.role, signal.SIGTERM))

    async def _end(self, role: str, number: signal.Signals) -> float:
        while True:
            pid = await self._running(role)
            started = time.monotonic()
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # it ended by itself meanwhile
            while read_process(pid):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return round(time.monotonic() - started, 2)

    async def _running(self, role: str) -> int:
        """Return the process of a role, once it runs and has a handler for SIGTERM."""
        async with asyncio.timeout(BACK_S_MAX):
            while True:
                pid = self.pids().get(role)
                if pid is None:
                    while role not in self.pids():  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                    await asyncio.sleep(self._random.uniform(0.0, THEN_RUNS_S_MAX))
                elif catches(pid, signal.SIGTERM):
                    return pid
                else:
                    # Before its first line of Python a process can only die of it.
                    await asyncio.sleep(0.02)

    async def _freeze(self, role: str, seconds: float) -> None:
        pid = self.pids().get(role)
        if pid is None:
            return  # it is being started again
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                os.kill(pid, signal.SIGCONT)
