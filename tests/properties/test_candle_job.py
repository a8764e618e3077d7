"""A history job of candles publishes what the general stream would, only faster."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, Gap
from alpha_pulse.contracts.market import MINUTE_US, TIMEFRAMES
from alpha_pulse.processors.candles.rules import Job, Rules
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.history.job import CandleJob

MONDAY_US = 1_763_942_400_000_000
RULES = Rules.of(ProcessorConfig())


class Published:
    """Keeps what is published; the revision is the number of the record."""

    def __init__(self) -> None:
        self.revision = 0
        self.events: list[Candle | Gap] = []

    def __call__(self, event: Candle | Gap) -> None:
        self.events.append(event)


texts = st.integers(1, 10**9).map(lambda n: f"{n // 10**4}.{n % 10**4:04d}")


@st.composite
def candles(draw: Callable[[Any], Any]) -> list[Candle]:
    minutes = draw(st.lists(st.integers(0, 200), min_size=1, max_size=60, unique=True))
    found = []
    for minute in sorted(minutes):
        low, high = sorted((draw(texts), draw(texts)), key=float)
        count = draw(st.sampled_from([None, 0, 3]))
        sums = "0.0000" if count == 0 else draw(texts)
        known = count != 0 and draw(st.booleans())
        found.append(
            Candle(
                exchange="binance",
                symbol="BTC/USDT",
                timeframe="1m",
                open_time_us=MONDAY_US + minute * MINUTE_US,
                open=low,
                high=high,
                low=low,
                close=high,
                volume=sums,
                quote_volume=sums if known else None,
                buy_volume=sums if known else None,
                trade_count=count,
                first_trade_id=None,
                last_trade_id=None,
                revision=0,
                source="exchange",
                coverage="exchange",
                job="j",
            )
        )
    return found


def general(rows: list[Candle], start_us: int, end_us: int) -> list[Candle | Gap]:
    stream = Stream.new("binance", "BTC/USDT", RULES, True, Job("j", start_us, end_us))
    published = Published()
    for revision, candle in enumerate(rows, 1):
        published.revision = revision
        stream.exchange_candle(candle, published)
        stream.settle(revision, published)
    published.revision = len(rows) + 1
    stream.finish(published)
    stream.settle(published.revision, published)
    return published.events


def lean(rows: list[Candle], start_us: int, end_us: int) -> list[Candle | Gap]:
    job = CandleJob("binance", "BTC/USDT", RULES.timeframes, "j", "1m", start_us, end_us)
    published = Published()
    for revision, candle in enumerate(rows, 1):
        published.revision = revision
        job.exchange_candle(candle, published)
    published.revision = len(rows) + 1
    job.finish(published)
    return published.events


def newest(events: list[Candle | Gap]) -> dict[tuple[str, int], dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for event in events:
        assert isinstance(event, Candle)
        values = {name: getattr(event, name) for name in event.__struct_fields__}
        # Of a job's first window the general stream does not tell what is missing before it began.
        del values["revision"], values["coverage"]
        found[event.timeframe, event.open_time_us] = values
    return found


@settings(max_examples=50)
@given(candles(), st.integers(0, 120), st.integers(60, 260))
def test_a_job_of_candles_publishes_what_the_general_stream_would(
    rows: list[Candle], first: int, length: int
) -> None:
    start_us, end_us = MONDAY_US + first * MINUTE_US, MONDAY_US + (first + length) * MINUTE_US
    rows = [row for row in rows if start_us <= row.open_time_us < end_us]
    assert newest(lean(rows, start_us, end_us)) == newest(general(rows, start_us, end_us))


@settings(max_examples=50)
@given(candles())
def test_a_longer_window_says_when_one_of_its_parts_is_missing(rows: list[Candle]) -> None:
    minutes = {row.open_time_us for row in rows}
    for event in lean(rows, MONDAY_US, MONDAY_US + 240 * MINUTE_US):
        assert isinstance(event, Candle)
        duration_us = TIMEFRAMES[event.timeframe].duration_us
        parts = set(range(event.open_time_us, event.open_time_us + duration_us, MINUTE_US))
        assert event.coverage == ("exchange" if parts <= minutes else "gap")


@settings(max_examples=50)
@given(candles())
def test_each_window_is_published_once_and_a_candle_that_comes_again_is_ignored(
    rows: list[Candle],
) -> None:
    end_us = MONDAY_US + 240 * MINUTE_US
    events = lean([row for row in rows for _ in range(2)], MONDAY_US, end_us)
    windows = [(e.timeframe, e.open_time_us) for e in events if isinstance(e, Candle)]
    assert len(windows) == len(set(windows))
    assert {t for name, t in windows if name == "1m"} == {row.open_time_us for row in rows}
