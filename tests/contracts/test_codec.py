"""Encode and decode: the identity on events, a clear error on everything else."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import (
    JOB_MARK,
    EventDecoder,
    decode_event,
    decode_ingest,
    encode,
    encode_for_job,
    encode_many,
)
from alpha_pulse.contracts.errors import UnknownKindError, ValidationError
from alpha_pulse.contracts.events import Candle, Gap, Trade
from alpha_pulse.contracts.kinds import EVENT_TYPES
from alpha_pulse.contracts.schema.examples import EXAMPLES

TIMES = st.integers(1_230_768_000_000_000, 4_102_444_799_999_999)
DECIMALS = st.from_regex(r"(0|[1-9][0-9]{0,19})(\.[0-9]{1,12})?", fullmatch=True)


def strategy_of(event_type: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Build events from the contract itself: every field by its own JSON Schema rule."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in msgspec.structs.fields(event_type):
        fields[field.name] = of_type(msgspec.inspect.type_info(field.type))
    return st.builds(event_type, **fields)


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    match kind:
        case msgspec.inspect.Metadata():
            return of_type(kind.type)
        case msgspec.inspect.UnionType():
            return st.one_of([of_type(option) for option in kind.types])
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.LiteralType():
            return st.sampled_from(kind.values)
        case msgspec.inspect.IntType():
            highest = kind.le if kind.le is not None else (kind.lt or 2**63) - 1
            return st.integers(kind.ge if kind.ge is not None else -(2**63), highest)
        case msgspec.inspect.StrType(pattern=str() as pattern):
            # The guard against a final newline means nothing to a generator.
            return st.from_regex(pattern.replace(r"(?!\n)", "").replace("$", ""), fullmatch=True)
        case msgspec.inspect.StrType():
            return st.text(min_size=kind.min_length or 0, max_size=kind.max_length or 50)
        case msgspec.inspect.ListType():
            return st.lists(of_type(kind.item_type), max_size=4)
        case msgspec.inspect.StructType():
            return strategy_of(kind.cls)
    raise AssertionError(f"no strategy for {kind}")


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_decoding_what_was_encoded_gives_the_same_event_and_the_same_bytes(
    event_type: type[msgspec.Struct], data: st.DataObject
) -> None:
    event = data.draw(strategy_of(event_type))
    message = encode(event)
    decoded = decode_event(message)
    assert decoded == event
    assert encode(decoded) == message


@given(DECIMALS, DECIMALS, TIMES)
def test_decimals_keep_their_digits_and_are_plain_text(price: str, amount: str, time: int) -> None:
    trade = Trade(
        exchange="binance",
        symbol="BTC/USDT",
        trade_id="1",
        price=price,
        amount=amount,
        side="buy",
        trade_time_us=time,
        receive_time_us=time,
    )
    message = encode(trade)
    assert f'"price":"{price}"'.encode() in message
    decoded = decode_event(message)
    assert isinstance(decoded, Trade)
    assert Decimal(decoded.price) == Decimal(price)


@given(st.binary(max_size=400))
def test_any_bytes_decode_or_give_a_validation_error(message: bytes) -> None:
    expect_event_or_error(message)


@given(st.data())
def test_any_damage_to_a_message_decodes_or_gives_a_validation_error(data: st.DataObject) -> None:
    events = [event for named in EXAMPLES.values() for event in named.values()]
    message = bytearray(encode(data.draw(st.sampled_from(events))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(message) - 1))
        message[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    expect_event_or_error(bytes(message))


def expect_event_or_error(message: bytes) -> None:
    try:
        event = decode_event(message)
    except ValidationError:
        return
    assert isinstance(event, EVENT_TYPES)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"event":"trade"}',
        b'{"event":"nothing"}',
        b"1" * 5000,
    ],
    ids=["empty", "null", "deep", "not-utf8", "fields-missing", "unknown-event", "huge-number"],
)
def test_a_broken_message_names_what_was_expected(message: bytes) -> None:
    with pytest.raises(ValidationError, match="expected an event of the contracts, found"):
        decode_event(message)


@pytest.mark.parametrize(
    "message",
    [
        b'{"event":"tide","exchange":"binance","symbol":"BTC/USDT","bid":"1.5"}',
        b' { "bid" : {"deep":[1,{}]}, "event" : "tide" } ',
        b'{"event":"trade-v2"}',
    ],
)
def test_a_kind_that_is_not_known_is_told_from_a_broken_message(message: bytes) -> None:
    for decode in (decode_event, decode_ingest, EventDecoder[Trade](Trade)):
        with pytest.raises(UnknownKindError, match="is none of"):
            decode(message)


@pytest.mark.parametrize(
    "message",
    [
        b'{"event":"trade","exchange":"binance"}',
        b'{"event":"tide"',
        b'{"event":"tide"}}',
        b'{"event":7}',
        b'{"kind":"tide"}',
        b'["tide"]',
    ],
)
def test_a_broken_message_is_of_no_unknown_kind(message: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        decode_event(message)
    assert type(caught.value) is ValidationError


def test_a_known_kind_in_a_topic_of_another_is_unknown_there() -> None:
    candle = encode(EXAMPLES[Candle]["contiguous"])
    with pytest.raises(UnknownKindError, match="'candle' is none of trade"):
        EventDecoder[Trade](Trade)(candle)


@pytest.mark.parametrize(
    "price", ["1E-8", "-1", "1.", ".5", "01", "1.0\n", "", "1.1234567890123", "1" * 21, "NaN", "٣"]
)
def test_a_price_that_is_not_plain_text_is_refused(price: str) -> None:
    example = msgspec.to_builtins(EXAMPLES[Trade]["binance"])
    message = msgspec.json.encode(example | {"price": price})
    with pytest.raises(ValidationError, match=r"\$\.price"):
        decode_event(message)


def test_a_field_of_a_newer_writer_is_ignored() -> None:
    trade = EXAMPLES[Trade]["binance"]
    message = encode(trade)[:-1] + b',"added_later":{"deep":[1,2]}}'
    assert decode_event(message) == trade


@pytest.mark.parametrize("event_type", [Trade, Candle])
def test_events_of_a_job_are_encoded_as_if_they_named_it(event_type: Any) -> None:
    events: Any = list(EXAMPLES[event_type].values())
    expected = [encode(msgspec.structs.replace(event, job="a-job_1.x")) for event in events]
    assert encode_for_job(events, "a-job_1.x") == expected
    assert all(JOB_MARK in value for value in expected)
    live = [encode(msgspec.structs.replace(event, job=None)) for event in events]
    assert not any(JOB_MARK in value for value in live)


def test_no_text_of_a_live_event_looks_like_the_mark_of_a_job() -> None:
    gap = msgspec.structs.replace(EXAMPLES[Gap]["open"], reason='nothing,"job":"x"')
    assert JOB_MARK not in encode(gap)


def test_many_events_are_encoded_as_each_alone() -> None:
    events = [
        Trade(
            exchange="binance",
            symbol="BTC/USDT",
            trade_id=str(number),
            price="1.5",
            amount="2",
            side="buy",
            trade_time_us=1_700_000_000_000_000,
            receive_time_us=1_700_000_000_000_000,
        )
        for number in range(3)
    ]
    assert encode_many(events) == [encode(event) for event in events]
    assert encode_many([]) == []
