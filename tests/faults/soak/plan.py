"""What goes wrong in a soak, and when: all of it follows from the seed. Pure."""

from random import Random

from alpha_pulse.cli.replay.accidents import Accident

ROLES = ("producer", "processor-1", "processor-2", "sink")
STREAM_KINDS = ("close", "abort", "no-pong", "duplicate", "swap", "drop", "garbage", "stall")
REST_KINDS = ("http429", "http500")
CLICKHOUSE_KINDS = ("cut", "hold", "error 500", "error 503")

# Every kind of accident, and the shortest and longest time that it lasts, in seconds.
LASTS_S: dict[tuple[str, str], tuple[float, float]] = {
    **{("kill", role): (0.0, 0.0) for role in ROLES},
    **{("freeze", role): (1.0, 15.0) for role in ROLES},
    **{(kind, "exchange"): (0.5, 3.0) for kind in STREAM_KINDS + REST_KINDS},
    **{(kind, "clickhouse"): (1.0, 20.0) for kind in CLICKHOUSE_KINDS},
    **{("terminate", role): (0.0, 0.0) for role in ROLES},
    ("kill", "kafka"): (0.0, 6.0),
    **{(kind, "kafka"): (1.0, 12.0) for kind in ("cut", "hold", "freeze")},
}
PAUSE_S = (4.0, 18.0)


def plan_soak(seed: int, seconds: float) -> list[Accident]:
    """Return the accidents of a soak of so many seconds, by time.

    Kinds come in rounds, each round in an order of its own, so that a long soak has them all and
    meets them in many orders. They may overlap; all are over before the end.
    """
    random = Random(f"soak:{seed}")
    plan: list[Accident] = []
    at_s = random.uniform(*PAUSE_S)
    while True:
        kinds = list(LASTS_S)
        random.shuffle(kinds)
        for kind in kinds:
            lasts_s = random.uniform(*LASTS_S[kind])
            if at_s + lasts_s > seconds:
                return plan
            plan.append(Accident(round(at_s, 2), *kind, round(lasts_s, 2)))
            at_s += random.uniform(*PAUSE_S)


def plan_scenario(name: str, seed: int, *, times: int = 20) -> list[Accident]:
    """Return the accidents of one scenario. times: of what is repeated, such as kills."""
    random = Random(f"{name}:{seed}")
    kind, _, role = name.partition(" ")
    if kind in ("kill", "terminate"):
        roles = [role] if role else list(ROLES)
        plan, at_s = [], 5.0
        for _ in range(times):
            plan.append(Accident(round(at_s, 2), kind, random.choice(roles)))
            at_s += random.uniform(3.0, 12.0)
        return plan
    return SCENARIOS[name]


# One row of docs/faults.md each. Cuts reset connections, holds keep them open and silent.
SCENARIOS = {
    "network cut": [
        Accident(5, "cut", "kafka", 1),
        Accident(20, "cut", "kafka", 10),
        Accident(50, "cut", "kafka", 70),
        Accident(150, "hold", "kafka", 10),
        Accident(180, "hold", "kafka", 70),
    ],
    "frozen broker": [Accident(5, "freeze", "kafka", 40), Accident(75, "freeze", "kafka", 8)],
    "killed broker": [Accident(5 + 30 * n, "kill", "kafka", n) for n in range(4)],
    # In order, as an upgrade does: SIGTERM, a while without it, the start.
    "restarted broker": [Accident(5 + 30 * n, "restart", "kafka", 3 * n) for n in range(4)],
    # Of three nodes, the one that leads; the others must take over.
    "killed leader": [Accident(10 + 45 * n, "kill leader", "kafka", 15) for n in range(3)],
    "websocket storm": [Accident(5, "storm", "exchange", 60)],
    "full disk": [Accident(10, "full", "kafka", 30)],
    "clickhouse away": [
        Accident(5, "cut", "clickhouse", 70),
        Accident(100, "hold", "clickhouse", 70),
        Accident(190, "error 500", "clickhouse", 30),
    ],
    "slow clickhouse": [Accident(5, "slow", "clickhouse", 60)],
}
