"""Candles that the hot loop closed, on their way to the topics' writers.

The loop knows one place to write to; before anybody else adds to one of these topics, and when the
outputs are taken, the candles are moved on, so that each topic keeps the order of the log.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from alpha_pulse.contracts.topics import Topic
from alpha_pulse.processors.compiled.closing import (
    CLOSED,
    KEY_SIZE,
    KEY_START,
    PLACE,
    VALUE_SIZE,
    VALUE_START,
)
from alpha_pulse.processors.wire.compiler import compiled
from alpha_pulse.processors.wire.records import RecordsWriter, write_record

_BYTES = 512 * 1024
_CANDLES_MAX = 1024


class ClosedCandles:
    """Room for the loop's candles, until `move`.

    topics: by place; those of the timeframes from base to week, then the audit's. arrays: the
    texts, the index, and how much of both is used. waiting: there are some.
    """

    def __init__(self, topics: Sequence[Topic]) -> None:
        self._topics = list(topics)
        self.names = {topic.name for topic in self._topics}
        self.waiting = False
        self.arrays = (
            np.empty(_BYTES, np.uint8), np.empty((_CANDLES_MAX, 5), np.int64),
            np.zeros(2, np.int64),
        )  # fmt: skip

    def note(self) -> None:
        """Look whether the loop left candles here; asking the arrays each time is slow."""
        self.waiting = self.arrays[2][CLOSED] > 0

    def move(self, writer_of: Callable[[Topic], RecordsWriter]) -> None:
        """Add the candles to the writers of their topics."""
        if not self.waiting:
            return
        text, index, state = self.arrays
        count = int(state[CLOSED])
        state[:] = 0
        self.waiting = False
        for place in np.unique(index[:count, PLACE]).tolist():
            writer = writer_of(self._topics[place])
            writer.open_buffer()
            row = 0
            while True:
                row = _write_place(text, index[:count], place, row, writer.buffer, writer.state)
                if row == count:
                    break
                writer.room_for(int(index[row, KEY_SIZE] + index[row, VALUE_SIZE]))


@compiled
def _write_place(
    text: Any, index: Any, place: int, start: int, buffer: Any, written: Any
) -> int:  # pragma: no cover - compiled
    """Write the candles of one place; return the row that found no room, or how many there are."""
    for row in range(start, len(index)):
        if index[row, PLACE] != place:
            continue
        if not write_record(
            buffer, written, text, index[row, KEY_START], index[row, KEY_SIZE],
            index[row, VALUE_START], index[row, VALUE_SIZE],
        ):  # fmt: skip
            return row
    return len(index)
