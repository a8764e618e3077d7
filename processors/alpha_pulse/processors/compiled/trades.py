"""Windows of a partition's symbols as rows, for the hot loop; and back as `Stream`s.

While the loop may take a symbol's trades (`hand_over`), what it changes stands here, and is written
into the stream when anything else wants to know (`bring_back`): the windows that it closed, the
newest, and the one before that.
"""

from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.processors.candles.rules import Rules
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.compiled import closing as columns
from alpha_pulse.processors.compiled import loop as hot_loop
from alpha_pulse.processors.compiled.closed_candles import ClosedCandles
from alpha_pulse.processors.compiled.rows import PARTS, ROW, ROW_WORDS, row_of, value_of_row
from alpha_pulse.processors.wire.audit_candle import AUDITED
from alpha_pulse.processors.wire.canonical import start_of_candles, timeframe_in_candle
from alpha_pulse.processors.wire.records import EncodedRecords, RecordsWriter

_SYMBOLS_FIRST = 64
_ARENA_FIRST = 16 * 1024
_NAME_BYTES_MAX = 40
_SINGLES_MIN = 3
# What is saved of a symbol: id and time of its last trade in order, when its next window closes,
# whether a window was left behind, and how many rows are in its log. Rows follow.
_SAVED = Struct("<5q")


class HotTrades:
    """The tables, one row per symbol, and the loop over the records of a batch.

    revisions_from: a candle's revision is this and the offset of the trade that closed it.
    """

    def __init__(self, rules: Rules, revisions_from: int, *, audits: bool) -> None:
        names = [timeframe.name for timeframe in rules.timeframes]
        audited = names.index(AUDITED) if audits else -1
        self._setting = np.array(
            [0, rules.timeframes[0].duration_us, rules.grace_us, revisions_from, audited], np.int64
        )
        self._levels = len(names)
        self._block = columns.block_of(1, self._levels)
        self._timeframes = _timeframes(rules.timeframes)
        self._streams: list[Stream] = []
        self._keys: list[bytes] = []
        self._rows: dict[bytes, int] = {}
        # Of each symbol: the state of its windows that the rows of its longer ones are of; and how
        # many times in a row Python closed a single window.
        self._merged_at: list[int] = []
        self._singles: list[int] = []
        self._arena: npt.NDArray[np.uint8] = np.zeros(_ARENA_FIRST, np.uint8)
        self._arena_used = 0
        self._control: npt.NDArray[np.int64] = np.zeros(3, np.int64)
        self._slots: npt.NDArray[np.int32] = np.zeros(4 * _SYMBOLS_FIRST, np.int32)
        self._symbols: npt.NDArray[np.int64] = np.zeros((0, columns.SYMBOL_COLUMNS), np.int64)
        self._numbers: npt.NDArray[np.int64] = np.zeros((0, ROW_WORDS), np.int64)
        self._make_tables(_SYMBOLS_FIRST)

    def add(self, key: bytes, stream: Stream) -> None:
        """Take in a symbol; the loop takes none of its trades before `hand_over`."""
        row = len(self._streams)
        if row == len(self._symbols):
            self._make_tables(2 * row)
        self._streams.append(stream)
        self._keys.append(key)
        self._merged_at.append(-1)
        self._singles.append(0)
        self._rows[key] = row
        candles = start_of_candles(stream.exchange, stream.symbol).encode()
        texts = (key, stream.start, candles)
        places = [place for text in texts for place in (self._keep(text), len(text))]
        self._symbols[row, columns.KEY_AT :] = places
        self._enter(row)

    def run(
        self, records: EncodedRecords, row: int, limit_us: int, writer: RecordsWriter,
        closed: ClosedCandles,
    ) -> tuple[int, int, int]:  # fmt: skip
        """Take in plain trades of a batch from a row on: add them to the writer, close windows.

        Returns: the row that comes next, how many trades were taken in, and why it stopped:
        DONE, NOT_PLAIN (the row is for the kernel) or CLOSES (windows of the last trade's symbol
        are over, and must be closed first).
        """
        writer.open_buffer()
        control = self._control
        control[hot_loop.ROW], control[hot_loop.TRADES] = row, 0
        self._setting[columns.LIMIT_US] = limit_us
        while True:
            hot_loop.run(
                records.bytes, records.index, control, self._setting, self._slots, self._tables,
                self._timeframes, closed.arrays, writer.buffer, writer.state,
            )  # fmt: skip
            closed.note()
            row, reason, trades = control.tolist()
            if reason != hot_loop.FULL:
                return row, trades, reason
            _, _, key_bytes, _, value_bytes = records.index[row].tolist()
            writer.room_for(key_bytes + value_bytes)

    def close(self, key: bytes, revision: int, closed: ClosedCandles) -> bool:
        """Close what the symbol's last trade ended; False, and nothing is done, if not plain."""
        done: bool = columns.close_plain(
            self._tables, self._timeframes, closed.arrays, self._setting, self._rows[key], revision
        )
        closed.note()
        return done

    def changed(self) -> list[bytes]:
        """Return the keys of the symbols that the loop changed since the last call."""
        column = self._symbols[: len(self._streams), columns.IS_CHANGED]
        rows = np.flatnonzero(column).tolist()
        column[:] = 0
        return [self._keys[row] for row in rows]

    def bring_back(self, key: bytes) -> bool:
        """Write what the loop changed into the symbol's stream; return whether it did."""
        row = self._rows[key]
        symbol = self._symbols[row]
        if not symbol[columns.IS_BEHIND]:
            return False
        self.bring_closed_back(key)
        stream, first = self._streams[row], row * self._block
        _, _, _, rolled, last_id, watermark_us, *_ = symbol.tolist()
        if rolled:
            stream.put_newest(*value_of_row(self._numbers[first + columns.ENDED].tobytes()))
        open_us, value = value_of_row(self._numbers[first].tobytes())
        stream.put_newest(open_us, value)
        stream.follow_plain(last_id, value.last_time_us, watermark_us)
        symbol[columns.IS_BEHIND] = symbol[columns.ROLLED] = 0
        return True

    def bring_closed_back(self, key: bytes) -> None:
        """Write the windows that the loop closed into the symbol's stream."""
        row = self._rows[key]
        symbol = self._symbols[row]
        logged = int(symbol[columns.LOGGED])
        if logged:
            symbol[columns.LOGGED] = 0
            rows = [closed.tobytes() for closed in self._log(row, logged)]
            self._streams[row].take_closed(rows, int(symbol[columns.CLOSE_AT_US]))

    def hand_over(self, key: bytes) -> None:
        """Let the loop take the symbol's next trades, where its stream is ready for that.

        What the loop had changed must have been brought back before.
        """
        row = self._rows[key]
        stream = self._streams[row]
        value = stream.value
        words = None
        if value is not None and stream.is_plain:
            words = row_of(stream.value_open_us, value)
        if words is None:
            self._symbols[row, columns.IS_HOT] = 0
            return
        self._put(row * self._block, words)
        closes = stream.closes_plainly and self._merged_at[row] == stream.windows.changes
        self._symbols[row, : columns.KEY_AT] = (
            1, 0, 0, 0, stream.order.last_id,
            stream.closing.watermark_us, stream.closing.close_at_us,
            closes, 0, stream.windows.followed_from_us or 0,
        )  # fmt: skip

    def close_next(self, key: bytes, ended: int) -> None:
        """Let the loop close the symbol's next window, where its stream is ready for that.

        ended: how many base windows Python closed by the last trade. Looking for what the longer
        windows come to only pays for a symbol that is traded in one minute after the other.
        """
        row = self._rows[key]
        stream = self._streams[row]
        self._singles[row] = self._singles[row] + 1 if ended == 1 else 0
        if self._singles[row] < _SINGLES_MIN or not stream.closes_plainly:
            return
        longer = row * self._block + columns.LONGER
        for level in range(1, self._levels):
            at = longer + level - 1
            self._numbers[at, PARTS] = 0
            window = stream.windows.get(level, stream.closing.closed_until_us)
            merged = None if window is None else stream.windows.merged(level, window)
            if window is None or merged is None:
                continue
            words = row_of(window.open_us, merged)
            if words is None:
                return
            self._put(at, words)
        self._merged_at[row] = stream.windows.changes

    def saved(self, key: bytes) -> bytes | None:
        """Return what the stream does not know yet, for `restore`; None: it knows all."""
        row = self._rows[key]
        _, _, behind, rolled, last_id, watermark_us, close_at_us, _, logged, *_ = self._symbols[
            row
        ].tolist()
        if not behind:
            return None
        first = row * self._block
        parts = (
            _SAVED.pack(last_id, watermark_us, close_at_us, rolled, logged),
            self._numbers[first : first + 1 + rolled].tobytes(),
            self._log(row, logged).tobytes(),
        )
        return b"".join(parts)

    def restore(self, key: bytes, saved: bytes) -> None:
        """Put back what the stream did not know when it was saved, and tell it."""
        row = self._rows[key]
        last_id, watermark_us, close_at_us, rolled, logged = _SAVED.unpack_from(saved)
        rows = np.frombuffer(saved, np.int64, offset=_SAVED.size).reshape(-1, ROW_WORDS)
        first = row * self._block
        self._numbers[first : first + 1 + rolled] = rows[: 1 + rolled]
        self._log(row, logged)[:] = rows[1 + rolled :]
        self._symbols[row, : columns.KNOWN_FROM_US] = (
            1, 0, 1, rolled, last_id, watermark_us, close_at_us, 0, logged,
        )  # fmt: skip
        self.bring_back(key)

    def _log(self, row: int, count: int) -> npt.NDArray[np.int64]:
        """Return the first rows of a symbol's log, to read and to write."""
        at = (row + 1) * self._block - columns.LOG_ROWS
        return self._numbers[at : at + count]

    def _put(self, at: int, words: tuple[int | bytes, ...]) -> None:
        ROW.pack_into(self._texts.data, at * ROW.size, *words)

    def _keep(self, text: bytes) -> int:
        at, used = self._arena_used, self._arena_used + len(text)
        if used > len(self._arena):
            grown = np.zeros(2 * max(used, len(self._arena)), np.uint8)
            grown[:at] = self._arena[:at]
            self._arena = grown
            self._bind()
        self._arena[at:used] = np.frombuffer(text, np.uint8)
        self._arena_used = used
        return at

    def _make_tables(self, symbols: int) -> None:
        def grown(table: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
            larger = np.zeros((rows, table.shape[1]), np.int64)
            larger[: len(table)] = table
            return larger

        self._symbols = grown(self._symbols, symbols)
        self._numbers = grown(self._numbers, symbols * self._block)
        self._texts = self._numbers.view(np.uint8)
        self._bind()
        self._slots = np.zeros(4 * symbols, np.int32)
        for row in range(len(self._streams)):
            self._enter(row)

    def _bind(self) -> None:
        self._tables = (
            self._arena, self._symbols, self._numbers, self._numbers.view(np.uint64), self._texts
        )  # fmt: skip

    def _enter(self, row: int) -> None:
        # At most a quarter of the slots is taken, so a key is found in a step or two.
        key = np.frombuffer(self._keys[row], np.uint8)
        mask = len(self._slots) - 1
        slot = hot_loop.key_hash(key, 0, len(key)) & mask
        while self._slots[slot]:
            slot = (slot + 1) & mask
        self._slots[slot] = row + 1


def _timeframes(timeframes: tuple[Timeframe, ...]) -> tuple[Any, Any]:
    """Return lengths and offsets of the levels, and the text that names each in a candle."""
    names = np.zeros((len(timeframes), _NAME_BYTES_MAX), np.uint8)
    levels = np.zeros((len(timeframes), 3), np.int64)
    for level, timeframe in enumerate(timeframes):
        text = timeframe_in_candle(timeframe.name).encode()
        names[level, : len(text)] = np.frombuffer(text, np.uint8)
        levels[level] = (timeframe.duration_us, timeframe.offset_us, len(text))
    return levels, names


def warm_up() -> None:
    """Compile all that runs in the hot path, or load what an earlier start compiled. Blocks."""
    writer = RecordsWriter(1000)
    writer.append((b"key", b"value"))
    ((text, count),) = writer.batches()
    records = EncodedRecords.read(text.tobytes(), count, 0)
    rules = Rules.of(ProcessorConfig())
    hot, closed = HotTrades(rules, 0, audits=True), ClosedCandles([TRADES])
    hot.add(b"key", Stream.new("binance", "BTC/USDT", rules))
    hot.run(records, 0, 0, writer, closed)
    hot.close(b"key", 0, closed)
    # An empty candle, which is moved to a writer that nobody reads.
    _, index, state = closed.arrays
    index[0], state[columns.CLOSED] = 0, 1
    closed.note()
    closed.move(lambda topic: writer)
