"""State of a partition as bytes (msgpack), and back. Pure.

One record holds everything (key `state`) until it would pass the limit; from then on that record
is only a head, and each symbol has records of its own (key `symbol:exchange:symbol:chunk`), written
when the symbol changed. All of them are written in the transaction of the outputs.

Everything is by name. What is not known or turned off today is dropped, and the writer that goes on
says what that was.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import TIMEFRAMES, Timeframe
from alpha_pulse.processors.candles.rules import Rules
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state import upgrade
from alpha_pulse.processors.state.symbol_state import (
    encode_progress,
    encode_symbol,
    restore_symbol,
    unknown_parts,
)

STATE_VERSION = 3
HEAD_KEY = b"state"
_SYMBOL_PREFIX = b"symbol:"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

StateRecord = tuple[bytes, bytes]


class StateWriter:
    """Writes the state of one partition again and again, each time only what it must.

    dropped: timeframes and kinds that the state held and that are off today. begun: timeframes
    that are on today and were not when it was written.
    """

    def __init__(self, record_bytes_max: int, is_split: bool = False) -> None:
        self._record_bytes_max = record_bytes_max
        self.is_split = is_split
        self.dropped: list[str] = []
        self.begun: list[str] = []
        self._symbols: dict[bytes, bytes] = {}

    def snapshot(self, kernel: Kernel) -> list[StateRecord]:
        """Return the records that, with those written before, hold the kernel's state."""
        changed = {key: _blob(kernel, key) for key in sorted(kernel.dirty)}
        kernel.dirty.clear()
        if not self.is_split:
            self._symbols.update(changed)
            head = _head(kernel, list(self._symbols.values()), is_split=False)
            if len(head) <= self._record_bytes_max:
                return [(HEAD_KEY, head)]
            self.is_split = True
            # A kernel that was restored holds symbols that did not change since.
            changed = {key: _blob(kernel, key) for key in sorted(kernel.symbols)}
            self._symbols.clear()
        records = [(HEAD_KEY, _head(kernel, [], is_split=True))]
        for key, blob in changed.items():
            records += self._chunks(key, blob, kernel.position)
        return records

    def remember(self, kernel: Kernel) -> None:
        """Take over a restored kernel, so that the next snapshot is whole."""
        kernel.dirty.update(kernel.symbols)

    def _chunks(self, key: bytes, blob: bytes, position: int) -> Iterable[StateRecord]:
        size = self._record_bytes_max
        parts = [blob[start : start + size] for start in range(0, len(blob), size)]
        for index, part in enumerate(parts):
            yield (
                b"%b%b:%d" % (_SYMBOL_PREFIX, key, index),
                _encode([position, len(parts), part]),
            )


def position_of(head: bytes) -> tuple[int, bool]:
    """Return the input position of a head record, and whether symbols have their own records."""
    found = _read_head(head)
    return found["position"], found["is_split"]


def restore(kernel: Kernel, records: dict[bytes, bytes]) -> StateWriter:
    """Fill a new kernel from the newest record of each key; return the writer that goes on.

    Raises: ValidationError when records are missing, or hold what can't be taken over.
    """
    record = records.get(HEAD_KEY)
    if record is None:
        raise ValidationError("expected a state record with the key 'state', found none")
    head = _read_head(record)
    blobs = list(_join(records)) if head["is_split"] else head["symbols"]
    symbols = [_decode(blob) for blob in blobs]
    written = _written(head, symbols, kernel.rules)
    writer = StateWriter(kernel.state_record_bytes_max, head["is_split"])
    _compare(writer, written, kernel.rules)
    for blob in symbols:
        found = upgrade.upgraded(blob) if head["version"] == 2 else blob
        parts = found["symbol"]
        writer.dropped += sorted(unknown_parts(parts) - set(writer.dropped))
        kernel.restore(restore_symbol(parts, found["progress"], written, kernel.rules))
    kernel.position = head["position"]
    if not head["is_split"] or head["version"] != STATE_VERSION or written != kernel.rules:
        writer.remember(kernel)
    return writer


def _head(kernel: Kernel, symbols: list[bytes], *, is_split: bool) -> bytes:
    rules = kernel.rules
    parts = {
        "position": kernel.position,
        "is_split": is_split,
        "timeframes": [[t.name, t.duration_us, t.offset_us] for t in rules.timeframes],
        "closed_keep_us": rules.closed_keep_us,
        "symbols": symbols,
    }
    return _encode([STATE_VERSION, parts])


def _read_head(head: bytes) -> dict[str, Any]:
    version, *parts = _decode(head)
    if version == 2:
        position, is_split, symbols = parts
        return {"version": 2, "position": position, "is_split": is_split, "symbols": symbols}
    if version != STATE_VERSION:
        raise ValidationError(
            f"expected state of version 2 or {STATE_VERSION}, found version {version}; run the "
            "version that wrote it, or begin a new log epoch"
        )
    return {"version": version, **parts[0]}


def _written(head: dict[str, Any], symbols: list[Any], rules: Rules) -> Rules:
    """Return the rules that a state was written with, as far as they matter to it."""
    if head["version"] == 2:
        if not symbols:
            return rules
        names = upgrade.timeframes_of(symbols[0])
        return replace(rules, timeframes=tuple(TIMEFRAMES[name] for name in names))
    timeframes = tuple(Timeframe(*parts) for parts in head["timeframes"])
    for timeframe in timeframes:
        known = TIMEFRAMES.get(timeframe.name, timeframe)
        if known != timeframe:
            raise ValidationError(
                f"expected {timeframe.name} windows of {known.duration_us} µs in the state, found "
                f"{timeframe.duration_us} µs; run the version that wrote it, or begin a new log "
                "epoch"
            )
    return replace(rules, timeframes=timeframes, closed_keep_us=head["closed_keep_us"])


def _compare(writer: StateWriter, written: Rules, rules: Rules) -> None:
    before, today = ([timeframe.name for timeframe in r.timeframes] for r in (written, rules))
    writer.dropped = [name for name in before if name not in today]
    writer.begun = [name for name in today if name not in before]


def _join(records: dict[bytes, bytes]) -> Iterable[bytes]:
    for key in sorted(records):
        if not key.startswith(_SYMBOL_PREFIX) or not key.endswith(b":0"):
            continue
        position, count, first = _decode(records[key])
        blob = [first]
        for index in range(1, count):
            found = records.get(b"%b:%d" % (key[:-2], index))
            part = _decode(found) if found is not None else [None]
            if part[0] != position:
                raise ValidationError(
                    f"expected {count} state records of {key!r} at {position}, found chunk {index} "
                    "missing or of another snapshot"
                )
            blob.append(part[2])
        yield b"".join(blob)


def _blob(kernel: Kernel, key: bytes) -> bytes:
    # What a stream has not been told yet costs the windows that changed.
    symbol = kernel.symbols[key]
    if symbol.encoded is None:
        symbol.encoded = encode_symbol(symbol)
    progress = encode_progress(kernel.plain.progress(key), kernel.rules)
    return _encode({"symbol": msgspec.Raw(symbol.encoded), "progress": progress})
