"""What one connection has shown: how far its trades are known to have arrived; pure.

That time has passed shows nothing: a stream may be stalled, its frames may wait unread. A frame's
own time shows that what is older has come. A connection on which nothing comes is asked by a ping,
whose answer stands behind everything that was sent before it; but an exchange may answer pings
while its stream is stuck, so this is believed only where the silence is nothing unusual.
"""

from alpha_pulse.producers.liveness.silence import SilenceWatch

# An answer that took longer is not waited for: another ping is sent.
ANSWER_US_MAX = 2_000_000


class Heard:
    """The evidence of one connection.

    now_us: our monotonic clock; every other time is the exchange's; all in microseconds.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.silence = SilenceWatch()
        self._frame_us = 0  # the time that the last frame carried
        self._frame_at_us = 0
        self.asked_at_us = 0  # when the ping was sent that is on its way
        self._asked_clock_us = 0
        self._answered_at_us = 0  # when the answered ping was sent
        self._answered_clock_us = 0

    def take_time(self, time_us: int, now_us: int) -> None:
        """Take the time that a frame carried."""
        self._frame_us = time_us
        self._frame_at_us = now_us

    def ask(self, clock_us: int, now_us: int) -> bytes | None:
        """Return what a ping must carry that is sent now; None while one is on its way."""
        if self.asked_at_us and now_us - self.asked_at_us < ANSWER_US_MAX:
            return None
        self.asked_at_us, self._asked_clock_us = now_us, clock_us
        return b"%d" % now_us

    def answer(self, payload: bytes) -> None:
        """Take what a pong carried."""
        if self.asked_at_us and payload == b"%d" % self.asked_at_us:
            self._answered_at_us, self._answered_clock_us = self.asked_at_us, self._asked_clock_us
            self.asked_at_us = 0

    def until_us(self, now_us: int) -> int:
        """Return the exchange's time before which everything sent to us has been read.

        A frame that came after the ping knows better: where it is old, the stream lags.
        """
        if self._frame_at_us >= self._answered_at_us or self.silence.is_suspicious(now_us):
            return self._frame_us
        return self._answered_clock_us
