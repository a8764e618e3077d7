"""A history job of candles in the kernel: its own time and revisions, kept through a restart."""

from typing import Any

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, HistoryMarker
from alpha_pulse.contracts.market import MINUTE_US, message_key
from alpha_pulse.contracts.topics import AUDIT_CANDLES
from alpha_pulse.processors.history.job import CandleJob
from alpha_pulse.processors.kernel.kernel import REVISION_EPOCH, Kernel
from alpha_pulse.processors.state.partition_state import StateWriter, restore
from alpha_pulse.processors.wire.audit_candle import AuditCandle, decode_audit_candle
from alpha_pulse.processors.wire.records import EncodedRecords

MONDAY_US = 1_763_942_400_000_000


def mark(feed: Any, edge: Any, minutes: int) -> list[Any]:
    return feed.event(  # type: ignore[no-any-return]
        HistoryMarker(
            exchange=feed.exchange,
            symbol=feed.symbol,
            job="h",
            edge=edge,
            timeframe="1m",
            start_time_us=MONDAY_US,
            end_time_us=MONDAY_US + minutes * MINUTE_US,
        )
    )


def ours(events: list[Any], timeframe: str) -> list[Candle]:
    return [e for e in events if isinstance(e, Candle) and e.timeframe == timeframe and e.revision]


def test_history_leaves_the_live_watermark_where_it_is(feed: Any) -> None:
    feed.trade(1, 10)
    live = next(iter(feed.kernel.symbols.values())).live
    before = live.closing.watermark_us
    mark(feed, "start", 10)
    job = next(iter(feed.kernel.symbols.values())).jobs["h"]
    assert isinstance(job, CandleJob), "the lean way: there may be millions"
    for minute in range(10):
        feed.exchange_candle(minute, job="h")
    mark(feed, "end", 10)
    assert live.closing.watermark_us == before
    assert not next(iter(feed.kernel.symbols.values())).jobs


def test_each_candle_is_published_with_the_revision_of_its_record(feed: Any) -> None:
    mark(feed, "start", 10)
    offset = feed.kernel.position
    found = [c for c in feed.exchange_candle(0, job="h") if c.source == "exchange"]
    assert [c.revision for c in found] == [REVISION_EPOCH + offset] * 2, "ours and the exchange's"
    assert {c.job for c in found} == {"h"}


def test_a_restart_in_the_middle_of_a_job_changes_nothing(feed_of: Any) -> None:
    whole, broken = feed_of(), feed_of()
    expected: list[Any] = []
    found: list[Any] = []
    for feed, events in ((whole, expected), (broken, found)):
        events += mark(feed, "start", 15)
        for minute in range(15):
            if feed is broken and minute in (3, 7):
                # The second restart follows the state that the first one wrote.
                records = dict(StateWriter(10**6).snapshot(feed.kernel))
                feed.kernel = Kernel(ProcessorConfig(), "ingest.events.v1", 3)
                restore(feed.kernel, records)
            events += feed.exchange_candle(minute, str(100 + minute), job="h")
        events += mark(feed, "end", 15)
    assert found == expected
    assert [c.coverage for c in ours(found, "15m")] == ["exchange"]


def test_a_job_that_never_ends_is_let_go_of_after_some_more(feed: Any) -> None:
    for number in range(40):
        feed.event(
            HistoryMarker(
                exchange=feed.exchange,
                symbol=feed.symbol,
                job=f"h{number}",
                edge="start",
                timeframe="1m",
                start_time_us=MONDAY_US,
                end_time_us=MONDAY_US + MINUTE_US,
            )
        )
    assert len(next(iter(feed.kernel.symbols.values())).jobs) == 16


def to_audit(feed: Any, cause: Any) -> list[AuditCandle]:
    # `Feed` tells events only: here the bytes are looked at.
    offset = feed.kernel.position
    value = encode(cause)
    key = message_key(feed.exchange, feed.symbol)
    feed.kernel.process(EncodedRecords.of([offset], [key], [value]), feed.kafka_ms, offset + 1)
    records = feed.kernel.drain_outputs().get(AUDIT_CANDLES.name, [])
    return [decode_audit_candle(value) for _, value in records]


def candle_of(feed: Any, minute: int, job: str | None) -> Candle:
    return Candle(
        exchange=feed.exchange, symbol=feed.symbol, timeframe="1m",
        open_time_us=MONDAY_US + minute * MINUTE_US, open="1", high="1", low="1", close="1",
        volume="1", quote_volume=None, buy_volume=None, trade_count=None, first_trade_id=None,
        last_trade_id=None, revision=0, source="exchange", coverage="exchange", job=job,
    )  # fmt: skip


def test_the_audit_hears_of_live_candles_and_never_of_history(feed_of: Any) -> None:
    feed = feed_of()
    mark(feed, "start", 10)
    assert [to_audit(feed, candle_of(feed, minute, "h")) for minute in range(10)] == [[]] * 10
    trades = [feed.make_trade(number, 20 * number) for number in range(1, 9)]
    heard = [found for trade in trades for found in to_audit(feed, trade)]
    assert [(h.side, h.candle.open_time_us) for h in heard] == [
        ("ours", MONDAY_US), ("ours", MONDAY_US + MINUTE_US),
    ]  # fmt: skip
    heard = to_audit(feed, candle_of(feed, 1, None))
    assert [h.side for h in heard] == ["exchange"]
    assert heard[0].candle.revision == REVISION_EPOCH + feed.kernel.position - 1


def test_without_audits_nothing_is_written_for_them(feed_of: Any) -> None:
    feed = feed_of(audits=False)
    trades = [feed.make_trade(number, 20 * number) for number in range(1, 9)]
    assert [to_audit(feed, trade) for trade in trades] == [[]] * 8
    assert to_audit(feed, candle_of(feed, 1, None)) == []
