"""State of a partition as bytes (msgpack), and back. Pure.

One record holds everything (key `state`) until it would pass the limit; from then on that record
is only a head, and each symbol has records of its own (key `symbol:exchange:symbol:chunk`), written
when the symbol changed. All of them are written in the transaction of the outputs.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.symbol_state import (
    encode_progress,
    encode_symbol,
    restore_progress,
    restore_symbol,
)

STATE_VERSION = 2
HEAD_KEY = b"state"
_SYMBOL_PREFIX = b"symbol:"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

StateRecord = tuple[bytes, bytes]


class StateWriter:
    """Writes the state of one partition again and again, each time only what it must."""

    def __init__(self, record_bytes_max: int, is_split: bool = False) -> None:
        self._record_bytes_max = record_bytes_max
        self.is_split = is_split
        self._symbols: dict[bytes, bytes] = {}

    def snapshot(self, kernel: Kernel) -> list[StateRecord]:
        """Return the records that, with those written before, hold the kernel's state."""
        changed = {key: _blob(kernel, key) for key in sorted(kernel.dirty)}
        kernel.dirty.clear()
        if not self.is_split:
            self._symbols.update(changed)
            head = _encode([STATE_VERSION, kernel.position, False, list(self._symbols.values())])
            if len(head) <= self._record_bytes_max:
                return [(HEAD_KEY, head)]
            self.is_split = True
            # A kernel that was restored holds symbols that did not change since.
            changed = {key: _blob(kernel, key) for key in sorted(kernel.symbols)}
            self._symbols.clear()
        records = [(HEAD_KEY, _encode([STATE_VERSION, kernel.position, True, []]))]
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
    version, position, is_split, _ = _read_head(head)
    del version
    return position, is_split


def restore(kernel: Kernel, records: dict[bytes, bytes]) -> StateWriter:
    """Fill a new kernel from the newest record of each key; return the writer that goes on.

    Raises: ValidationError when records are missing or were written by another version.
    """
    head = records.get(HEAD_KEY)
    if head is None:
        raise ValidationError("expected a state record with the key 'state', found none")
    _, position, is_split, blobs = _read_head(head)
    if is_split:
        blobs = [_decode(blob) for blob in _join(records)]
    else:
        blobs = [_decode(blob) for blob in blobs]
    for parts, progress in blobs:
        kernel.restore(
            restore_symbol(parts, kernel.rules), restore_progress(progress, kernel.rules)
        )
    kernel.position = position
    writer = StateWriter(kernel.state_record_bytes_max, is_split)
    if not is_split:
        writer.remember(kernel)
    return writer


def _read_head(head: bytes) -> list[Any]:
    parts: list[Any] = _decode(head)
    if parts[0] != STATE_VERSION:
        raise ValidationError(
            f"expected state of version {STATE_VERSION}, found version {parts[0]}; run the version "
            "that wrote it, or begin a new epoch"
        )
    return parts


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
    return _encode([msgspec.Raw(symbol.encoded), encode_progress(kernel.plain.progress(key))])
