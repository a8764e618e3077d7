"""Frames that could not be used, kept with their bytes: each once."""

from collections import Counter, OrderedDict

from alpha_pulse.contracts.dead_letters import dead_letter_of_frame, frame_identity
from alpha_pulse.contracts.events import DeadLetter
from alpha_pulse.producers.exchanges.tick import FrameError

_REMEMBERED_MAX = 10_000


class DeadLetters:
    """Makes the dead letter of a bad frame; the same bytes again make none.

    What is remembered is bounded; a frame forgotten meanwhile makes the same identity again.
    """

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self._known: OrderedDict[str, None] = OrderedDict()
        self.count = 0
        self.reasons: Counter[str] = Counter()

    def make(self, frame: str | bytes, error: FrameError, time_us: int) -> DeadLetter | None:
        """Return a frame's dead letter.

        Args:
            frame: as it came.
            error: why it can't be used.
            time_us: when it was received, Unix µs.

        Returns:
            The letter; None when the same bytes have one already.
        """
        payload = frame if isinstance(frame, bytes) else frame.encode("utf-8", "surrogatepass")
        identity = frame_identity(payload)
        if identity in self._known:
            self._known.move_to_end(identity)
            return None
        self._known[identity] = None
        if len(self._known) > _REMEMBERED_MAX:
            self._known.popitem(last=False)
        self.count += 1
        self.reasons[error.reason] += 1
        return dead_letter_of_frame(
            payload, self._exchange, error.symbol,
            reason=error.reason, error=str(error), time_us=time_us,
        )  # fmt: skip
