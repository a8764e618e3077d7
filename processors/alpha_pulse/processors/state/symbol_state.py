"""State of one symbol as bytes, and back: nested lists, in the order of the fields. Pure."""

from struct import Struct
from typing import Any

import msgspec

from alpha_pulse.contracts.market import ids_are_consecutive
from alpha_pulse.processors.candles.missing import Hole, MissingIds, Range
from alpha_pulse.processors.candles.packed import LAYOUT, offset_of
from alpha_pulse.processors.candles.progress import Progress
from alpha_pulse.processors.candles.proof import Proof, Span
from alpha_pulse.processors.candles.rules import Job, Rules
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.candles.value import Value
from alpha_pulse.processors.candles.windows import Window, Windows
from alpha_pulse.processors.history.job import CandleJob
from alpha_pulse.processors.kernel.symbol import Symbol

_encode = msgspec.msgpack.Encoder().encode
# How commit 4d9f32e began what a stream had not been told; packed values follow, the newest first,
# those of closed windows with the number of their timeframe and the watermark that closed them.
_SAVED, _NOTE = Struct("<5q"), Struct("<2q")


def encode_symbol(symbol: Symbol) -> bytes:
    """Return a symbol's streams as bytes, without what they have not been told yet."""
    jobs = [
        _candle_job(job) if isinstance(job, CandleJob) else _stream(job)
        for job in symbol.jobs.values()
    ]
    return _encode([symbol.key, _stream(symbol.live), jobs])


def restore_symbol(parts: list[Any], rules: Rules) -> Symbol:
    """Return the symbol of which these are the decoded bytes."""
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


def encode_progress(progress: Progress | None) -> list[Any] | None:
    """Return what a live stream has not been told yet, as parts."""
    if progress is None:
        return None
    return [
        progress.last_id, progress.watermark_us, progress.close_at_us, progress.closed,
        progress.closed_at_us, progress.newest,
    ]  # fmt: skip


def restore_progress(parts: list[Any] | bytes | None, rules: Rules) -> Progress | None:
    """Return the progress of its parts, or of the rows that commit 4d9f32e wrote."""
    if parts is None:
        return None
    if isinstance(parts, bytes):
        return _progress_of_rows(parts, rules)
    last_id, watermark_us, close_at_us, closed, closed_at_us, newest = parts
    return Progress(
        last_id, watermark_us, close_at_us, [(name, packed) for name, packed in closed],
        closed_at_us, newest,
    )  # fmt: skip


def _progress_of_rows(saved: bytes, rules: Rules) -> Progress:
    last_id, watermark_us, close_at_us, rolled, logged = _SAVED.unpack_from(saved)
    rows = [saved[at : at + LAYOUT.size] for at in range(_SAVED.size, len(saved), LAYOUT.size)]
    newest, log = rows[: 1 + rolled], rows[1 + rolled :]
    assert len(log) == logged
    notes = [_NOTE.unpack_from(row, offset_of("level")) for row in log]
    return Progress(
        last_id, watermark_us, close_at_us,
        [(rules.timeframes[level].name, row) for (level, _), row in zip(notes, log, strict=True)],
        notes[-1][1] if notes else 0, newest[::-1],
    )  # fmt: skip


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
    packed = window.packed
    parts = [
        window.open_us, window.close_us, packed, None if packed else _value(window.trades),
        window.settled_packed or _value(window.settled), _value(window.exchange), window.price,
        None if packed else _value(window.standing), window.closed,
        None if window.ids is None else sorted(window.ids),
    ]  # fmt: skip
    if not window.closed:
        return parts
    window.encoded = msgspec.Raw(_encode(parts))
    return window.encoded


def _restore_window(parts: list[Any], *, is_base: bool) -> Window:
    open_us, close_us, packed, trades, settled, exchange, price, standing, closed, ids = parts
    window = Window(open_us, close_us, is_base=is_base)
    window.closed, window.price, window.exchange = closed, price, _restore_value(exchange)
    window.ids = None if ids is None else set(ids)
    window.trades, window.standing = _restore_value(trades), _restore_value(standing)
    window.packed = packed
    if settled and isinstance(settled[0], bytes):
        window.settled_packed = settled
    else:
        window.settled = _restore_value(settled)
    return window


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
    job, closing, order = stream.job, stream.closing, stream.order
    return [
        stream.exchange, stream.symbol,
        None if job is None else [job.name, job.start_us, job.end_us],
        _proof(stream.proof), stream.windows.followed_from_us,
        [[_window(window) for window in level.values()] for level in stream.windows.levels],
        order.first_id, order.last_id, order.last_trade_us, order.last_trade_id,
        closing.watermark_us, closing.closed_until_us, closing.close_at_us,
        stream.versions.price, stream.versions.price_open_us, stream.late,
    ]  # fmt: skip


def _restore_stream(parts: list[Any], rules: Rules) -> Stream:
    exchange, symbol, job_parts, proof_parts, followed_from_us, levels, *rest = parts
    job = None if job_parts is None else Job(*job_parts)
    windows = Windows(
        rules.timeframes,
        [
            {parts[0]: _restore_window(parts, is_base=level == 0) for parts in windows}
            for level, windows in enumerate(levels)
        ],
        followed_from_us,
        None if job is None else job.start_us,
    )
    proof = _restore_proof(proof_parts, ids_are_consecutive(exchange))
    stream = Stream.of(exchange, symbol, rules, proof, windows, job)
    closing, order = stream.closing, stream.order
    (
        order.first_id, order.last_id, order.last_trade_us, order.last_trade_id,
        closing.watermark_us, closing.closed_until_us, closing.close_at_us,
        stream.versions.price, stream.versions.price_open_us, stream.late,
    ) = rest  # fmt: skip
    for open_us, window in stream.windows.levels[0].items():
        for trade_id in window.ids or ():
            order.recent[trade_id] = open_us
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
