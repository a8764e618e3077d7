"""What one connection has shown: how far its trades are known to have arrived; pure.

That time has passed shows nothing: a stream may be stalled, its frames may wait unread. A frame's
own time shows that what is older has come. A connection on which nothing comes is asked by a ping,
whose answer stands behind everything that was sent before it; but an exchange may answer pings
while its stream is stuck, so this is believed only where the silence is nothing unusual.
"""

from collections.abc import Sequence

from alpha_pulse.producers.liveness.silence import SilenceWatch

# An answer that took longer is not waited for: another ping is sent.
ANSWER_US_MAX = 2_000_000
# REST may lag this far behind the stream.
REST_LAG_US = 1_000_000


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

    def observe(self, time_us: int, now_us: int) -> None:
        """Note the time that a frame carried."""
        self._frame_us = time_us
        self._frame_at_us = now_us

    def ask(self, clock_us: int, now_us: int) -> bytes | None:
        """Ask the connection how far it is.

        Args:
            clock_us: the exchange's time.
            now_us: our monotonic clock.

        Returns:
            What the ping must carry that is sent now; None while one is on its way.
        """
        if self.asked_at_us and now_us - self.asked_at_us < ANSWER_US_MAX:
            return None
        self.asked_at_us, self._asked_clock_us = now_us, clock_us
        return b"%d" % now_us

    def answer(self, payload: bytes) -> None:
        """Note what a pong carried."""
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


def heard_until_us(
    heard: Sequence[Heard], silence: SilenceWatch, checked_at_us: int, clock_us: int, now_us: int
) -> int:
    """Return the exchange's time before which all trades of a symbol are known to have arrived.

    By its connection, unless the symbol is silent for longer than it usually is; or by REST.

    Args:
        heard: what the connections have shown that may carry the symbol; none: they are lost.
        silence: the symbol's.
        checked_at_us: when REST was asked last and showed nothing newer, by our monotonic clock;
            0: never.
        clock_us: the exchange's time now.
        now_us: our monotonic clock now.

    Returns:
        A time in microseconds, `clock_us` at most; 0 when nothing is known.
    """
    until_us = clock_us - (now_us - checked_at_us) - REST_LAG_US if checked_at_us else 0
    if heard and not silence.is_suspicious(now_us):
        until_us = max(until_us, min(one.until_us(now_us) for one in heard))
    return min(until_us, clock_us)
