"""Frames that could not be used, kept with their bytes: each once."""

import base64
import hashlib
from collections import Counter, OrderedDict

from alpha_pulse.contracts.events import DeadLetter
from alpha_pulse.producers.exchanges.frame import FrameError

PAYLOAD_BYTES_MAX = 256 * 1024
_REMEMBERED_MAX = 10_000


class DeadLetters:
    """Makes the dead letter of a bad frame; the same bytes again make none.

    What is remembered is bounded; a frame forgotten meanwhile makes the same identity again.
    """

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self.count = 0
        self.reasons: Counter[str] = Counter()

    def make(self, frame: str | bytes, error: FrameError, time_us: int) -> DeadLetter | None:
        """Return the dead letter of a frame received at `time_us`; None when it has one already."""
        payload = frame if isinstance(frame, bytes) else frame.encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(payload)
        if digest.digest() in self._known:
            self._known.move_to_end(digest.digest())
            return None
        self._known[digest.digest()] = None
        if len(self._known) > _REMEMBERED_MAX:
            self._known.popitem(last=False)
        self.count += 1
        self.reasons[error.reason] += 1
        return DeadLetter(
            identity=f"sha256:{digest.hexdigest()}",
            reason=error.reason,
            error=str(error)[:2000],
            exchange=self._exchange,
            symbol=error.symbol,
            topic=None,
            partition=None,
            offset=None,
            payload_base64=base64.b64encode(payload[:PAYLOAD_BYTES_MAX]).decode(),
            payload_bytes=len(payload),
            time_us=time_us,
        )
