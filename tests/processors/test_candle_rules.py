"""The rules of candles: closing, coverage, which values stand, revisions, emptiness, history."""

from collections.abc import Callable
from typing import Any

from alpha_pulse.contracts.events import Candle, Gap, StreamStatus, Trade

MONDAY_US = 1_763_942_400_000_000
MINUTE_US = 60_000_000


def candles(events: list[Any], timeframe: str = "1m") -> list[Candle]:
    return [event for event in events if isinstance(event, Candle) and event.timeframe == timeframe]


def minute(events: list[Any], number: int, timeframe: str = "1m") -> Candle:
    found = [
        c for c in candles(events, timeframe) if c.open_time_us == MONDAY_US + number * MINUTE_US
    ]
    # The exchange's own candle is published too; ours comes from the candle topics, at the end.
    return found[-1]


def fill_minutes(feed: Any, count: int, first_id: int = 1) -> list[Any]:
    """One trade at second 30 of each minute, then the one that closes the last."""
    events: list[Any] = []
    for number in range(count + 1):
        events += feed.trade(first_id + number, number * 60 + 30)
    return events


def test_a_minute_closes_when_the_watermark_passes_its_end_by_the_grace(feed: Any) -> None:
    feed.trade(1, 10)
    feed.trade(2, 61.9)
    assert not candles(feed.trade(3, 61.999999))
    assert [c.open_time_us for c in candles(feed.trade(4, 62))] == [MONDAY_US]


def test_a_heartbeat_closes_a_minute_too(feed: Any) -> None:
    feed.trade(1, 10)
    assert not candles(feed.heartbeat(61.9))
    assert len(candles(feed.heartbeat(62))) == 1


def test_trade_on_the_boundary_opens_the_next_candle(feed: Any) -> None:
    feed.trade(1, 59.999999, "100.00")
    feed.trade(2, 60, "200.00")
    assert minute(feed.trade(3, 62), 0).close == "100.00"
    assert minute(feed.trade(4, 122), 1).open == "200.00"


def test_values_are_exact_and_keep_the_exchanges_digits(feed: Any) -> None:
    feed.trade(1, 1, "61837.63000000", "0.02000000", "sell")
    feed.trade(2, 2, "61837.63000000", "0.00000001", "buy")
    feed.trade(3, 3, "0.10", "3.00")
    candle = minute(feed.heartbeat(62), 0)
    assert (candle.open, candle.high) == ("61837.63000000", "61837.63000000")
    assert (candle.low, candle.close) == ("0.10", "0.10")
    assert (candle.volume, candle.buy_volume) == ("3.02000001", "3.00000001")
    assert candle.quote_volume == "1237.0532183763"
    assert (candle.trade_count, candle.first_trade_id, candle.last_trade_id) == (3, "1", "3")


def test_quote_volume_is_rounded_half_even_once_when_published(feed: Any) -> None:
    feed.trade(1, 1, "0.000000000001", "0.5")
    feed.trade(2, 2, "0.000000000001", "1.0")
    assert minute(feed.heartbeat(62), 0).quote_volume == "0.000000000002"


def test_one_trade_without_a_side_makes_buy_volume_unknown(feed: Any) -> None:
    feed.trade(1, 1)
    feed.trade(2, 2, side="unknown")
    assert minute(feed.heartbeat(62), 0).buy_volume is None


def test_ties_in_time_are_ordered_by_the_number_of_the_id(feed: Any) -> None:
    feed.trade(8, 5, "7.0")
    feed.trade(11, 9, "2.0")
    feed.trade(9, 9, "9.0")
    feed.trade(10, 9, "10.0")
    candle = minute(feed.heartbeat(62), 0)
    assert (candle.open, candle.close) == ("7.0", "2.0")


def test_the_first_minute_is_partial_and_the_second_contiguous(feed: Any) -> None:
    events = fill_minutes(feed, 2)
    assert [c.coverage for c in candles(events)] == ["partial", "contiguous"]


def test_a_minute_followed_from_its_open_without_a_known_id_before_is_unverified(feed: Any) -> None:
    feed.heartbeat(0)
    feed.trade(1, 10)
    assert minute(feed.trade(2, 62), 0).coverage == "unverified"


def test_ids_that_prove_nothing_give_unverified(feed_of: Callable[..., Any]) -> None:
    feed = feed_of("bybit")
    feed.trade("aa", 30)
    feed.trade("bb", 90)
    feed.trade("cc", 150)
    assert minute(feed.trade("dd", 190), 2).coverage == "unverified"


def test_a_jump_opens_a_gap_there_and_then_and_filling_it_publishes_a_higher_revision(
    feed: Any,
) -> None:
    feed.trade(1, 0)
    feed.trade(2, 61, amount="1.0")
    opened = feed.trade(5, 70, amount="1.0")
    gap = next(event for event in opened if isinstance(event, Gap))
    assert (gap.first_trade_id, gap.last_trade_id, gap.status) == ("3", "4", "open")
    assert (gap.start_time_us, gap.end_time_us) == (MONDAY_US + 61_000_000, MONDAY_US + 70_000_000)
    first = minute(feed.trade(6, 122), 1)
    assert (first.coverage, first.volume) == ("gap", "2")
    second = minute(feed.trade(4, 69, amount="0.5"), 1)
    assert (second.coverage, second.volume) == ("gap", "2.5")
    filled = feed.trade(3, 65, amount="0.25")
    third = minute(filled, 1)
    assert (third.coverage, third.volume, third.trade_count) == ("contiguous", "2.75", 4)
    assert first.revision < second.revision < third.revision
    assert [e.status for e in filled if isinstance(e, Gap)] == ["filled"]


def test_a_corrected_minute_corrects_every_rollup_above_it(feed: Any) -> None:
    feed.trade(1, -60)
    feed.trade(2, 10)
    feed.trade(4, 50)
    for number in range(5, 12):
        events = feed.trade(number, (number - 4) * 60 + 30)
        if candles(events, "5m"):
            assert minute(events, 0, "5m").coverage == "gap"
    assert feed.kernel.position > 8
    healed = feed.trade(3, 20, "500.00")
    assert minute(healed, 0).high == "500.00"
    assert (minute(healed, 0, "5m").high, minute(healed, 0, "5m").coverage) == (
        "500.00",
        "contiguous",
    )
    assert not candles(healed, "15m")


def test_revision_is_the_epoch_and_the_offset_of_the_record(feed_of: Callable[..., Any]) -> None:
    feed = feed_of(log_epoch=3)
    feed.trade(1, 10)
    feed.trade(2, 20)
    assert minute(feed.trade(3, 62), 0).revision == 3 * 2**44 + 2


def test_a_record_publishes_each_window_at_most_once(feed: Any) -> None:
    feed.trade(1, 10)
    events = feed.trade(2, 60 * 60 * 5)
    windows = [(c.timeframe, c.open_time_us) for c in events if isinstance(c, Candle)]
    assert len(windows) == len(set(windows)) > 300


def test_consecutive_ids_prove_that_the_minutes_between_were_empty(feed: Any) -> None:
    feed.trade(1, 10, "70.0")
    events = feed.trade(2, 200)
    empty = minute(events, 1)
    assert (empty.open, empty.close, empty.volume, empty.trade_count) == ("70.0", "70.0", "0", 0)
    assert (empty.first_trade_id, empty.coverage) == (None, "contiguous")


def test_live_heartbeats_prove_an_empty_minute(feed: Any) -> None:
    feed.heartbeat(0)
    feed.trade(1, 10)
    assert [c.trade_count for c in candles(feed.heartbeat(122))] == [1, 0]


def test_no_empty_candle_while_disconnected_until_ids_prove_it(feed: Any) -> None:
    feed.trade(1, 10)
    feed.heartbeat(40, "disconnected")
    assert [c.trade_count for c in candles(feed.heartbeat(250))] == [1]
    proven = feed.trade(2, 260)
    assert [c.open_time_us for c in candles(proven)] == [
        MONDAY_US + number * MINUTE_US for number in (1, 2, 3)[: len(candles(proven))]
    ]
    assert candles(proven)


def test_no_empty_candle_while_halted_even_if_ids_go_on(feed: Any) -> None:
    feed.trade(1, 10)
    feed.heartbeat(62, "halted")
    feed.heartbeat(190)
    assert not [
        c for c in candles(feed.trade(2, 250)) if c.open_time_us == MONDAY_US + 2 * MINUTE_US
    ]


def test_without_proof_there_is_no_candle(feed_of: Callable[..., Any]) -> None:
    feed = feed_of("bybit")
    feed.trade("a", 10)
    assert [c.trade_count for c in candles(feed.trade("b", 200))] == [1]


def test_a_disconnected_stream_without_ids_makes_a_gap(feed_of: Callable[..., Any]) -> None:
    feed = feed_of("bybit")
    feed.heartbeat(-60)
    feed.trade("a", 10)
    feed.heartbeat(20, "disconnected")
    feed.heartbeat(40)
    assert minute(feed.trade("b", 62), 0).coverage == "gap"


def test_the_exchanges_candle_stands_in_only_where_it_is_better(feed: Any) -> None:
    fill_minutes(feed, 1)
    assert minute(feed.exchange_candle(0), 0).source == "exchange"
    later = feed.trade(3, 150)
    assert minute(later, 1).coverage == "contiguous"
    taken = feed.exchange_candle(1, "44")
    assert [c.source for c in candles(taken) if c.coverage != "exchange"] == []
    assert len(taken) == 1, "the exchange's own topic only"


def test_a_gap_takes_over_the_exchanges_candle_and_gives_it_back_when_healed(feed: Any) -> None:
    fill_minutes(feed, 1)
    feed.trade(4, 100)
    feed.trade(5, 130)
    taken = [c for c in feed.exchange_candle(1, "44") if isinstance(c, Candle)]
    assert len(taken) == 2
    assert (taken[-1].close, taken[-1].coverage, taken[-1].trade_count) == ("44", "exchange", None)
    healed = minute(feed.trade(3, 95), 1)
    assert (healed.close, healed.coverage, healed.source) == ("100.00", "contiguous", "trades")


def test_an_exchange_candle_that_comes_before_our_minute_closes_waits(feed: Any) -> None:
    feed.trade(1, 10)
    assert len(feed.exchange_candle(0)) == 1
    assert minute(feed.trade(2, 62), 0).source == "exchange"


def test_a_rollup_of_both_sources_is_mixed_and_has_the_worst_coverage(feed: Any) -> None:
    feed.trade(1, 10)
    feed.exchange_candle(0)
    for number in range(2, 7):
        events = feed.trade(number, (number - 1) * 60 + 30)
    rollup = minute(events, 0, "5m")
    assert (rollup.source, rollup.coverage, rollup.quote_volume) == ("mixed", "exchange", None)


def test_a_symbol_without_trades_lives_on_the_exchanges_candles(feed: Any) -> None:
    events: list[Any] = []
    for number in range(5):
        events += feed.exchange_candle(number, str(10 + number))
    rollup = minute(events, 0, "5m")
    assert (rollup.open, rollup.close, rollup.high) == ("10", "14", "14")
    assert (rollup.coverage, rollup.source, rollup.volume) == ("exchange", "exchange", "45")


def test_an_announced_gap_is_no_second_one(feed: Any) -> None:
    feed.trade(1, 10)
    announced = feed.gap("2", "4", 10, 30)
    assert [e.first_trade_id for e in announced if isinstance(e, Gap)] == ["2"]
    assert not [e for e in feed.trade(5, 30) if isinstance(e, Gap)]
    assert [e.status for e in feed.gap("2", "4", 10, 30, "unfillable") if isinstance(e, Gap)] == [
        "unfillable"
    ]
    assert minute(feed.trade(6, 62), 0).coverage == "gap"


def test_a_range_is_given_up_after_its_time_and_is_unfillable(feed_of: Callable[..., Any]) -> None:
    feed = feed_of(missing_range_keep_s=600.0)
    feed.trade(1, 10)
    feed.trade(3, 20)
    assert not [e for e in feed.trade(4, 619) if isinstance(e, Gap)]
    assert [e.status for e in feed.trade(5, 690) if isinstance(e, Gap)] == ["unfillable"]


def test_a_closed_candle_stays_in_state_while_a_range_overlaps_it(feed: Any) -> None:
    feed.trade(1, 10)
    feed.trade(3, 50)
    number = 3
    for at_s in range(90, 3700, 60):
        number += 1
        feed.trade(number, at_s)
    live = feed.kernel.symbols[b"binance:BTC/USDT"].live
    kept = sorted(live.windows.levels[0])
    assert kept[0] == MONDAY_US
    assert len(kept) < 15, "and the others leave it"
    healed = feed.trade(2, 30)
    assert (minute(healed, 0).coverage, minute(healed, 0).trade_count) == ("partial", 3)
    assert minute(healed, 0, "1h").trade_count == 62


def test_a_trade_later_than_the_state_is_published_but_no_candle_changes(
    feed_of: Callable[..., Any],
) -> None:
    feed = feed_of("bybit")
    feed.trade("a", 10)
    feed.trade("b", 3000)
    late = feed.trade("c", 20)
    assert [type(event) for event in late] == [Trade]
    assert feed.kernel.symbols[b"bybit:BTC/USDT"].live.late == 1


def test_memory_of_a_symbol_does_not_grow_with_its_history(feed: Any) -> None:
    def size() -> int:
        live = feed.kernel.symbols[b"binance:BTC/USDT"].live
        return sum(map(len, live.windows.levels))

    for number in range(1, 900):
        feed.trade(number, number * 60)
        if number == 300:
            after_five_hours = size()
    assert size() <= after_five_hours + 4


def test_history_publishes_the_windows_it_covers_whole_and_leaves_live_alone(feed: Any) -> None:
    feed.trade(100, 7200)
    feed.history("start", 0, 330)
    events: list[Any] = []
    for number, at_s in enumerate((10, 70, 130, 190, 250, 310), 1):
        events += feed.trade(number, at_s, job="j")
    events += feed.history("end", 0, 330)
    assert [c.open_time_us for c in candles(events)] == [
        MONDAY_US + number * MINUTE_US for number in range(5)
    ]
    assert {c.coverage for c in candles(events)} == {"contiguous"}
    assert {c.job for c in candles(events)} == {"j"}
    assert minute(events, 0, "5m").trade_count == 5
    assert not candles(events, "15m")
    assert len([e for e in events if isinstance(e, Trade)]) == 6
    live = feed.kernel.symbols[b"binance:BTC/USDT"].live
    assert live.closing.watermark_us == MONDAY_US + 7_200_000_000


def test_history_that_brings_a_missing_trade_heals_the_live_candle(feed: Any) -> None:
    feed.trade(1, 10)
    feed.trade(3, 50)
    feed.trade(4, 130)
    feed.history("start", 0, 60)
    healed = feed.trade(2, 30, job="j")
    assert minute(healed, 0).trade_count == 3
    assert not [e for e in feed.trade(3, 50, job="j") if isinstance(e, Trade)], "known already"


def test_status_tells_live_disconnected_and_halted_apart(feed: Any) -> None:
    feed.trade(7, 10)
    states = [
        event
        for state in ("live", "disconnected", "halted")
        for event in feed.heartbeat(20, state)
        if isinstance(event, StreamStatus)
    ]
    assert [status.state for status in states] == ["live", "disconnected", "halted"]
    assert states[0].last_trade_id == "7"


def test_a_week_starts_on_monday(feed: Any) -> None:
    feed.trade(1, -10)
    week = [c for c in feed.trade(2, 2) if isinstance(c, Candle) and c.timeframe == "1w"]
    assert [c.open_time_us for c in week] == [MONDAY_US - 7 * 24 * 60 * MINUTE_US]


def test_a_testnet_shares_no_identity_with_the_exchange(feed_of: Callable[..., Any]) -> None:
    feed = feed_of("binance-testnet")
    feed.trade(1, 10)
    feed.trade(3, 20)
    assert minute(feed.trade(4, 62), 0).exchange == "binance-testnet"
    assert [gap for gap in feed.trade(9, 63) if isinstance(gap, Gap)], "its ids are consecutive too"


def test_the_open_candle_comes_once_per_second_of_event_time(feed: Any) -> None:
    feed.trade(1, 10.2)
    assert len(feed.kernel.open_candles()) == 1
    feed.trade(2, 10.7)
    assert not feed.kernel.open_candles()
    feed.trade(3, 11)
    assert len(feed.kernel.open_candles()) == 1
