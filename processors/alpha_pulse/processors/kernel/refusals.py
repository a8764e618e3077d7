"""Refused records: their dead letters, and when there are so many that the process must stop."""

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.dead_letters import (
    REFUSAL_WINDOW,
    RefusalLimit,
    dead_letter_of_record,
)
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import DeadLetter
from alpha_pulse.processors.kernel.admission import Refused


class TooManyDeadLettersError(ValidationError):
    """So many records were refused that the code must be wrong, not the data."""


class Refusals:
    """The refused records of one partition."""

    def __init__(self, config: ProcessorConfig, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self._limit = RefusalLimit(config.dead_letter_run_max, config.dead_letter_ratio_max)
        self._next_offset: int | None = None

    def letter(
        self, offset: int, key: bytes | None, value: bytes | None, timestamp_ms: int,
        refused: Refused,
    ) -> DeadLetter:  # fmt: skip
        """Return the dead letter of a record."""
        return dead_letter_of_record(
            self._topic, self._partition, offset, key, value,
            reason=refused.reason, error=str(refused), timestamp_ms=timestamp_ms,
        )  # fmt: skip

    def check(self, offset: int, letter: DeadLetter) -> None:
        """Count a dead letter; every offset since the last one counts as accepted.

        Raises:
            TooManyDeadLettersError: by the limits of the configuration.
        """
        limit = self._limit
        if self._next_offset is not None:
            limit.accept(offset - self._next_offset)
        self._next_offset = offset + 1
        limit.refuse()
        if limit.is_exceeded:
            raise TooManyDeadLettersError(
                f"expected at most {limit.run_max} refused records in a row and "
                f"{limit.window_max:.0f} in {REFUSAL_WINDOW}, found {limit.run} and "
                f"{limit.refused} at {letter.identity}, the last: {letter.reason}: {letter.error}; "
                "look at what writes to the ingest log, or at this version's decoder, before "
                "starting again"
            )
