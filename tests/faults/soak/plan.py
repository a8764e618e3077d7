"""What goes wrong in a soak, and when: all of it follows from the seed. Pure."""

from random import Random

from alpha_pulse.cli.accidents import Accident

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
    ("kill", "kafka"): (0.0, 6.0),
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
