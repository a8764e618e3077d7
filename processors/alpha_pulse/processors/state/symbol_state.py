"""State of one symbol as bytes, and back: fields and timeframes by name. Pure.

Windows and their values, of which there are many, are lists in the order of their fields.
"""

from typing import Any

import msgspec

from alpha_pulse.processors.candles.missing import Hole, MissingIds, Range
from alpha_pulse.processors.candles.progress import Progress
from alpha_pulse.processors.candles.proof import Proof, Span
from alpha_pulse.processors.candles.rules import Job, Rules
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.candles.value import Value
from alpha_pulse.processors.candles.windows import Window, Windows
from alpha_pulse.processors.history.job import CandleJob
from alpha_pulse.processors.kernel.symbol import Symbol
from alpha_pulse.processors.state.timeframes import longer_of, with_rules

_encode = msgspec.msgpack.Encoder().encode
# Of an order, where ids of no trade came; left out at 0.
_OF_IDS = ("passed_us", "unpriced_until_us")
_PARTS = frozenset({"key", "live", "jobs"})


def encode_symbol(symbol: Symbol) -> bytes:
    """Return a symbol's streams as bytes, without what they have not been told yet."""
    jobs = [
        _candle_job(job) if isinstance(job, CandleJob) else _stream(job)
        for job in symbol.jobs.values()
    ]
    return _encode({"key": symbol.key, "live": _stream(symbol.live), "jobs": jobs})


def restore_symbol(
    parts: dict[str, Any], ahead: dict[str, Any] | None, written: Rules, rules: Rules
) -> Symbol:
    """Return a symbol under today's rules.

    Args:
        parts: its decoded bytes.
        ahead: what its live stream had not been told, of `encode_progress`.
        written: the rules that they were written with.
        rules: today's.

    Raises: ValidationError when it can't be brought to today's timeframes.
    """
    live = _restore_stream(parts["live"], written)
    progress = _restore_progress(ahead, written)
    if progress is not None:
        live.follow(progress)
    symbol = Symbol(parts["key"], with_rules(live, rules))
    for job_parts in parts["jobs"]:
        if "timeframe" in job_parts:
            candle_job = _restore_candle_job(job_parts, written, rules)
            symbol.jobs[candle_job.name] = candle_job
            continue
        job = with_rules(_restore_stream(job_parts, written), rules)
        assert job.job is not None
        symbol.jobs[job.job.name] = job
    return symbol


def unknown_parts(parts: dict[str, Any]) -> set[str]:
    """Return the names of what a symbol's state holds and this version does not know."""
    return parts.keys() - _PARTS


def encode_progress(progress: Progress | None, rules: Rules) -> dict[str, Any] | None:
    """Return what a live stream has not been told yet, as parts."""
    if progress is None:
        return None
    return {
        "last_id": progress.last_id,
        "watermark_us": progress.watermark_us,
        "closed_until_us": progress.close_at_us - _closes_after_us(rules),
        "closed": progress.closed,
        "closed_at_us": progress.closed_at_us,
        "newest": progress.newest,
    }


def _restore_progress(parts: dict[str, Any] | None, rules: Rules) -> Progress | None:
    if parts is None:
        return None
    return Progress(
        parts["last_id"], parts["watermark_us"], parts["closed_until_us"] + _closes_after_us(rules),
        [(name, packed) for name, packed in parts["closed"]], parts["closed_at_us"],
        parts["newest"],
    )  # fmt: skip


def _closes_after_us(rules: Rules) -> int:
    # From the end of what is closed to the watermark that closes the next base window.
    return rules.timeframes[0].duration_us + rules.grace_us


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


def _stream(stream: Stream) -> dict[str, Any]:
    job, closing, order, windows = stream.job, stream.closing, stream.order, stream.windows
    names = [timeframe.name for timeframe in windows.timeframes]
    parts: dict[str, Any] = {
        "exchange": stream.exchange,
        "symbol": stream.symbol,
        "job": None if job is None else [job.name, job.start_us, job.end_us],
        "ids_are_consecutive": stream.proof.consecutive,
        "proof": _proof(stream.proof),
        "followed_from_us": windows.followed_from_us,
        "levels": {
            name: [_window(window) for window in level.values()]
            for name, level in zip(names, windows.levels, strict=True)
        },
        "first_id": order.first_id,
        "last_id": order.last_id,
        "last_trade_us": order.last_trade_us,
        "last_trade_id": order.last_trade_id,
        "watermark_us": closing.watermark_us,
        "closed_until_us": closing.closed_until_us,
        "price": stream.versions.price,
        "price_open_us": stream.versions.price_open_us,
        "late": stream.late,
    }
    begins_us = {n: begin for n, begin in zip(names, windows.begins_us, strict=True) if begin}
    if begins_us:
        parts["begins_us"] = begins_us
        parts["former_base"] = names[windows.former_base]
    for name in _OF_IDS:
        if getattr(order, name):
            parts[name] = getattr(order, name)
    if closing.gone_until_us:
        parts["gone_until_us"] = closing.gone_until_us
    return parts


def _restore_stream(parts: dict[str, Any], rules: Rules) -> Stream:
    job = None if parts["job"] is None else Job(*parts["job"])
    names = [timeframe.name for timeframe in rules.timeframes]
    former_base = names.index(parts.get("former_base", names[0]))
    levels = [
        {
            window[0]: _restore_window(window, is_base=level == 0)
            for window in parts["levels"].get(name, ())
        }
        for level, name in enumerate(names)
    ]
    begins_us = parts.get("begins_us", {})
    windows = Windows(
        rules.timeframes, levels, parts["followed_from_us"], None if job is None else job.start_us,
        begins_us=[begins_us.get(name, 0) for name in names], former_base=former_base,
    )  # fmt: skip
    proof = _restore_proof(parts["proof"], parts["ids_are_consecutive"])
    stream = Stream.of(parts["exchange"], parts["symbol"], rules, proof, windows, job)
    closing, order, versions = stream.closing, stream.order, stream.versions
    order.first_id, order.last_id = parts["first_id"], parts["last_id"]
    order.last_trade_us, order.last_trade_id = parts["last_trade_us"], parts["last_trade_id"]
    for name in _OF_IDS:
        setattr(order, name, parts.get(name, 0))
    closing.watermark_us = parts["watermark_us"]
    closing.closed_until_us = parts["closed_until_us"]
    closing.gone_until_us = parts.get("gone_until_us", 0)
    closing.resume()
    versions.price, versions.price_open_us = parts["price"], parts["price_open_us"]
    stream.late = parts["late"]
    for level in windows.levels:
        for open_us, window in level.items():
            for trade_id in window.ids or ():
                order.recent[trade_id] = open_us
    return stream


def _candle_job(job: CandleJob) -> dict[str, Any]:
    names = [timeframe.name for timeframe in job.timeframes]
    parts: dict[str, Any] = {
        "exchange": job.exchange,
        "symbol": job.symbol,
        "name": job.name,
        "timeframe": job.timeframe,
        "start_us": job.start_us,
        "end_us": job.end_us,
        "next_us": job.next_us,
        "late": job.late,
        "longer": {
            names[level]: [open_us, _value(value)] for level, (open_us, value) in job.longer.items()
        },
    }
    if job.begins_us:
        parts["begins_us"] = {names[level]: begin for level, begin in job.begins_us.items()}
    return parts


def _restore_candle_job(parts: dict[str, Any], written: Rules, rules: Rules) -> CandleJob:
    job = CandleJob(
        parts["exchange"], parts["symbol"], rules.timeframes, parts["name"], parts["timeframe"],
        parts["start_us"], parts["end_us"], parts["next_us"],
    )  # fmt: skip
    job.late = parts["late"]
    longer: dict[str, tuple[int, Value]] = {}
    for name, (open_us, value_parts) in parts["longer"].items():
        value = _restore_value(value_parts)
        assert value is not None
        longer[name] = (open_us, value)
    job.longer, job.begins_us = longer_of(
        longer, parts.get("begins_us", {}), written.timeframes, rules.timeframes, job.next_us
    )
    return job
