"""What is admitted goes on byte for byte; what is not becomes a dead letter that says why."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.decimals import units_text
from alpha_pulse.contracts.events import DeadLetter, Trade
from alpha_pulse.processors.candles.value import quote_text
from alpha_pulse.processors.kernel.admission import Refused, decode
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.kernel.refusals import Refusals, TooManyDeadLettersError
from alpha_pulse.processors.wire.records import EncodedRecords

KEY = b"binance:BTC/USDT"


def reason_of(events: list[Any]) -> str:
    assert [type(event) for event in events] == [DeadLetter]
    return str(events[0].reason)


def test_a_trade_goes_on_with_the_producers_own_bytes(feed: Any) -> None:
    value = encode(feed.make_trade(1, 10)).replace(b'","price"', b'","new_field":[1],"price"')
    feed.kernel.process(EncodedRecords.of([0], [KEY], [value]), feed.kafka_ms, 1)
    assert feed.kernel.drain_outputs()["market.trades.v1"] == [(KEY, value)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b'"1.000"', b'"1,000"'), "bad_number"),
        ((b'"1.000"', b'"1E-8"'), "bad_number"),
        ((b'"1.000"', b'"-1.0"'), "bad_number"),
        ((b'"1.000"', b'"0.000"'), "bad_number"),
        ((b'"1.000"', b'"01.000"'), "bad_number"),
        ((b'"1.000"', b'"1."'), "bad_number"),
        ((b'"1.000"', b'".5"'), "bad_number"),
        ((b'"1.000"', b'"1_0"'), "bad_number"),
        ((b'"1.000"', b'"nan"'), "bad_number"),
        ((b'"1.000"', b'"1.0000000000001"'), "bad_number"),
        ((b'"1.000"', b'"123456789012345678901"'), "bad_number"),
        ((b'"1.000"', b'"\xd9\xa1"'), "bad_number"),
        ((b'"1.000"', b'"\xc2\xb2.00000000"'), "bad_number"),
        ((b'"1.000"', b"1.000"), "bad_schema"),
        ((b'"1.000"', b"null"), "bad_schema"),
        ((b'"trade_id":"1"', b'"trade_id":"x"'), "bad_trade_id"),
        ((b'"trade_id":"1"', b'"trade_id":"01"'), "bad_trade_id"),
        ((b'"buy"', b'"long"'), "bad_schema"),
        ((b'"price":', b'"price":"7","price":'), "bad_form"),
        ((b'{"event"', b'{"price":"7","event"'), "bad_form"),
        ((b'"price":', b'"pric\\u0065":'), "bad_form"),
        ((b'"price":', b'"price" :'), "bad_form"),
        ((b'{"event"', b' {"event"'), "bad_form"),
        ((b'"BTC/USDT"', b'"ETH/USDT"'), "bad_key"),
        ((b'"binance"', b'"Binance"'), "bad_key"),
        ((b"}", b""), "bad_schema"),
    ],
)
def test_what_breaks_the_contract_becomes_a_dead_letter(
    feed: Any, change: tuple[bytes, bytes], reason: str
) -> None:
    value = encode(feed.make_trade(1, 10))
    assert change[0] in value
    assert reason_of(feed.raw(value.replace(change[0], change[1], 1))) == reason
    assert not feed.kernel.symbols, "a refused record leaves nothing behind"
    assert len(feed.trade(1, 10)) == 1, "and the feed goes on"
    # Once more as the next trade of a feed that runs, where the compiled loop sees it first.
    value = encode(feed.make_trade(2, 11)).replace(b'"trade_id":"2"', b'"trade_id":"1"')
    broken = value.replace(change[0], change[1], 1).replace(b'"trade_id":"1"', b'"trade_id":"2"')
    if reason != "bad_trade_id":
        assert reason_of(feed.raw(broken)) == reason
    assert len(feed.trade(2, 11)) == 1


@pytest.mark.parametrize("value", [None, b"", b"null", b"[]", b"\xff\xfe", b"[" * 5000, b'{"a":1}'])
def test_rubbish_becomes_a_dead_letter(feed: Any, value: bytes | None) -> None:
    assert reason_of(feed.raw(value)) == "bad_schema"


def test_a_kind_of_a_newer_version_is_skipped_and_counted(feed: Any) -> None:
    newer = b'{"event":"kind_of_tomorrow","exchange":"binance","symbol":"BTC/USDT","bid":"1"}'
    feed.trade(1, 10)
    for number in range(300):  # no refusals, or so many of them would stop the process
        assert feed.raw(newer) == []
        if number == 150:
            assert reason_of(feed.raw(b"rubbish")) == "bad_schema"
    assert feed.kernel.counters.unknown_kinds == 300
    assert len(feed.trade(2, 11)) == 1


@pytest.mark.parametrize(
    "value",
    [
        b'{"event":"status"}',
        b'{"event":"quote"',
        b'{"event":7}',
        b'["quote"]',
        b'{"Event":"quote"}',
    ],
)
def test_what_is_malformed_or_belongs_elsewhere_is_no_newer_kind(feed: Any, value: bytes) -> None:
    assert reason_of(feed.raw(value)) == "bad_schema"
    assert feed.kernel.counters.unknown_kinds == 0


def test_a_key_that_is_no_market_leaves_no_state(feed: Any) -> None:
    value = encode(feed.make_trade(1, 10)).replace(b"BTC/USDT", b"'; DROP TABLE")
    assert reason_of(feed.raw(value, b"binance:'; DROP TABLE")) == "bad_schema"
    assert not feed.kernel.symbols


def test_a_trade_a_day_ahead_of_its_kafka_time_is_refused(feed: Any) -> None:
    assert len(feed.trade(1, 86_400)) == 1
    assert reason_of(feed.trade(2, 86_400.001)) == "too_far_ahead"


def test_an_odd_price_is_admitted(feed: Any) -> None:
    feed.trade(1, 10, "100.00")
    assert len(feed.trade(2, 11, "0.000000000001")) == 1


def test_an_exchange_candle_must_be_one(feed: Any) -> None:
    assert reason_of(feed.exchange_candle(0, low="99")) == "bad_candle"
    assert reason_of(feed.exchange_candle(0, source="trades")) == "bad_candle"
    assert reason_of(feed.exchange_candle(0, open_time_us=1_763_942_400_000_001)) == "bad_candle"


def test_duplicates_are_dropped_by_id_where_ids_are_consecutive(feed: Any) -> None:
    feed.trade(5, 10)
    feed.trade(6, 11)
    assert feed.trade(5, 10) == feed.trade(6, 11) == feed.trade(4, 9) == []


def test_duplicates_are_dropped_for_ten_minutes_where_they_are_not(
    feed_of: Callable[..., Any],
) -> None:
    feed = feed_of("bybit")
    feed.trade("a", 10)
    feed.trade("b", 600)
    assert feed.trade("a", 10) == []
    assert feed.trade("a", 61) == []


def test_a_dead_letter_keeps_its_place_and_its_bytes_cut_with_their_full_length() -> None:
    refusals = Refusals(ProcessorConfig(), "ingest.events.v1", 3)
    with pytest.raises(Refused, match="expected an event") as refused:
        decode(b"x" * 300_000)
    letter = refusals.letter(17, KEY, b"x" * 300_000, 5, refused.value)
    assert letter.identity == "ingest.events.v1:3:17"
    assert (letter.payload_bytes, len(base64.b64decode(letter.payload_base64))) == (
        300_000,
        256 * 1024,
    )
    assert (letter.exchange, letter.symbol) == ("binance", "BTC/USDT")


def test_a_hundred_refused_in_a_row_stop_the_process(feed: Any) -> None:
    for _ in range(99):
        feed.raw(b"rubbish")
    feed.trade(1, 10)
    for _ in range(99):
        feed.raw(b"rubbish")
    with pytest.raises(TooManyDeadLettersError, match="100 refused records in a row"):
        feed.raw(b"rubbish")


def test_a_tenth_of_ten_thousand_refused_stops_the_process() -> None:
    kernel = Kernel(ProcessorConfig(), "ingest.events.v1", 0)
    trade = Trade(
        exchange="binance", symbol="BTC/USDT", trade_id="1", price="1", amount="1", side="buy",
        trade_time_us=1_763_942_400_000_000, receive_time_us=1_763_942_400_000_000,
    )  # fmt: skip
    values: list[bytes | None] = [b"rubbish", *[encode(trade)] * 8]
    for start in range(0, 9 * 1000, 9):
        records = EncodedRecords.of(range(start, start + 9), [KEY] * 9, values)
        kernel.process(records, 1_763_942_400_000, start + 9)
    with pytest.raises(TooManyDeadLettersError, match="1001"):
        kernel.process(EncodedRecords.of([9000], [KEY], [b"rubbish"]), 1_763_942_400_000, 9001)


def test_sums_are_the_shortest_plain_text() -> None:
    assert units_text(10) == "0.00000000001"
    assert units_text(1_500_000_000_000) == "1.5"
    assert units_text(0) == "0"
    assert quote_text(5 * 10**11) == "0"
    assert quote_text(15 * 10**11) == "0.000000000002"
    assert quote_text(25 * 10**11) == "0.000000000002"
