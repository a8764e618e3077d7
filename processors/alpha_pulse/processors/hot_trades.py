"""Open windows of a partition's symbols as columns, for the hot loop; and back as `Stream`s.

While the loop may take a symbol's trades (`hand_over`), what it changes stands here, and is written
into the stream when anything else wants to know (`bring_back`). Of the window before the newest the
loop keeps the last state; whatever happens to that later happens in the stream.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from alpha_pulse.processors import hot_loop as columns
from alpha_pulse.processors.candles import Value
from alpha_pulse.processors.stream import Stream
from alpha_pulse.processors.wire import EncodedRecords, RecordsWriter

_SYMBOLS_FIRST = 64
_ARENA_FIRST = 16 * 1024
_LOW_HALF = 2**64 - 1
# Where the texts of a window begin; that of the open is the first.
_HIGH, _LOW, _CLOSE = (columns.TEXT_BYTES_MAX * place for place in (1, 2, 3))
# What both halves may hold, so that sums of them never overflow.
_UNITS_MAX = 2**126


class HotTrades:
    """The tables, one row per symbol, and the loop over the records of a batch."""

    def __init__(self, window_us: int) -> None:
        self._window_us = window_us
        self._streams: list[Stream] = []
        self._keys: list[bytes] = []
        self._rows: dict[bytes, int] = {}
        self._arena: npt.NDArray[np.uint8] = np.zeros(_ARENA_FIRST, np.uint8)
        self._arena_used = 0
        self._control: npt.NDArray[np.int64] = np.zeros(3, np.int64)
        self._slots: npt.NDArray[np.int32] = np.zeros(4 * _SYMBOLS_FIRST, np.int32)
        self._symbols: npt.NDArray[np.int64]
        self._windows: npt.NDArray[np.int64]
        self._sums: npt.NDArray[np.uint64]
        self._texts: npt.NDArray[np.uint8]
        self._make_tables(_SYMBOLS_FIRST)

    def add(self, key: bytes, stream: Stream) -> None:
        """Take in a symbol; the loop takes none of its trades before `hand_over`."""
        row = len(self._streams)
        if row == len(self._symbols):
            self._make_tables(2 * row)
        self._streams.append(stream)
        self._keys.append(key)
        self._rows[key] = row
        start = stream.start
        used = self._arena_used + len(key) + len(start)
        if used > len(self._arena):
            grown = np.zeros(2 * max(used, len(self._arena)), np.uint8)
            grown[: self._arena_used] = self._arena[: self._arena_used]
            self._arena = grown
        text = np.frombuffer(key + start, np.uint8)
        self._arena[self._arena_used : used] = text
        place = (self._arena_used, len(key), self._arena_used + len(key), len(start))
        self._symbols[row, columns.KEY_AT :] = place
        self._arena_used = used
        self._enter(row)

    def run(
        self, records: EncodedRecords, row: int, limit_us: int, writer: RecordsWriter
    ) -> tuple[int, int, int]:
        """Take in plain trades of a batch from a row on, and add them to the writer.

        Returns: the row that comes next, how many trades were taken in, and why it stopped:
        DONE, NOT_PLAIN (the row is for the kernel) or CLOSES (windows of the last trade's symbol
        are over, and must be closed first).
        """
        writer.open_buffer()
        control = self._control
        control[columns.ROW], control[columns.TRADES] = row, 0
        while True:
            columns.run(
                records.bytes, records.index, control, limit_us, self._window_us, self._slots,
                self._arena, self._symbols, self._windows, self._sums, self._texts, writer.buffer,
                writer.state,
            )  # fmt: skip
            row, reason, trades = control.tolist()
            if reason != columns.FULL:
                return row, trades, reason
            _, _, key_bytes, _, value_bytes = records.index[row].tolist()
            writer.room_for(key_bytes + value_bytes)

    def bring_back(self, key: bytes) -> None:
        """Write what the loop changed into the symbol's stream."""
        row = self._rows[key]
        if self._symbols[row, columns.IS_DIRTY]:
            self.bring_ended_back(key)
            self._streams[row].put_newest(*self._window(row, 0))
            self._symbols[row, columns.IS_DIRTY] = 0

    def bring_ended_back(self, key: bytes) -> None:
        """Write into the stream what closing windows needs: the window before the newest.

        The loop keeps the newest and goes on with it; `go_on` tells it when to stop next.
        """
        row = self._rows[key]
        symbol = self._symbols[row]
        stream = self._streams[row]
        _, _, rolled, last_id, watermark_us, *_ = symbol.tolist()
        if rolled:
            symbol[columns.ROLLED] = 0
            stream.put_newest(*self._window(row, 1))
        # What made the symbol dirty was the newest window's last trade.
        stream.follow_plain(last_id, int(self._windows[2 * row, columns.TRADE_US]), watermark_us)

    def go_on(self, key: bytes) -> None:
        """Let the loop go on with a symbol after its windows were closed."""
        row = self._rows[key]
        self._symbols[row, columns.CLOSE_AT_US] = self._streams[row].close_at_us

    def bring_all_back(self) -> set[bytes]:
        """Do so for every symbol, and return the keys of those that had changed."""
        changed = np.flatnonzero(self._symbols[: len(self._streams), columns.IS_DIRTY])
        keys = {self._keys[row] for row in changed}
        for key in keys:
            self.bring_back(key)
        return keys

    def hand_over(self, key: bytes) -> None:
        """Let the loop take the symbol's next trades, where its stream is ready for that.

        What the loop had changed must have been brought back before.
        """
        row = self._rows[key]
        stream = self._streams[row]
        value = stream.value
        symbol = self._symbols[row]
        if value is None or not stream.is_plain or not _fits(value):
            symbol[columns.IS_HOT] = 0
            return
        symbol[: columns.KEY_AT] = (
            1, 0, 0, stream.last_id, stream.watermark_us, stream.close_at_us,
        )  # fmt: skip
        texts = (value.open, value.high, value.low, value.close)
        self._windows[2 * row] = (
            stream.value_open_us, value.first_time_us, value.first_rank, value.last_time_us,
            value.last_rank, value.count, value.sides_known, *map(len, texts),
        )  # fmt: skip
        self._sums[2 * row] = [
            half
            for units in (
                value.high_units, value.low_units, value.volume_units, value.quote_units,
                value.buy_units,
            )
            for half in (units >> 64, units & _LOW_HALF)
        ]  # fmt: skip
        padded = "".join([text.ljust(columns.TEXT_BYTES_MAX) for text in texts])
        self._texts[2 * row] = np.frombuffer(padded.encode(), np.uint8)

    def _window(self, row: int, which: int) -> tuple[int, Value]:
        """Return open time and value of a window."""
        at = 2 * row + which
        (
            open_us, first_us, first_id, trade_us, trade_id, count, sides_known, open_bytes,
            high_bytes, low_bytes, close_bytes,
        ) = self._windows[at].tolist()  # fmt: skip
        (
            high_up, high_units, low_up, low_units, volume_up, volume, quote_up, quote, buy_up, buy,
        ) = self._sums[at].tolist()  # fmt: skip
        text = self._texts[at].tobytes().decode("ascii")
        value = Value(
            first_us, first_id, str(first_id), text[:open_bytes],
            trade_us, trade_id, str(trade_id), text[_CLOSE : _CLOSE + close_bytes],
            high_up << 64 | high_units, text[_HIGH : _HIGH + high_bytes],
            low_up << 64 | low_units, text[_LOW : _LOW + low_bytes],
            volume_up << 64 | volume, quote_up << 64 | quote, buy_up << 64 | buy, count,
            True, sides_known > 0,
        )  # fmt: skip
        return open_us, value

    def _make_tables(self, rows: int) -> None:
        def grown(name: str, rows: int, columns: int, kind: Any) -> None:
            table = np.zeros((rows, columns), kind)
            if self._streams:
                before = getattr(self, name)
                table[: len(before)] = before
            setattr(self, name, table)

        grown("_symbols", rows, columns.SYMBOL_COLUMNS, np.int64)
        grown("_windows", 2 * rows, columns.WINDOW_COLUMNS, np.int64)
        grown("_sums", 2 * rows, columns.SUM_COLUMNS, np.uint64)
        grown("_texts", 2 * rows, len(columns.TEXTS) * columns.TEXT_BYTES_MAX, np.uint8)
        self._slots = np.zeros(4 * rows, np.int32)
        for row in range(len(self._streams)):
            self._enter(row)

    def _enter(self, row: int) -> None:
        # At most a quarter of the slots is taken, so a key is found in a step or two.
        key = np.frombuffer(self._keys[row], np.uint8)
        mask = len(self._slots) - 1
        slot = columns.key_hash(key, 0, len(key)) & mask
        while self._slots[slot]:
            slot = (slot + 1) & mask
        self._slots[slot] = row + 1


def warm_up() -> None:
    """Compile all that runs in the hot path, or load what an earlier start compiled. Blocks."""
    writer = RecordsWriter(1000)
    writer.append((b"key", b"value"))
    ((text, count),) = writer.batches()
    records = EncodedRecords.read(text.tobytes(), count, 0)
    HotTrades(1).run(records, 0, 0, writer)


def _fits(value: Value) -> bool:
    texts = (value.open, value.high, value.low, value.close)
    return (
        max(map(len, texts)) <= columns.TEXT_BYTES_MAX
        and max(value.high_units, value.volume_units, value.quote_units) < _UNITS_MAX
    )
