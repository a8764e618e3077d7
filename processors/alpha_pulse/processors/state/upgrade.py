"""State of version 2 (commit 4d9f32e) as version 3 has it. Pure; only here are positions known.

Version 2 had the timeframes by number: eight of them, or nine with the second before them.
"""

from struct import Struct
from typing import Any

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.processors.candles.packed import LAYOUT, offset_of
from alpha_pulse.processors.kernel.earlier_logs import had_consecutive_ids

_NAMES = ("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w")
# How a candle job began, where the stream of a trade job had its exchange.
_CANDLE_JOB = 1
# What the live stream had not been told: last id, watermark, when the next window closes, whether
# the window before the newest follows it, how many closed windows follow that. Of those, the
# number of the timeframe and the watermark that closed them.
_SAVED, _NOTE = Struct("<5q"), Struct("<2q")


def upgraded(blob: list[Any]) -> dict[str, Any]:
    """Return what version 3 would have written of a symbol.

    Raises: ValidationError when it has neither eight nor nine timeframes.
    """
    (key, live, jobs), saved = blob
    names = _names_of(len(live[5]))
    found = [
        _candle_job(job, names) if job[0] == _CANDLE_JOB else _stream(job, names) for job in jobs
    ]
    return {
        "symbol": {"key": key, "live": _stream(live, names), "jobs": found},
        "progress": None if saved is None else _progress(saved, live, names),
    }


def timeframes_of(blob: list[Any]) -> tuple[str, ...]:
    """Return the names of the timeframes that a symbol was written with."""
    (_, live, _), _ = blob
    return _names_of(len(live[5]))


def _names_of(count: int) -> tuple[str, ...]:
    if count == len(_NAMES):
        return _NAMES
    if count == len(_NAMES) + 1:
        return "1s", *_NAMES
    raise ValidationError(
        f"expected state of version 2 with 8 or 9 timeframes, found {count}; run the version that "
        "wrote it, or begin a new log epoch"
    )


def _stream(parts: list[Any], names: tuple[str, ...]) -> dict[str, Any]:
    (
        exchange, symbol, job, proof, followed_from_us, levels, first_id, last_id, last_trade_us,
        last_trade_id, watermark_us, closed_until_us, _, price, price_open_us, late,
    ) = parts  # fmt: skip
    return {
        "exchange": exchange, "symbol": symbol, "job": job, "proof": proof,
        "ids_are_consecutive": had_consecutive_ids(exchange),
        "followed_from_us": followed_from_us,
        "levels": dict(zip(names, levels, strict=True)),
        "first_id": first_id, "last_id": last_id, "last_trade_us": last_trade_us,
        "last_trade_id": last_trade_id, "watermark_us": watermark_us,
        "closed_until_us": closed_until_us, "price": price, "price_open_us": price_open_us,
        "late": late,
    }  # fmt: skip


def _candle_job(parts: list[Any], names: tuple[str, ...]) -> dict[str, Any]:
    _, exchange, symbol, name, timeframe, start_us, end_us, next_us, late, longer = parts
    return {
        "exchange": exchange, "symbol": symbol, "name": name, "timeframe": timeframe,
        "start_us": start_us, "end_us": end_us, "next_us": next_us, "late": late,
        "longer": {names[level]: [open_us, value] for level, open_us, value in longer},
    }  # fmt: skip


def _progress(saved: bytes, live: list[Any], names: tuple[str, ...]) -> dict[str, Any]:
    last_id, watermark_us, close_at_us, rolled, count = _SAVED.unpack_from(saved)
    rows = [saved[at : at + LAYOUT.size] for at in range(_SAVED.size, len(saved), LAYOUT.size)]
    newest, closed = rows[: 1 + rolled], rows[1 + rolled :]
    notes = [_NOTE.unpack_from(row, offset_of("level")) for row in closed]
    assert len(closed) == count
    return {
        "last_id": last_id, "watermark_us": watermark_us,
        # The grace is not known; the stream knows both times as they were before these rows.
        "closed_until_us": live[11] + close_at_us - live[12],
        "closed": [[names[level], row] for (level, _), row in zip(notes, closed, strict=True)],
        "closed_at_us": notes[-1][1] if notes else 0,
        "newest": newest[::-1],
    }  # fmt: skip
