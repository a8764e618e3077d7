"""What decides outputs beside the log itself: the settings of a processor, and a history job."""

from collections.abc import Callable
from dataclasses import dataclass

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, Gap
from alpha_pulse.contracts.market import PUBLISHED_TIMEFRAMES, SECOND_US, TIMEFRAMES, Timeframe

Publish = Callable[[Candle | Gap], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide outputs, in microseconds."""

    timeframes: tuple[Timeframe, ...]
    grace_us: int
    closed_keep_us: int
    missing_keep_us: int

    @classmethod
    def of(cls, config: ProcessorConfig) -> "Rules":
        """Return the rules of a configuration."""
        names = ("1s", *PUBLISHED_TIMEFRAMES) if config.one_second_candles else PUBLISHED_TIMEFRAMES
        return cls(
            tuple(TIMEFRAMES[name] for name in names),
            round(config.grace_s * SECOND_US),
            round(max(config.closed_candle_keep_s, config.dedupe_window_s) * SECOND_US),
            round(config.missing_range_keep_s * SECOND_US),
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A history job: only windows inside `[start_us, end_us)` are published."""

    name: str
    start_us: int
    end_us: int
