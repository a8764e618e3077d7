"""The compiled loop as the kernel sees it: ingests plain trades of the streams that it is handed.

While the loop may take a symbol's trades (`hand_over`), what it changes stands here, in tables, and
is told to the stream as `Progress` when anything else wants to know (`bring_back`): the windows
that it closed, the newest, and the one before that.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.contracts.topics import AUDIT_CANDLES, CANDLES, TRADES, Topic
from alpha_pulse.processors.candles.packed import pack
from alpha_pulse.processors.candles.progress import Progress
from alpha_pulse.processors.candles.rules import Rules
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.compiled import loop
from alpha_pulse.processors.compiled.closed_candles import ClosedCandles
from alpha_pulse.processors.compiled.closing import close_plain
from alpha_pulse.processors.compiled.tables import (
    CONTROL,
    ENDED,
    LOG_WINDOWS,
    LONGER,
    NEWEST,
    SETTING,
    SYMBOL,
    TIMEFRAME,
    WINDOW,
    Tables,
    windows_of,
)
from alpha_pulse.processors.wire.audit_candle import AUDITED
from alpha_pulse.processors.wire.canonical import (
    start_of_candles,
    start_of_trades,
    timeframe_in_candle,
)
from alpha_pulse.processors.wire.records import EncodedRecords, RecordsWriter

_SYMBOLS_FIRST = 64
_ARENA_FIRST = 16 * 1024
_NAME_BYTES_MAX = 40
_SINGLES_MIN = 3
# The first fields of a symbol: what `hand_over` sets, all at once.
_STATE = [
    "is_handed_over", "is_changed", "is_behind", "has_ended", "last_id", "watermark_us",
    "close_at_us", "closes", "logged", "known_from_us",
]  # fmt: skip

Structured = npt.NDArray[np.void]


class CompiledTrades:
    """The tables, one row per symbol, and the loop over the records of a batch.

    Implements `kernel.plain_trades.PlainTrades`.
    """

    def __init__(
        self, rules: Rules, revisions_from: int, writer_of: Callable[[Topic], RecordsWriter],
        on_change: Callable[[bytes], None], *, audits: bool,
    ) -> None:  # fmt: skip
        """Make empty tables.

        Args:
            rules: of every stream that is handed over.
            revisions_from: a candle's revision is this and the offset of the trade that closed it.
            writer_of: returns what writes the records of a topic.
            on_change: told the key of a symbol whose stream was brought up to date.
            audits: closed candles go to the audit too.
        """
        self.topics: Sequence[Topic] = [
            *(CANDLES[timeframe.name] for timeframe in rules.timeframes),
            AUDIT_CANDLES,
        ]
        self._writer_of = writer_of
        self._on_change = on_change
        self._closed = ClosedCandles(self.topics)
        names = [timeframe.name for timeframe in rules.timeframes]
        audited = names.index(AUDITED) if audits else -1
        self._setting: Structured = np.array(
            [(0, rules.timeframes[0].duration_us, rules.grace_us, revisions_from, audited)], SETTING
        )
        self._limit_us = self._setting["limit_us"]
        self._revisions_from = revisions_from
        self._names = names
        self._timeframes, self._timeframe_texts = _timeframes(rules.timeframes)
        self._streams: list[Stream] = []
        self._keys: list[bytes] = []
        self._rows: dict[bytes, int] = {}
        # Of each symbol: the state of its windows that its longer windows here are of; and how many
        # times in a row Python closed a single window.
        self._merged_at: list[int] = []
        self._singles: list[int] = []
        self._arena: npt.NDArray[np.uint8] = np.zeros(_ARENA_FIRST, np.uint8)
        self._arena_used = 0
        self._control: Structured = np.zeros(1, CONTROL)
        self._symbols: Structured = np.zeros(0, SYMBOL)
        self._windows: Structured = np.zeros((0, windows_of(len(names))), WINDOW)
        self._make_tables(_SYMBOLS_FIRST)

    def add(self, key: bytes, stream: Stream) -> None:
        """Add a symbol; the loop ingests none of its trades before `hand_over`."""
        row = len(self._streams)
        if row == len(self._symbols):
            self._make_tables(2 * row)
        self._streams.append(stream)
        self._keys.append(key)
        self._merged_at.append(-1)
        self._singles.append(0)
        self._rows[key] = row
        candles = start_of_candles(stream.exchange, stream.symbol).encode()
        texts = (key, start_of_trades(stream.exchange, stream.symbol), candles)
        places = [place for text in texts for place in (self._keep(text), len(text))]
        self._symbols[row] = (*[0] * len(_STATE), *places)
        self._enter(row)

    def run(self, records: EncodedRecords, row: int, limit_us: int) -> tuple[int, int, bool]:
        """Ingest plain trades of a batch from a row on, and close the windows that they end.

        Returns: the row that comes next; how many trades were ingested; whether the last of them
        ended windows that are not closed yet: its stream must do that (`bring_back`, `hand_over`)
        before the next row.
        """
        writer = self._writer_of(TRADES)
        writer.open_buffer()
        control = self._control
        control[0] = (row, loop.DONE, 0)
        self._limit_us[0] = limit_us
        while True:
            loop.run(
                records.bytes, records.index, control, self._tables, writer.buffer, writer.state
            )
            self._closed.note()
            row, reason, trades = control[0].item()
            if reason == loop.FULL:
                _, _, key_bytes, _, value_bytes = records.index[row].tolist()
                writer.room_for(key_bytes + value_bytes)
            elif reason != loop.CLOSES:
                return row, trades, False
            elif not self._close(records, row - 1):
                return row, trades, True

    def _close(self, records: EncodedRecords, row: int) -> bool:
        # The loop closes what is plain by itself, unless it had no room.
        offset, key, _ = records.record(row)
        assert key is not None
        self.deliver()
        number = self._rows[key]
        if self._symbols[number]["logged"]:
            closed = self._progress(number, newest=False)
            self._symbols[number]["logged"] = 0
            self._streams[number].follow(closed)
            self._on_change(key)
        done: bool = close_plain(self._tables, number, self._revisions_from + offset)
        self._closed.note()
        return done

    def deliver(self) -> None:
        """Add the candles of closed windows to their topics; the loop has all its room again."""
        self._closed.move(self._writer_of)

    def changed(self) -> list[bytes]:
        """Return the keys of the symbols that the loop changed since the last call."""
        changed = self._symbols["is_changed"][: len(self._streams)]
        rows = np.flatnonzero(changed).tolist()
        changed[:] = 0
        return [self._keys[row] for row in rows]

    def progress(self, key: bytes) -> Progress | None:
        """Return what the symbol's stream does not know yet; None: it knows all."""
        row = self._rows[key]
        return self._progress(row, newest=True) if self._symbols[row]["is_behind"] else None

    def _progress(self, row: int, *, newest: bool) -> Progress:
        """Return what the loop changed of a symbol, or only what it closed."""
        # Asked of every symbol at each commit: few calls of NumPy, and bytes cut by Python.
        _, _, _, has_ended, last_id, watermark_us, close_at_us, _, logged, *_ = self._symbols[
            row
        ].item()
        windows, size = self._windows[row], WINDOW.itemsize
        closed: list[tuple[str, bytes]] = []
        closed_at_us = 0
        if logged:
            log_at = len(windows) - LOG_WINDOWS
            log = windows[log_at : log_at + logged]
            names, packed = self._names, log.tobytes()
            closed = [
                (names[level], packed[at * size : (at + 1) * size])
                for at, level in enumerate(log["level"].tolist())
            ]
            closed_at_us = int(log["at_us"][-1])
        open_windows: list[bytes] = []
        if newest:
            packed = windows[: ENDED + 1].tobytes()
            open_windows = [packed[size:], packed[:size]] if has_ended else [packed[:size]]
        return Progress(last_id, watermark_us, close_at_us, closed, closed_at_us, open_windows)

    def bring_back(self, key: bytes) -> None:
        """Tell the symbol's stream what the loop changed."""
        progress = self.progress(key)
        if progress is not None:
            row = self._rows[key]
            symbol = self._symbols[row]
            symbol["logged"] = symbol["is_behind"] = symbol["has_ended"] = 0
            self._streams[row].follow(progress)
            self._on_change(key)

    def hand_over(self, key: bytes, ended: int | None = None) -> None:
        """Let the loop take the symbol's next trades, where its stream is ready for that.

        What the loop had changed must have been brought back before.

        Args:
            key: of the symbol.
            ended: how many base windows the stream has just closed by a trade; None: none was due.
        """
        row = self._rows[key]
        stream = self._streams[row]
        if ended is not None:
            self._merge_longer(row, ended)
        newest = stream.windows.newest_traded() if _is_in_order(stream) else None
        packed = None
        if newest is not None and newest.trades is not None:
            packed = pack(newest.open_us, newest.trades)
        if packed is None:
            self._symbols[row]["is_handed_over"] = 0
            return
        self._put(row, NEWEST, packed)
        closes = _closes_plainly(stream) and self._merged_at[row] == stream.windows.changes
        self._states[row] = (
            1, 0, 0, 0, stream.order.last_id, stream.closing.watermark_us,
            stream.closing.close_at_us, closes, 0, stream.windows.followed_from_us or 0,
        )  # fmt: skip

    def _merge_longer(self, row: int, ended: int) -> None:
        """Look what the longer windows come to, so that the loop may close the next window.

        That only pays for a symbol that is traded in one minute after the other.
        """
        stream = self._streams[row]
        self._singles[row] = self._singles[row] + 1 if ended == 1 else 0
        if self._singles[row] < _SINGLES_MIN or not _closes_plainly(stream):
            return
        for level in range(1, len(self._names)):
            place = LONGER + level - 1
            self._windows[row, place]["parts"] = 0
            window = stream.windows.get(level, stream.closing.closed_until_us)
            merged = None if window is None else stream.windows.merged(level, window)
            if window is None or merged is None:
                continue
            packed = pack(window.open_us, merged)
            if packed is None:
                return
            self._put(row, place, packed)
        self._merged_at[row] = stream.windows.changes

    def _put(self, row: int, place: int, packed: bytes) -> None:
        self._windows[row, place] = np.frombuffer(packed, WINDOW)[0]

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
        def grown(table: Structured) -> Structured:
            larger = np.zeros((symbols, *table.shape[1:]), table.dtype)
            larger[: len(table)] = table
            return larger

        self._symbols, self._windows = grown(self._symbols), grown(self._windows)
        self._states = self._symbols[_STATE]
        self._slots: npt.NDArray[np.int32] = np.zeros(4 * symbols, np.int32)
        self._bind()
        for row in range(len(self._streams)):
            self._enter(row)

    def _bind(self) -> None:
        closed = self._closed
        self._tables = Tables(
            self._setting, self._slots, self._arena, self._symbols, self._windows,
            self._timeframes, self._timeframe_texts, closed.text, closed.candles, closed.room,
        )  # fmt: skip

    def _enter(self, row: int) -> None:
        # At most a quarter of the slots is taken, so a key is found in a step or two.
        key = np.frombuffer(self._keys[row], np.uint8)
        mask = len(self._slots) - 1
        slot = loop.key_hash(key, 0, len(key)) & mask
        while self._slots[slot]:
            slot = (slot + 1) & mask
        self._slots[slot] = row + 1


def _is_in_order(stream: Stream) -> bool:
    """Return whether the next id, in the newest window or the next one, only adds a trade."""
    order = stream.order
    return (
        stream.proof.consecutive
        and stream.proof.unproven_from_us is None
        and order.first_id is not None
        # Else what comes next follows missing ids.
        and (order.last_trade_id is None or order.passed_us != 0)
    )


def _closes_plainly(stream: Stream) -> bool:
    """Return whether the next base window, ended by trades, is contiguous and stands for itself."""
    proof, closed_until_us = stream.proof, stream.closing.closed_until_us
    return (
        not proof.missing.ranges
        and proof.unproven_from_us is None
        and not any(span.kind == "gap" for span in proof.spans)
        and stream.windows.whole_from_us <= closed_until_us
        and proof.followed_from_us is not None
        and proof.followed_from_us <= closed_until_us
        and proof.proven_from_us is not None
        and proof.proven_from_us < closed_until_us
    )


def _timeframes(
    timeframes: tuple[Timeframe, ...],
) -> tuple[Structured, npt.NDArray[np.uint8]]:
    """Return the levels, and the text that names each in a candle."""
    texts = np.zeros((len(timeframes), _NAME_BYTES_MAX), np.uint8)
    levels = np.zeros(len(timeframes), TIMEFRAME)
    for level, timeframe in enumerate(timeframes):
        text = timeframe_in_candle(timeframe.name).encode()
        texts[level, : len(text)] = np.frombuffer(text, np.uint8)
        levels[level] = (timeframe.duration_us, timeframe.offset_us, len(text))
    return levels, texts
