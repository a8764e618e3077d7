"""What `replay` does to the roles while they work: kill -9, a worker that joins and leaves."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from alpha_pulse.cli.pipeline.role_processes import RoleProcesses
from alpha_pulse.contracts.config import Config

# From kill -9 to working again: start-up, and the session of the killed member that must end first.
RECOVERY_S = 10.0
SECOND_WORKER = "processor-2"


@dataclass(frozen=True)
class Accident:
    """At this time after the roles were started, this happens to this role or server."""

    at_s: float
    kind: str  # `replay` knows kill, join and leave
    role: str
    seconds: float = 0.0  # how long it lasts, where it lasts


def plan_accidents(role: str, kills: int, workers: int, seed: int) -> list[Accident]:
    """Return the accidents in the order of their times: the same seed is the same plan.

    role: the one that is killed; with two workers a second processor joins and leaves.
    """
    random = Random(f"accidents:{seed}")
    plan = [
        Accident((number + random.uniform(0.4, 1.0)) * RECOVERY_S, "kill", role)
        for number in range(kills)
    ]
    if workers > 1:
        end_s = max(kills, 2) * RECOVERY_S
        plan.append(Accident(random.uniform(0.15, 0.35) * end_s, "join", SECOND_WORKER))
        plan.append(Accident(random.uniform(0.6, 0.8) * end_s, "leave", SECOND_WORKER))
    return sorted(plan, key=lambda accident: accident.at_s)


def duration_s(plan: Sequence[Accident]) -> float:
    """Return how long the recording must last for all of the plan to fall into it; 0: no matter."""
    return plan[-1].at_s + RECOVERY_S if plan else 0.0


async def cause_accidents(plan: Sequence[Accident], roles: RoleProcesses, config: Config) -> None:
    """Carry the plan out; a killed role is started again at once."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    for accident in plan:
        await asyncio.sleep(max(0.0, started + accident.at_s - loop.time()))
        if accident.kind == "join":
            roles.start(accident.role, "processor", config)
        elif accident.kind == "leave":
            await roles.stop(accident.role)
        else:
            await roles.kill(accident.role)
            roles.start(accident.role, accident.role, config)
