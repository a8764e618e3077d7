"""Candles that the compiled loop closed, on their way to the topics' writers.

The loop knows one place to write to; before anybody else adds to one of these topics, and when the
outputs are drained, the candles are moved on, so that each topic keeps the order of the log.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alpha_pulse.contracts.topics import Topic
from alpha_pulse.processors.compiled.tables import CANDLE, ROOM
from alpha_pulse.processors.wire.compiler import compiled
from alpha_pulse.processors.wire.records import RecordsWriter, write_record

_BYTES = 512 * 1024
_CANDLES_MAX = 1024


class ClosedCandles:
    """Room for the loop's candles, until `move`.

    topics: by place; those of the timeframes from base to week, then the audit's. waiting: there
    are some. text, candles, room: as in `Tables`.
    """

    def __init__(self, topics: Sequence[Topic]) -> None:
        self._topics = list(topics)
        self.waiting = False
        self.text: npt.NDArray[np.uint8] = np.empty(_BYTES, np.uint8)
        self.candles: npt.NDArray[np.void] = np.empty(_CANDLES_MAX, CANDLE)
        self.room: npt.NDArray[np.void] = np.zeros(1, ROOM)
        self._count = self.room["count"]

    def note(self) -> None:
        """Look whether the loop left candles here; asking the arrays each time is slow."""
        self.waiting = self._count[0] > 0

    def move(self, writer_of: Callable[[Topic], RecordsWriter]) -> None:
        """Add the candles to the writers of their topics."""
        if not self.waiting:
            return
        candles = self.candles[: int(self._count[0])]
        self.room[0] = (0, 0)
        self.waiting = False
        for place in np.unique(candles["place"]).tolist():
            writer = writer_of(self._topics[place])
            writer.open_buffer()
            row = 0
            while True:
                row = _write_place(self.text, candles, place, row, writer.buffer, writer.state)
                if row == len(candles):
                    break
                writer.room_for(int(candles[row]["key_bytes"] + candles[row]["value_bytes"]))


@compiled
def _write_place(
    text: Any, candles: Any, place: int, start: int, buffer: Any, written: Any
) -> int:  # pragma: no cover - compiled
    """Write the candles of one place; return the row that found no room, or how many there are."""
    for row in range(start, len(candles)):
        candle = candles[row]
        if candle.place == place and not write_record(
            buffer, written, text, candle.key_at, candle.key_bytes, candle.value_at,
            candle.value_bytes,
        ):  # fmt: skip
            return row
    return len(candles)
