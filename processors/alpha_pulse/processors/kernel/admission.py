"""Admission: bytes of the ingest log to events, or to dead letters. Pure.

Trades take a lean path, because there are many: decoded without regular expressions, then checked
here. A trade's bytes go on to readers as they are, so they must mean the same to every reader:
JSON with a key twice is read differently (the first counts for ClickHouse, the last for Python).
A trade whose length is exactly that of its canonical form can't hold a second key, an escape or a
space; any other trade is looked at closely, and refused when a key stands twice.
"""

import json
import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from alpha_pulse.contracts.codec import kind_in
from alpha_pulse.contracts.errors import UnknownKindError, ValidationError
from alpha_pulse.contracts.events import NO_TRADE, Candle, Ids, Side
from alpha_pulse.contracts.kinds import EVENT_TYPES, UncommonIngestEvent, event_name
from alpha_pulse.contracts.market import TIME_US_MAX, TIME_US_MIN, TRADE_ID_PATTERN
from alpha_pulse.contracts.validation import validate_candle

_TIME = Annotated[int, Meta(ge=TIME_US_MIN, lt=TIME_US_MAX)]
_TRADE_ID = re.compile(TRADE_ID_PATTERN).match
_NUMBER_ID = re.compile(r"[1-9][0-9]{0,18}|0").fullmatch


class LeanTrade(Struct, gc=False, tag_field="event", tag="trade"):
    """A trade of the ingest log; ids, prices and amounts are not checked by decoding."""

    exchange: str
    symbol: str
    trade_id: str
    price: str
    amount: str
    side: Side
    trade_time_us: _TIME
    receive_time_us: _TIME
    job: str | None = None


Admitted = LeanTrade | UncommonIngestEvent
_decode_any = msgspec.json.Decoder(Admitted).decode
_KINDS = frozenset(map(event_name, EVENT_TYPES))
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_FIELDS = LeanTrade.__struct_fields__


class Refused(ValidationError):
    """An event that must not go on; `reason` is the dead letter's code."""

    def __init__(self, reason: str, error: str) -> None:
        super().__init__(error)
        self.reason = reason


def decode(value: bytes | None) -> Admitted:
    """Return the event of a value.

    Raises:
        Refused: it is no event, or not one of the ingest log.
        UnknownKindError: it is of a kind that this version does not know; a newer producer may
            write such events.
    """
    if value is None:
        raise Refused("bad_schema", "expected an event, found a record without a value")
    try:
        event: Admitted = _decode_any(value)
    except _DECODE_ERRORS as error:
        kind = kind_in(value)
        if kind is not None and kind not in _KINDS:
            raise UnknownKindError(
                f"expected one of the kinds {', '.join(sorted(_KINDS))}, found {kind[:80]!r}"
            ) from error
        raise Refused(
            "bad_schema", f"expected an event of the ingest log, found: {error}"[:2000]
        ) from error
    return event


def check_form(value: bytes, trade: LeanTrade) -> None:
    """Raise Refused unless every field of the trade stands in its bytes once, and plainly.

    For trades that are not in canonical form: another order, unknown fields, a job.
    """
    try:
        json.loads(value, object_pairs_hook=_refuse_twice)
    except (ValueError, RecursionError) as error:
        raise Refused("bad_form", f"expected each key once, found: {error}"[:2000]) from error
    if value[:2] != b'{"' or value[-1:] != b"}" or b"\n" in value or b"\r" in value:
        raise Refused("bad_form", "expected one object on one line, found something around it")
    for name in _FIELDS:
        found = getattr(trade, name)
        if found is None:
            continue
        plain = b'"%b":%b' % (name.encode(), msgspec.json.encode(found))
        if value.count(b'"%b":' % name.encode()) != 1 or plain not in value:
            raise Refused(
                "bad_form", f"expected {plain[:120]!r} once in the bytes, found it otherwise"
            )


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in " + ", ".join(key for key, _ in pairs)[:300])
    return found


def check_trade_id(trade_id: str, consecutive: bool) -> int:
    """Return the id's number (0 where ids are no numbers); raise Refused when it is malformed."""
    if not consecutive:
        if not _TRADE_ID(trade_id):
            raise Refused(
                "bad_trade_id", f"expected 1 to 64 printable characters, found {trade_id[:80]!r}"
            )
        return 0
    if not _NUMBER_ID(trade_id):
        raise Refused(
            "bad_trade_id",
            f"expected a number, since this exchange numbers its trades, found {trade_id[:80]!r}",
        )
    return int(trade_id)


def check_exchange_candle(candle: Candle) -> None:
    """Raise Refused unless it is the exchange's own closed candle with sensible values."""
    try:
        validate_candle(candle)
    except ValidationError as error:
        raise Refused("bad_candle", str(error)[:2000]) from error
    if candle.source != "exchange" or candle.coverage != "exchange" or candle.revision != 0:
        raise Refused(
            "bad_candle",
            "expected source exchange, coverage exchange and revision 0 in the ingest log, found "
            f"{candle.source}, {candle.coverage}, {candle.revision}",
        )


def check_ids(ids: Ids, consecutive: bool) -> tuple[int, int]:
    """Return the first and the last id of a run that belongs to no trade.

    Raises:
        Refused: they are no run, or the exchange's ids prove nothing.
        UnknownKindError: for a reason that this version does not know; a newer producer may say so.
    """
    if ids.reason != NO_TRADE:
        raise UnknownKindError(f"expected ids with the reason {NO_TRADE}, found {ids.reason!r}")
    if not consecutive:
        raise Refused("bad_ids", "expected an exchange that numbers its trades without holes")
    first, last = (check_trade_id(one, True) for one in (ids.first_trade_id, ids.last_trade_id))
    if first > last:
        raise Refused("bad_ids", f"expected ascending ids, found {first} to {last}")
    return first, last


def check_not_ahead(time_us: int, limit_us: int) -> None:
    """Raise Refused when an event's time is too far ahead of its record's Kafka time."""
    if time_us > limit_us:
        raise Refused(
            "too_far_ahead",
            f"expected a time up to {limit_us}, which is the record's Kafka time and the allowed "
            f"lead, found {time_us}",
        )
