"""State of a partition as bytes (msgpack), and back. Pure.

One record holds everything (key `state`) until it would pass the limit; from then on that record
is only a head, and each symbol has records of its own (key `symbol:exchange:symbol:chunk`), written
when the symbol changed. All of them are written in the transaction of the outputs.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import ids_are_consecutive
from alpha_pulse.processors.candle_job import CandleJob
from alpha_pulse.processors.candles import Value
from alpha_pulse.processors.kernel import Kernel, Symbol
from alpha_pulse.processors.missing import Hole, MissingIds, Range
from alpha_pulse.processors.proof import Proof, Span
from alpha_pulse.processors.rollup import Window, Windows
from alpha_pulse.processors.rules import Job, Rules
from alpha_pulse.processors.stream import Stream

STATE_VERSION = 1
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
        changed = {key: _encode(_symbol(kernel.symbols[key])) for key in sorted(kernel.dirty)}
        kernel.dirty.clear()
        if not self.is_split:
            self._symbols.update(changed)
            head = _encode([STATE_VERSION, kernel.position, False, list(self._symbols.values())])
            if len(head) <= self._record_bytes_max:
                return [(HEAD_KEY, head)]
            self.is_split = True
            # A kernel that was restored holds symbols that did not change since.
            changed = {key: _encode(_symbol(kernel.symbols[key])) for key in sorted(kernel.symbols)}
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
    for parts in blobs:
        symbol = _restore_symbol(parts, kernel.rules)
        kernel.adopt(symbol)
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


# --- one symbol: nested lists, in the order of the fields -----------------------------------------


def _number(number: int) -> int | str:
    # msgpack ends at 64 bits; sums of products do not.
    return number if number < 2**63 else str(number)


def _value(value: Value | None) -> list[Any] | None:
    if value is None:
        return None
    return [
        value.first_time_us, value.first_rank, value.first_id, value.open,
        value.last_time_us, value.last_rank, value.last_id, value.close,
        _number(value.high_units), value.high, _number(value.low_units), value.low,
        _number(value.volume_units), _number(value.quote_units), _number(value.buy_units),
        value.count, value.quote_known, value.sides_known, value.count_known, value.empty,
        value.coverage, value.source, value.parts,
    ]  # fmt: skip


def _restore_value(parts: list[Any] | None) -> Value | None:
    if parts is None:
        return None
    for index in (1, 5):
        if isinstance(parts[index], list):
            parts[index] = tuple(parts[index])
    for index in (8, 10, 12, 13, 14):
        parts[index] = int(parts[index])
    return Value(*parts)


def _window(window: Window) -> Any:
    if window.encoded is not None:
        return window.encoded
    parts = [
        window.open_us, window.close_us, _value(window.trades), _value(window.settled),
        _value(window.exchange), window.price, _value(window.standing), window.closed,
        None if window.ids is None else sorted(window.ids),
    ]  # fmt: skip
    if not window.closed:
        return parts
    window.encoded = msgspec.Raw(_encode(parts))
    return window.encoded


def _restore_window(parts: list[Any]) -> Window:
    open_us, close_us, trades, settled, exchange, price, standing, closed, ids = parts
    return Window(
        open_us, close_us, _restore_value(trades), _restore_value(settled),
        _restore_value(exchange), price, _restore_value(standing), closed,
        None if ids is None else set(ids),
    )  # fmt: skip


def _proof(proof: Proof) -> list[Any]:
    holes: dict[int, Hole] = {id(found.hole): found.hole for found in proof.missing.ranges}
    index = {identity: number for number, identity in enumerate(holes)}
    return [
        [
            [h.first, h.last, h.start_us, h.end_us, h.remaining, h.status, h.reason]
            for h in holes.values()
        ],
        [
            [r.first, r.last, r.start_us, r.end_us, r.keeps, index[id(r.hole)]]
            for r in proof.missing.ranges
        ],
        [[s.start_us, s.end_us, s.kind, s.keeps] for s in proof.spans],
        proof.state, proof.followed_from_us, proof.proven_from_us, proof.live_from_us,
        proof.unproven_from_us,
    ]  # fmt: skip


def _restore_proof(parts: list[Any], consecutive: bool) -> Proof:
    hole_parts, range_parts, span_parts, *rest = parts
    holes = [Hole(*hole) for hole in hole_parts]
    ranges = [
        Range(first, last, start_us, end_us, keeps, holes[index])
        for first, last, start_us, end_us, keeps, index in range_parts
    ]
    return Proof(consecutive, MissingIds(ranges), [Span(*span) for span in span_parts], *rest)


def _stream(stream: Stream) -> list[Any]:
    job = stream.job
    return [
        stream.exchange, stream.symbol,
        None if job is None else [job.name, job.start_us, job.end_us],
        _proof(stream.proof), stream.windows.followed_from_us,
        [[_window(window) for window in level.values()] for level in stream.windows.levels],
        stream.first_id, stream.last_id, stream.last_trade_us, stream.last_trade_id,
        stream.watermark_us, stream.closed_until_us, stream.close_at_us,
        stream.versions.price, stream.versions.price_open_us, stream.late,
    ]  # fmt: skip


def _restore_stream(parts: list[Any], rules: Rules) -> Stream:
    exchange, symbol, job_parts, proof_parts, followed_from_us, levels, *rest = parts
    job = None if job_parts is None else Job(*job_parts)
    windows = Windows(
        rules.timeframes,
        [{w[0]: _restore_window(w) for w in level} for level in levels],
        followed_from_us,
        None if job is None else job.start_us,
    )
    proof = _restore_proof(proof_parts, ids_are_consecutive(exchange))
    stream = Stream.of(exchange, symbol, rules, proof, windows, job)
    (
        stream.first_id, stream.last_id, stream.last_trade_us, stream.last_trade_id,
        stream.watermark_us, stream.closed_until_us, stream.close_at_us,
        stream.versions.price, stream.versions.price_open_us, stream.late,
    ) = rest  # fmt: skip
    for open_us, window in stream.windows.levels[0].items():
        for trade_id in window.ids or ():
            stream.recent[trade_id] = open_us
    return stream


# How the parts of a job of candles begin, where those of a job of trades have their exchange.
_CANDLE_JOB = 1


def _candle_job(job: CandleJob) -> list[Any]:
    return [
        _CANDLE_JOB, job.exchange, job.symbol, job.name, job.timeframe, job.start_us, job.end_us,
        job.next_us, job.late,
        [[level, open_us, _value(value)] for level, (open_us, value) in job.longer.items()],
    ]  # fmt: skip


def _restore_candle_job(parts: list[Any], rules: Rules) -> CandleJob:
    _, exchange, symbol, name, timeframe, start_us, end_us, next_us, late, longer = parts
    job = CandleJob(exchange, symbol, rules.timeframes, name, timeframe, start_us, end_us, next_us)
    job.late = late
    for level, open_us, value_parts in longer:
        value = _restore_value(value_parts)
        assert value is not None
        job.longer[level] = (open_us, value)
    return job


def _symbol(symbol: Symbol) -> list[Any]:
    jobs = [
        _candle_job(job) if isinstance(job, CandleJob) else _stream(job)
        for job in symbol.jobs.values()
    ]
    return [symbol.key, _stream(symbol.live), jobs]


def _restore_symbol(parts: list[Any], rules: Rules) -> Symbol:
    key, live_parts, jobs = parts
    live = _restore_stream(live_parts, rules)
    symbol = Symbol(key, live)
    for job_parts in jobs:
        if job_parts[0] == _CANDLE_JOB:
            candle_job = _restore_candle_job(job_parts, rules)
            symbol.jobs[candle_job.name] = candle_job
            continue
        job = _restore_stream(job_parts, rules)
        assert job.job is not None
        symbol.jobs[job.job.name] = job
    return symbol
