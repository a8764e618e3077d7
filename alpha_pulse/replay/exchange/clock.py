"""Three ways of time: the wall clock, a paced recording, and full speed.

Event time is the exchange's clock. A clock says how far event time may have come by now.
"""

import asyncio
import math
import time
from typing import Protocol

from alpha_pulse.contracts.errors import ConfigError

# Nobody sees a step this long, and a short one keeps an idle exchange cheap.
STEP_S_MAX = 0.05
STEP_S_MIN = 0.001
FOREVER_US = 1 << 62


class Clock(Protocol):
    """How far event time may have come."""

    full_speed: bool

    def start(self) -> None:
        """Begin to run: the stream begins."""
        ...

    def limit_us(self) -> int:
        """Return the event time that has been reached."""
        ...

    async def wait_until(self, event_time_us: int) -> None:
        """Sleep until about an event time, 50 ms at most, so that a stop is noticed."""
        ...


class LiveClock:
    """Event time is now: for a market without end."""

    full_speed = False

    def start(self) -> None:
        """Do nothing: this clock always runs."""

    def limit_us(self) -> int:
        """Return the wall clock, Unix µs."""
        return time.time_ns() // 1_000

    async def wait_until(self, event_time_us: int) -> None:
        """Sleep until about an event time, 50 ms at most."""
        await _sleep((event_time_us - self.limit_us()) / 1e6)


class PacedClock:
    """Event time begins with the recording and runs `speed` times as fast as time itself."""

    full_speed = False

    def __init__(self, begin_us: int, speed: float) -> None:
        if not (math.isfinite(speed) and speed > 0):
            raise ConfigError(f"expected a speed above 0, found {speed}; 1.0 is the recorded pace")
        self._begin_us = begin_us
        self._speed = speed
        self._started_ns: int | None = None

    def start(self) -> None:
        """Begin to run."""
        if self._started_ns is None:
            self._started_ns = time.monotonic_ns()

    def limit_us(self) -> int:
        """Return the event time reached: the beginning until started."""
        if self._started_ns is None:
            return self._begin_us
        elapsed_us = (time.monotonic_ns() - self._started_ns) / 1_000
        return self._begin_us + int(elapsed_us * self._speed)

    async def wait_until(self, event_time_us: int) -> None:
        """Sleep until about an event time, 50 ms at most."""
        await _sleep((event_time_us - self.limit_us()) / 1e6 / self._speed)


class FullSpeedClock:
    """Event time goes as fast as the client reads; the sockets' back-pressure is the brake."""

    full_speed = True

    def start(self) -> None:
        """Do nothing: there is no pace."""

    def limit_us(self) -> int:
        """Return a time after every market's end."""
        return FOREVER_US

    async def wait_until(self, event_time_us: int) -> None:
        """Let the sockets be served."""
        await asyncio.sleep(0)


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(min(max(seconds, STEP_S_MIN), STEP_S_MAX))
