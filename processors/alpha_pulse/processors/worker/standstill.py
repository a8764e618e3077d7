"""Whether a worker gets on: committed, nothing to do, or no Kafka to commit to. Pure."""

from dataclasses import dataclass

from alpha_pulse.contracts.errors import AlphaPulseError

# Without a commit for so long, although there is work, a worker is not ready.
NOT_READY_S = 10.0


class StalledError(AlphaPulseError):
    """There was work, and none of it was committed for too long."""


@dataclass(slots=True)
class Standstill:
    """How long there was work and no commit. Times are the event loop's, in seconds.

    seconds_max: how long a worker may stand still while Kafka can be reached; then another start
    may help. While no broker answers, none would: the worker waits.
    """

    seconds_max: float
    gone_on_at_s: float = 0.0
    away_at_s: float = 0.0

    def check(self, now_s: float) -> None:
        """Raise StalledError after too long a time."""
        if now_s - max(self.gone_on_at_s, self.away_at_s) > self.seconds_max:
            raise StalledError(
                f"expected a commit within {self.seconds_max:.0f} s of new records, found none; is "
                "Kafka healthy? A supervisor should start this worker again"
            )

    def problem(self, now_s: float) -> str:
        """Return why the worker is not ready, "" when it is."""
        still_s = now_s - self.gone_on_at_s
        return f"nothing was committed for {still_s:.0f} s" if still_s > NOT_READY_S else ""
