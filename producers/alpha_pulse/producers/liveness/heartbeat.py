"""When a heartbeat is due, and the exchange's clock that it is measured by; pure."""

from alpha_pulse.contracts.market import MINUTE_US, SECOND_US

# A frame this far ahead of the clock is believed only when a second one agrees: one absurd time
# would otherwise declare hours complete that have not happened yet.
JUMP_US_MAX = 10 * SECOND_US
# A trade may arrive this long after a frame with a later time (0.2 s was recorded).
SETTLE_US = 300_000


class ExchangeClock:
    """The exchange's time: frame times, and between frames the monotonic time that passed.

    All times in microseconds; the clock never steps back.

    Args:
        event: frame times only (a recording at full speed, where the wall clock means nothing).
    """

    def __init__(self, *, event: bool = False) -> None:
        self._event = event
        self._frame_us = 0  # newest frame time
        self._frame_at_us = 0  # our monotonic clock at its receipt
        self._latest_us = 0
        self._suspect_us = 0

    @property
    def frame_us(self) -> int:
        """The newest frame time, 0 before the first frame."""
        return self._frame_us

    def observe(self, time_us: int, now_us: int) -> None:
        """Note a frame's time, received at our monotonic `now_us`."""
        if time_us <= self._frame_us:
            return
        expected_us = self._frame_us + (0 if self._event else now_us - self._frame_at_us)
        if self._frame_us and not self._event and time_us - expected_us > JUMP_US_MAX:
            agreed = abs(time_us - self._suspect_us) <= JUMP_US_MAX
            self._suspect_us = time_us
            if not agreed:
                return
        self._frame_us = time_us
        self._frame_at_us = now_us

    def now_us(self, now_us: int) -> int:
        """Return the exchange's time now; 0 before the first frame."""
        if self._frame_us:
            elapsed_us = 0 if self._event else max(0, now_us - self._frame_at_us)
            self._latest_us = max(self._latest_us, self._frame_us + elapsed_us)
        return self._latest_us


def due_heartbeat_us(
    clock_us: int, published_until_us: int, grace_us: int, settle_us: int = SETTLE_US
) -> int | None:
    """Return the `complete_until_us` of the heartbeat that is due, None when none is.

    One is due when a minute's end plus grace has passed by the exchange's clock, and nothing newer
    was published: so the minute can be closed although nothing is traded.

    Args:
        clock_us: the exchange's time.
        published_until_us: up to which time the log speaks already.
        grace_us: how long after a minute's end its heartbeat comes.
        settle_us: how long trades may be on their way.
    """
    passed_us = clock_us - settle_us - grace_us
    complete_until_us = passed_us - passed_us % MINUTE_US + grace_us
    return complete_until_us if complete_until_us > published_until_us else None
