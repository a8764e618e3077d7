"""Bytes to event and back: the one encoder and the one decoder of the contracts."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar, Union

import msgspec

from alpha_pulse.contracts.errors import UnknownKindError, ValidationError
from alpha_pulse.contracts.events import Candle, Ids, Trade
from alpha_pulse.contracts.kinds import EVENT_TYPES, INGEST_TYPES, IngestEvent, event_name

EventT = TypeVar("EventT")

# What every event of a history job holds, and no other: quotes inside texts are escaped.
JOB_MARK = b',"job":"'
_encoder = msgspec.json.Encoder(order=None)
# What a decode of any bytes can raise: bad JSON, a broken contract, bad UTF-8, deep nesting.
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode(event: msgspec.Struct) -> bytes:
    """Return an event as JSON on one line, fields in the order of its Struct.

    Args:
        event: any Struct of `events`; its values are not checked.
    """
    return _encoder.encode(event)


def encode_many(events: Sequence[msgspec.Struct]) -> list[bytes]:
    """Return each event as `encode` does; many at once take half the time.

    Args:
        events: of any kinds; the values come in their order.
    """
    # JSON escapes line ends inside texts, so that every line is one event.
    return _encoder.encode_lines(events).split(b"\n")[:-1]


def encode_for_job(events: Sequence[Trade | Candle | Ids], job: str) -> list[bytes]:
    """Return each event as `encode` does, as an event of a history job.

    Args:
        events: whatever job they name themselves.
        job: its id, printable ASCII without quotation marks.
    """
    # The job is the last field, and left out of events that have none.
    end = JOB_MARK + job.encode() + b'"}'
    live = [e if e.job is None else msgspec.structs.replace(e, job=None) for e in events]
    return [value[:-1] + end for value in encode_many(live)]


class _Named(msgspec.Struct):
    event: str


_decode_name = msgspec.json.Decoder(_Named).decode


def kind_in(message: bytes) -> str | None:
    """Return what the field `event` of a message says; None where the message is none.

    For messages that a decoder refused: it reads the whole message again.
    """
    try:
        return _decode_name(message).event
    except _DECODE_ERRORS:
        return None


class EventDecoder(Generic[EventT]):
    """Decodes messages of one Struct, or of several, and checks the whole contract.

    Args:
        event_types: Structs of `events`; `TopicOf.events` are those of a topic.
    """

    def __init__(self, *event_types: type[msgspec.Struct]) -> None:
        self._decode = msgspec.json.Decoder(Union[event_types]).decode  # noqa: UP007
        self._known = {event_name(event_type) for event_type in event_types}

    def __call__(self, message: bytes) -> EventT:
        """Return the event of a message; fields that are not known are ignored.

        Raises:
            UnknownKindError: it is an event of another kind, which a newer writer may have added.
            ValidationError: it breaks the contract; says which field, and how the bytes begin.
        """
        try:
            event: EventT = self._decode(message)
        except _DECODE_ERRORS as error:
            raise self._refusal(message, error) from error
        return event

    def _refusal(self, message: bytes, error: Exception) -> ValidationError:
        kind = kind_in(message)
        if kind is not None and kind not in self._known:
            return UnknownKindError(
                f"expected an event of the contracts, found {_excerpt(message)}: its kind "
                f"{kind[:80]!r} is none of {', '.join(sorted(self._known))}"
            )
        return ValidationError(
            f"expected an event of the contracts, found {_excerpt(message)}: {error}"
        )


def _excerpt(message: bytes) -> str:
    shown = bytes(message[:120])
    return f"{shown!r}" + (f"… ({len(message)} bytes)" if len(message) > len(shown) else "")


# Of any kind, for tools; and of the kinds that travel in the ingest log.
decode_event: EventDecoder[Any] = EventDecoder(*EVENT_TYPES)
decode_ingest: EventDecoder[IngestEvent] = EventDecoder(*INGEST_TYPES)
