"""A history job of candles in the kernel: its own time and revisions, kept through a restart."""

from typing import Any

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, HistoryMarker
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.processors.candle_job import CandleJob
from alpha_pulse.processors.kernel import REVISION_EPOCH, Kernel
from alpha_pulse.processors.state import StateWriter, restore

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
    before = live.watermark_us
    mark(feed, "start", 10)
    job = next(iter(feed.kernel.symbols.values())).jobs["h"]
    assert isinstance(job, CandleJob), "the lean way: there may be millions"
    for minute in range(10):
        feed.exchange_candle(minute, job="h")
    mark(feed, "end", 10)
    assert live.watermark_us == before
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
