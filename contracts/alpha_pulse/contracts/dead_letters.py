"""What was refused: its dead letter, and the limit from which so many of them stop the process.

A frame of an exchange, a record of the log, a row of a table. Pure.
"""

import base64
import hashlib
from collections import deque

import msgspec

from alpha_pulse.contracts.events import DeadLetter

PAYLOAD_BYTES_MAX = 256 * 1024
ERROR_CHARS_MAX = 2000
REFUSAL_WINDOW = 10_000


def frame_identity(frame: bytes) -> str:
    """Return the identity of a frame's dead letter: the same bytes have the same."""
    return f"sha256:{hashlib.sha256(frame).hexdigest()}"


def dead_letter_of_frame(
    frame: bytes, exchange: str, symbol: str | None, *, reason: str, error: str, time_us: int
) -> DeadLetter:
    """Return the dead letter of a frame that an exchange sent.

    Args:
        frame: its bytes.
        exchange: who sent it.
        symbol: whom it is about, where that could be read.
        reason: a short code, such as `bad_schema`.
        error: for people: expected, found, where.
        time_us: when it was received.

    Returns:
        The dead letter, its payload cut at `PAYLOAD_BYTES_MAX`.
    """
    return DeadLetter(
        identity=frame_identity(frame),
        reason=reason,
        error=error[:ERROR_CHARS_MAX],
        exchange=exchange,
        symbol=symbol,
        topic=None,
        partition=None,
        offset=None,
        payload_base64=_payload(frame),
        payload_bytes=len(frame),
        time_us=time_us,
    )


def dead_letter_of_record(
    topic: str, partition: int, offset: int, key: bytes | None, value: bytes | None, *,
    reason: str, error: str, timestamp_ms: int,
) -> DeadLetter:  # fmt: skip
    """Return the dead letter of a record of the log; its key says whom it is about.

    Args:
        topic: its full name.
        partition: where it stands.
        offset: where it stands.
        key: `exchange:symbol`, or whatever stands there.
        value: its bytes.
        reason: a short code, such as `bad_schema`.
        error: for people: expected, found, where.
        timestamp_ms: Kafka's time of the record.

    Returns:
        The dead letter, its payload cut at `PAYLOAD_BYTES_MAX`.
    """
    exchange, _, symbol = (key or b"").decode(errors="replace").partition(":")
    return _at(
        topic, partition, offset, value, exchange[:32] or None, symbol[:150] or None,
        reason, error, timestamp_ms,
    )  # fmt: skip


def dead_letter_of_row(
    topic: str, partition: int, offset: int, value: bytes | None, *,
    reason: str, error: str, timestamp_ms: int,
) -> DeadLetter:  # fmt: skip
    """Return the dead letter of a row that a table refused; its own fields say whom it is about.

    Arguments and result are those of `dead_letter_of_record`.
    """
    try:
        market = msgspec.json.decode(value or b"", type=_Market)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        market = _Market()
    return _at(
        topic, partition, offset, value, market.exchange, market.symbol,
        reason, error, timestamp_ms,
    )  # fmt: skip


class RefusalLimit:
    """Whether so much was refused that the code must be wrong, not the data.

    Args:
        run_max: how many refused in a row are too many.
        ratio_max: which share of the last `REFUSAL_WINDOW`, refused or accepted, is still allowed.
    """

    def __init__(self, run_max: int, ratio_max: float) -> None:
        self.run_max = run_max
        self.window_max = ratio_max * REFUSAL_WINDOW
        self.run = 0
        self._seen = 0
        self._refused: deque[int] = deque()  # of the window, by their numbers

    def accept(self, count: int) -> None:
        """Count what was accepted; none leaves a run of refused ones as it is."""
        if count:
            self._seen += count
            self.run = 0

    def refuse(self) -> None:
        """Count one that was refused."""
        self._seen += 1
        self.run += 1
        self._refused.append(self._seen)
        while self._refused[0] <= self._seen - REFUSAL_WINDOW:
            self._refused.popleft()

    @property
    def window(self) -> int:
        """How many the window holds by now, refused or accepted."""
        return min(self._seen, REFUSAL_WINDOW)

    @property
    def refused(self) -> int:
        """How many of the window were refused, as of the last one."""
        return len(self._refused)

    @property
    def is_exceeded(self) -> bool:
        """Whether the process must stop."""
        return self.run >= self.run_max or self.refused > self.window_max


class _Market(msgspec.Struct):
    exchange: str | None = None
    symbol: str | None = None


def _at(
    topic: str, partition: int, offset: int, value: bytes | None,
    exchange: str | None, symbol: str | None, reason: str, error: str, timestamp_ms: int,
) -> DeadLetter:  # fmt: skip
    payload = value or b""
    return DeadLetter(
        identity=f"{topic}:{partition}:{offset}",
        reason=reason,
        error=error[:ERROR_CHARS_MAX],
        exchange=exchange,
        symbol=symbol,
        topic=topic,
        partition=partition,
        offset=offset,
        payload_base64=_payload(payload),
        payload_bytes=len(payload),
        time_us=max(timestamp_ms, 0) * 1000,
    )


def _payload(value: bytes) -> str:
    return base64.b64encode(value[:PAYLOAD_BYTES_MAX]).decode()
