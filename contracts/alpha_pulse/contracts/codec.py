"""Bytes to event and back: the one encoder and the one decoder of the contracts."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import AnyEvent, IngestEvent

EventT = TypeVar("EventT")

_encoder = msgspec.json.Encoder(order=None)
# What a decode of any bytes can raise: bad JSON, a broken contract, bad UTF-8, deep nesting.
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode(event: msgspec.Struct) -> bytes:
    """Return the event as JSON on one line, fields in the order of its Struct."""
    return _encoder.encode(event)


def encode_many(events: Sequence[msgspec.Struct]) -> list[bytes]:
    """Return each event as `encode` does; for many at once half as dear."""
    # JSON escapes line ends inside texts, so that every line is one event.
    return _encoder.encode_lines(events).split(b"\n")[:-1]


class EventDecoder(Generic[EventT]):
    """Decodes the bytes of one kind of event (or a union), checking the whole contract."""

    def __init__(self, event_type: Any) -> None:
        self._decode = msgspec.json.Decoder(event_type).decode

    def __call__(self, message: bytes) -> EventT:
        """Return the event, or raise ValidationError naming the field and the start of the bytes.

        Unknown fields are ignored, so that a newer writer can be read.
        """
        try:
            event: EventT = self._decode(message)
        except _DECODE_ERRORS as error:
            raise ValidationError(
                f"expected an event of the contracts, found {_excerpt(message)}: {error}"
            ) from error
        return event


def _excerpt(message: bytes) -> str:
    shown = bytes(message[:120])
    return f"{shown!r}" + (f"… ({len(message)} bytes)" if len(message) > len(shown) else "")


decode_event: EventDecoder[AnyEvent] = EventDecoder(AnyEvent)
decode_ingest: EventDecoder[IngestEvent] = EventDecoder(IngestEvent)
