"""What the audit reads: each live 1m candle and whose it is. Pure.

A topic of its own, because Faust takes an event in 170 us: history, of which there may be millions
in the topics of candles, never comes near it.
"""

from typing import Literal

import msgspec

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle

AUDITED = "1m"

Side = Literal["ours", "exchange"]


class AuditCandle(msgspec.Struct, frozen=True):
    """A closed candle that we published, or the exchange's own."""

    side: Side
    candle: Candle


_decode = msgspec.json.Decoder(AuditCandle).decode


def audit_value(side: Side, candle: bytes) -> bytes:
    """Return the value that tells the audit of a candle, given as bytes."""
    return b'{"side":"%b","candle":%b}' % (side.encode(), candle)


def decode_audit_candle(value: bytes) -> AuditCandle:
    """Return what `audit_value` made; raises ValidationError for anything else."""
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValidationError(f"expected a candle for the audit, found: {error}") from error
