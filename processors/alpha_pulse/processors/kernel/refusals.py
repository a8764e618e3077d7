"""Refused records: their dead letters, and when there are so many that the process must stop."""

from collections import deque

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import DeadLetter
from alpha_pulse.processors.kernel.admission import Refused, dead_letter

DEAD_LETTER_WINDOW = 10_000


class TooManyDeadLettersError(ValidationError):
    """So many records were refused that the code must be wrong, not the data."""


class Refusals:
    """The refused records of one partition."""

    def __init__(self, config: ProcessorConfig, topic: str, partition: int) -> None:
        self._config = config
        self._topic = topic
        self._partition = partition
        self._run = 0
        self._last = -2
        self._recent: deque[int] = deque()

    def letter(
        self, offset: int, key: bytes | None, value: bytes | None, timestamp_ms: int,
        refused: Refused,
    ) -> DeadLetter:  # fmt: skip
        """Return the dead letter of a record."""
        return dead_letter(self._topic, self._partition, offset, timestamp_ms, key, value, refused)

    def check(self, offset: int, letter: DeadLetter) -> None:
        """Count a dead letter; raises TooManyDeadLettersError by the limits."""
        config, recent = self._config, self._recent
        self._run = self._run + 1 if self._last == offset - 1 else 1
        self._last = offset
        recent.append(offset)
        while recent[0] <= offset - DEAD_LETTER_WINDOW:
            recent.popleft()
        limit = config.dead_letter_ratio_max * DEAD_LETTER_WINDOW
        if self._run >= config.dead_letter_run_max or len(recent) > limit:
            raise TooManyDeadLettersError(
                f"expected at most {config.dead_letter_run_max} refused records in a row and "
                f"{limit:.0f} in {DEAD_LETTER_WINDOW}, found {self._run} and {len(recent)} at "
                f"{letter.identity}, the last: {letter.reason}: {letter.error}; look at what "
                "writes to the ingest log, or at this version's decoder, before starting again"
            )
