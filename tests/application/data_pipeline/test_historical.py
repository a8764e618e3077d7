"""What `ensure_data_available` promises: what is missing is fetched, short is never complete."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.errors import (
    AlphaPulseError,
    DataFetchError,
    StorageError,
    ValidationError,
)
from alpha_pulse.contracts.interfaces import Fetcher, Provider, Storage
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.data_pipeline import ExchangeType, HistoricalDataManager, SQLAlchemyStorage
from alpha_pulse.data_pipeline.core.models import CoverageReport
from tests.application.data_pipeline.conftest import (
    START_US,
    MemoryFetcher,
    MemoryProvider,
    MemoryStorage,
    make_candle,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


async def ensure(storage: Storage, fetcher: Fetcher, first: float, end: float) -> CoverageReport:
    manager = HistoricalDataManager(storage, fetcher)
    return await manager.ensure_data_available(
        ExchangeType.BINANCE, "BTC/USDT", "1m", minute(first), minute(end)
    )


def stored_minutes(storage: MemoryStorage) -> list[int]:
    return sorted((key[3] - START_US) // MINUTE_US for key in storage.candles)


def test_the_parts_in_memory_keep_the_protocols() -> None:
    assert isinstance(MemoryFetcher([]), Fetcher)
    assert isinstance(MemoryProvider(), Provider)


async def test_what_is_missing_is_fetched_and_a_second_call_fetches_nothing(
    sqlite: SQLAlchemyStorage,
) -> None:
    fetcher = MemoryFetcher(range(60))
    report = await ensure(sqlite, fetcher, 0, 60)
    assert (report.had, report.fetched, report.missing, report.expected) == (0, 60, (), 60)
    assert report.is_complete
    fetcher.asked.clear()
    report = await ensure(sqlite, fetcher, 0, 60)
    assert (report.had, report.fetched, report.is_complete) == (60, 0, True)
    assert fetcher.asked == []


async def test_only_the_holes_are_fetched() -> None:
    storage, fetcher = MemoryStorage(), MemoryFetcher(range(2_000))
    kept = [make_candle(n, close="61801.00000000") for n in (*range(10, 900), *range(905, 1_990))]
    await storage.save_candles(kept)
    report = await ensure(storage, fetcher, 0, 2_000)
    assert (report.had, report.fetched, report.is_complete) == (1_975, 25, True)
    assert fetcher.asked == [(0, 10), (900, 905), (1_990, 2_000)]
    # What was there is left as it was.
    assert all(storage.candles["binance", "BTC/USDT", "1m", c.open_time_us] == c for c in kept)


async def test_holes_near_one_another_cost_one_request_and_what_lies_between_is_left_alone() -> (
    None
):
    storage, fetcher = MemoryStorage(), MemoryFetcher(range(100))
    kept = [make_candle(n, close="61801.00000000") for n in range(1, 100, 2)]
    await storage.save_candles(kept)
    report = await ensure(storage, fetcher, 0, 100)
    assert (report.had, report.fetched) == (50, 50)
    assert len(fetcher.asked) == 1
    assert all(storage.candles["binance", "BTC/USDT", "1m", c.open_time_us] == c for c in kept)


async def test_a_short_answer_is_never_called_complete() -> None:
    storage, fetcher = MemoryStorage(), MemoryFetcher([*range(20), *range(30, 60)])
    for fetched in (50, 0):
        report = await ensure(storage, fetcher, 0, 60)
        assert not report.is_complete
        assert report.fetched == fetched
        assert [(run.count, run.reason) for run in report.missing] == [(10, "halted")]
        assert report.missing[0].start_us == START_US + 20 * MINUTE_US
        assert "10 from 2026-01-01T00:20:00Z to 2026-01-01T00:30:00Z: halted" in str(report)


async def test_candles_that_are_not_final_yet_are_not_asked_for() -> None:
    # The exchange's clock shows minute 10: the candle of minute 9 closed this moment.
    storage, fetcher = MemoryStorage(), MemoryFetcher(range(60), now=10)
    report = await ensure(storage, fetcher, 0, 20)
    assert fetcher.asked == [(0, 9)]
    assert report.fetched == 9
    assert [(run.count, run.reason) for run in report.missing] == [(11, "open")]


async def test_the_window_is_of_whole_candles() -> None:
    storage, fetcher = MemoryStorage(), MemoryFetcher(range(60))
    report = await ensure(storage, fetcher, 0.5, 9.9)
    assert (report.start_us, report.end_us) == (START_US + MINUTE_US, START_US + 9 * MINUTE_US)
    assert stored_minutes(storage) == list(range(1, 9))


async def test_what_came_before_an_error_is_kept_and_the_next_call_goes_on_there() -> None:
    storage, fetcher = MemoryStorage(), MemoryFetcher(range(100))
    fetcher.fail_at = 42
    with pytest.raises(DataFetchError) as raised:
        await ensure(storage, fetcher, 0, 100)
    assert raised.value.about is not None
    assert (raised.value.about.exchange, raised.value.about.timeframe) == ("binance", "1m")
    assert stored_minutes(storage) == list(range(40))
    fetcher.fail_at, fetcher.asked = None, []
    report = await ensure(storage, fetcher, 0, 100)
    assert (report.had, report.fetched, report.is_complete) == (40, 60, True)
    assert fetcher.asked == [(40, 100)]


async def test_a_storage_that_forgets_is_an_error_and_not_a_report() -> None:
    class Forgetful(MemoryStorage):
        async def save_candles(self, candles: Any) -> int:
            return len(list(candles))

    with pytest.raises(StorageError, match=r"10 candles.*found 0"):
        await ensure(Forgetful(), MemoryFetcher(range(10)), 0, 10)


async def test_what_somebody_else_stored_meanwhile_counts_as_had() -> None:
    storage = MemoryStorage()

    class Shared(MemoryFetcher):
        async def fetch_candles(self, *arguments: Any) -> Any:
            # The exchange has minutes 0 to 4 only; another program knows 5 to 7.
            await storage.save_candles([make_candle(number) for number in range(5, 8)])
            yield [make_candle(number) for number in range(5)]

    report = await ensure(storage, Shared([]), 0, 10)
    assert (report.had, report.fetched, report.missing_count) == (3, 5, 2)


async def test_two_calls_at_once_end_as_one() -> None:
    storage, fetcher = MemoryStorage(), MemoryFetcher(range(50))
    reports = await asyncio.gather(*(ensure(storage, fetcher, 0, 60) for _ in range(2)))
    assert stored_minutes(storage) == list(range(50))
    assert {report.expected for report in reports} == {60}
    assert {report.missing_count for report in reports} == {10}


async def test_a_candle_that_breaks_the_rules_costs_only_itself() -> None:
    class Wrong(MemoryFetcher):
        async def fetch_candles(self, *arguments: Any) -> Any:
            yield [make_candle(0), make_candle(1, low="61899.00000000"), make_candle(2)]

    storage = MemoryStorage()
    report = await ensure(storage, Wrong(range(3)), 0, 3)
    assert stored_minutes(storage) == [0, 2]
    assert (report.fetched, report.missing_count) == (2, 1)
    assert [(run.count, run.reason) for run in report.missing] == [(1, "refused")]


async def test_candles_of_another_market_are_refused() -> None:
    class Mixed(MemoryFetcher):
        async def fetch_candles(self, *arguments: Any) -> Any:
            yield [make_candle(0, symbol="ETH/USDT")]

    with pytest.raises(DataFetchError, match="found binance ETH/USDT 1m"):
        await ensure(MemoryStorage(), Mixed(range(2)), 0, 2)


GOOD: dict[str, Any] = {
    "exchange": "binance",
    "symbol": "BTC/USDT",
    "timeframe": "1h",
    "start_time": START,
    "end_time": START + timedelta(hours=2),
}

NO_TIMES = ("2026-01-01", datetime(2026, 1, 1), datetime(2026, 1, 2))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"start_time": datetime(2026, 1, 1)}, "aware datetime as start_time"),  # noqa: DTZ001
        ({"end_time": datetime(2026, 1, 2)}, "tzinfo=UTC"),  # noqa: DTZ001
        ({"start_time": "2026-01-01"}, "datetime as start_time, found '2026-01-01'"),
        ({"end_time": START}, "start_time before end_time"),
        ({"end_time": START + timedelta(minutes=59)}, "at least one whole 1h candle"),
        ({"start_time": datetime(1999, 1, 1, tzinfo=UTC)}, "from 2009 to 2100"),
        ({"symbol": "BTCUSDT"}, "'BTC/USDT'"),
        ({"symbol": None}, "'BTC/USDT:USDT', found None"),
        ({"timeframe": "7m"}, "1m 3m 5m"),
        ({"timeframe": ["1h"]}, "1m 3m 5m"),
        ({"exchange": "Binance!"}, "exchange name"),
        ({"exchange": 7}, "exchange name"),
    ],
)
async def test_a_bad_argument_is_a_validation_error_that_says_what_to_write(
    changes: dict[str, Any], says: str
) -> None:
    fetcher = MemoryFetcher([])
    manager = HistoricalDataManager(MemoryStorage(), fetcher)
    given = {**GOOD, **changes}
    for call in (manager.ensure_data_available, manager.get_historical_data):
        with pytest.raises(ValidationError, match=says) as raised:
            await call(**given)
        # What can be told of the arguments is in the error, whichever of them is wrong.
        about = raised.value.about
        assert about is not None
        for name in ("exchange", "symbol", "timeframe"):
            told = given[name] if isinstance(given[name], str) else None
            assert getattr(about, name) == told
        assert (about.start_us is None) == (changes.get("start_time", START) in NO_TIMES)
        assert (about.end_us is None) == (changes.get("end_time", START) in NO_TIMES)
    assert fetcher.asked == []


async def test_missing_arguments_end_in_the_same_except() -> None:
    manager: Any = HistoricalDataManager(MemoryStorage(), MemoryFetcher([]))
    with pytest.raises(ValidationError, match="symbol, timeframe, start_time, end_time"):
        await manager.ensure_data_available(...)


async def test_another_time_zone_is_the_same_time() -> None:
    storage, fetcher = MemoryStorage(), MemoryFetcher(range(60))
    manager = HistoricalDataManager(storage, fetcher)
    there = START.astimezone(timezone(timedelta(hours=5, minutes=30)))
    await manager.ensure_data_available(
        "binance", "BTC/USDT", "1m", there, there + timedelta(minutes=3)
    )
    assert stored_minutes(storage) == [0, 1, 2]
    found = await manager.get_historical_data("binance", "BTC/USDT", "1m", START, minute(2.5))
    assert [candle.open_time_us for candle in found] == [START_US, START_US + MINUTE_US]


async def test_the_errors_of_a_storage_name_market_and_window() -> None:
    storage = MemoryStorage()
    storage.away = True
    with pytest.raises(AlphaPulseError) as raised:
        await ensure(storage, MemoryFetcher(range(10)), 0, 10)
    assert isinstance(raised.value, StorageError)
    assert str(raised.value).endswith(
        "start it (binance BTC/USDT 1m from 2026-01-01T00:00:00Z to 2026-01-01T00:10:00Z)"
    )


@settings(max_examples=40)
@given(
    stored=st.sets(st.integers(0, 59)),
    offered=st.sets(st.integers(0, 59)),
    page_size=st.integers(1, 7),
    window=st.tuples(st.integers(0, 59), st.integers(1, 60)).filter(lambda w: w[0] < w[1]),
)
async def test_every_candle_of_a_window_is_had_fetched_or_missing(
    stored: set[int], offered: set[int], page_size: int, window: tuple[int, int]
) -> None:
    storage, fetcher = MemoryStorage(), MemoryFetcher(offered, page_size=page_size)
    await storage.save_candles([make_candle(number) for number in stored])
    inside = set(range(*window))
    report = await ensure(storage, fetcher, *window)
    assert report.expected == len(inside)
    assert report.had == len(stored & inside)
    assert report.fetched == len(offered & inside - stored)
    assert set(stored_minutes(storage)) == stored | (offered & inside)
    missing = [
        (time_us - START_US) // MINUTE_US
        for run in report.missing
        for time_us in range(run.start_us, run.end_us, MINUTE_US)
    ]
    assert missing == sorted(inside - stored - offered)
    assert report.is_complete == (not missing)
    again = await ensure(storage, fetcher, *window)
    assert (again.fetched, again.missing) == (0, report.missing)
