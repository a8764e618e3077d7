"""Errors of the whole pipeline, under one base.

Each message says what was expected, what was found, where, and what to do next.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class MarketWindow:
    """What was asked for when something failed; None where it does not apply or is not known."""

    exchange: str | None = None
    symbol: str | None = None
    timeframe: str | None = None
    start_us: int | None = None
    end_us: int | None = None

    def __str__(self) -> str:
        parts = [part for part in (self.exchange, self.symbol, self.timeframe) if part]
        if self.start_us is not None:
            parts.append(f"from {format_us(self.start_us)}")
        if self.end_us is not None:
            parts.append(f"to {format_us(self.end_us)}")
        return " ".join(parts)


def format_us(time_us: int) -> str:
    """Return a time in µs as people and programs read it: `2026-01-31T09:30:00Z`."""
    try:
        time = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(
            microsecond=time_us % 1_000_000
        )
    except (OverflowError, ValueError, OSError):
        return f"{time_us} µs"
    return time.isoformat().replace("+00:00", "Z")


class AlphaPulseError(Exception):
    """Base of every error that this project raises on purpose.

    about: the market and the window that it is about, where there is one; part of the text.
    """

    def __init__(self, message: str = "", about: MarketWindow | None = None) -> None:
        super().__init__(message)
        self.about = about

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} ({self.about})" if self.about is not None else message


@contextmanager
def telling(about: MarketWindow) -> Iterator[None]:
    """Let an error that leaves the block say what it is about, if it does not say so itself."""
    try:
        yield
    except AlphaPulseError as error:
        error.about = error.about or about
        raise


class ValidationError(AlphaPulseError):
    """A value, message or argument breaks its contract."""


class UnknownKindError(ValidationError):
    """A message is of a kind that its reader does not know: a newer writer's, to be skipped."""


class ConfigError(AlphaPulseError):
    """A setting is unknown, missing or out of range."""


class DataFetchError(AlphaPulseError):
    """An exchange did not give what was asked of it."""


class StorageError(AlphaPulseError):
    """A storage refused a read or a write, or could not be reached."""


class KafkaError(AlphaPulseError):
    """Kafka could not be reached, or refused what was asked of it."""
