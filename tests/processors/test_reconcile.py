"""Our candle held against the exchange's own: equal, different in which fields, or missing."""

from typing import Any

from alpha_pulse.contracts.events import Audit, Candle
from alpha_pulse.processors.audit.agent import newest
from alpha_pulse.processors.audit.ledger import WINDOWS_MAX, Ledger, decode_ledger, encode_ledger

MONDAY_US = 1_763_942_400_000_000
MINUTE_US = 60_000_000


def candle(minute: int, revision: int, **changes: Any) -> Candle:
    fields: dict[str, Any] = dict(
        exchange="binance", symbol="BTC/USDT", timeframe="1m",
        open_time_us=MONDAY_US + minute * MINUTE_US, open="1.0", high="2.0", low="1.0",
        close="2.0", volume="3", quote_volume="4", buy_volume=None, trade_count=5,
        first_trade_id=None, last_trade_id=None, revision=revision, source="trades",
        coverage="contiguous",
    )  # fmt: skip
    return Candle(**{**fields, **changes})


def theirs(minute: int, revision: int, **changes: Any) -> Candle:
    return candle(minute, revision, **{"source": "exchange", "coverage": "exchange", **changes})


def test_equal_numbers_in_other_digits_are_equal() -> None:
    ledger = Ledger()
    assert ledger.add(candle(0, 10), False) == []
    (audit,) = ledger.add(theirs(0, 11, open="1.000", volume="3.0"), True)
    assert (audit.result, audit.candle_revision, audit.exchange_revision) == ("equal", 10, 11)


def test_each_field_that_differs_is_named_with_both_values() -> None:
    ledger = Ledger()
    ledger.add(theirs(0, 11, close="2.5", trade_count=6, quote_volume=None), True)
    (audit,) = ledger.add(candle(0, 12), False)
    assert audit.result == "different"
    assert [(d.field, d.ours, d.exchange) for d in audit.differences] == [
        ("close", "2.0", "2.5"),
        ("trade_count", "5", "6"),
    ]


def test_a_revision_is_audited_again_and_an_old_one_is_not() -> None:
    ledger = Ledger()
    ledger.add(candle(0, 10, close="1.5"), False)
    first = ledger.add(theirs(0, 11), True)
    second = ledger.add(candle(0, 12), False)
    assert [a.result for a in (*first, *second)] == ["different", "equal"]
    assert second[0].revision > first[0].revision
    assert ledger.add(candle(0, 10, close="1.5"), False) == [], "delivered twice"


def test_what_stands_in_the_exchanges_values_is_not_held_against_itself() -> None:
    ledger = Ledger()
    ledger.add(theirs(0, 11), True)
    assert ledger.add(candle(0, 12, source="exchange", coverage="exchange"), False) == []


def test_a_side_that_does_not_come_is_missing_once() -> None:
    ledger = Ledger()
    found: list[Audit] = []
    for minute in range(10):
        found += ledger.add(candle(minute, 100 + 2 * minute), False)
        if minute != 3:
            found += ledger.add(theirs(minute, 101 + 2 * minute), True)
    missing = [audit for audit in found if audit.result == "missing_exchange"]
    assert [audit.open_time_us for audit in missing] == [MONDAY_US + 3 * MINUTE_US]
    late = ledger.add(theirs(3, 200), True)
    assert late[0].result == "equal"
    assert late[0].revision > missing[0].revision


def test_nothing_is_missing_where_only_one_side_is_followed() -> None:
    ledger = Ledger()
    assert not [a for minute in range(20) for a in ledger.add(candle(minute, minute), False)]


def test_the_ledger_is_bounded_and_survives_as_text() -> None:
    ledger = Ledger()
    for minute in range(50):
        ledger.add(candle(minute, minute), False)
        ledger = decode_ledger(encode_ledger(ledger))
    assert len(ledger.entries) == WINDOWS_MAX
    assert decode_ledger("") == Ledger()


def test_the_newest_candle_of_a_symbol_is_kept() -> None:
    text = newest("{}", candle(1, 10))
    text = newest(text, candle(0, 99))
    assert '"revision":10' in text
