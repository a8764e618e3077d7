"""History through the whole pipeline: REST, Kafka, processors, sinks, ClickHouse, and back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from msgspec.structs import replace as changed

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.kafka.reader import read
from alpha_pulse.contracts.market import MINUTE_US, TIMEFRAMES
from alpha_pulse.contracts.topics import CANDLES
from alpha_pulse.data_pipeline.history.pipeline import Pipeline, open_pipeline
from alpha_pulse.data_pipeline.history.stored import Market
from alpha_pulse.replay.faults import SHORT_FAULTS, random_rest_plan
from alpha_pulse.replay.long_market import LongMarket
from alpha_pulse.replay.server import ReplayExchange
from alpha_pulse.replay.synthetic import BEGIN_US

MINUTES = 1_500
END_US = BEGIN_US + MINUTES * MINUTE_US
HALT = (BEGIN_US + 700 * MINUTE_US, BEGIN_US + 820 * MINUTE_US)
ONE = TIMEFRAMES["1m"]


def market(symbol: str, seed: int = 4) -> LongMarket:
    return LongMarket(symbol, seed, begin_us=BEGIN_US, end_us=END_US, halts=[HALT])


@asynccontextmanager
async def opened(
    config: Config, exchange: ReplayExchange, **settings: Any
) -> AsyncIterator[Pipeline]:
    producer = replace(config.producer, exchange=exchange.dialect.name, exchange_url=exchange.url)
    async with open_pipeline(replace(config, producer=producer, **settings)) as pipeline:
        yield pipeline


def own(market: LongMarket, minutes: Sequence[int]) -> list[tuple[str, ...]]:
    """Return the exchange's own candles as the pipeline shows them, computed apart from it."""
    found = []
    for minute in minutes:
        candle = market.closed_candle(BEGIN_US + minute * MINUTE_US)
        if candle is not None:
            texts = (candle.open, candle.high, candle.low, candle.close, candle.volume)
            sums = (f"{candle.quote_volume:f}", f"{candle.buy_volume:f}")
            found.append(tuple(text.rstrip("0").rstrip(".") for text in (*texts, *sums)))
    return found


def told(candles: Sequence[Candle]) -> list[tuple[str | None, ...]]:
    return [
        (c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.buy_volume) for c in candles
    ]


async def test_a_backfill_through_faults_is_exact_says_why_and_fetches_nothing_again(
    pipeline: Any,
) -> None:
    config, _ = pipeline
    symbols = ["BTC/USDT", "ETH/USDT"]
    markets = [market(symbol) for symbol in symbols]
    kinds = ("http500", "empty", "truncated", "null", *SHORT_FAULTS)
    faults = random_rest_plan(kinds, 11, 0.25, 200)
    async with (
        ReplayExchange(markets, at_end=True, faults=faults) as exchange,
        opened(config, exchange) as here,
    ):
        first = await here.backfill.run(symbols, "1m", BEGIN_US, END_US)
        for report, source in zip(first, markets, strict=True):
            assert (report.wanted, report.had, report.fetched) == (MINUTES, 0, MINUTES - 120)
            runs = [(run.start_us, run.end_us, run.reason) for run in report.missing]
            assert runs == [(*HALT, "halted")]
            stored = await here.stored.candles(report.market, ONE, BEGIN_US, END_US)
            assert told(stored) == own(source, range(MINUTES))
            hours = await here.stored.open_times_us(
                report.market, TIMEFRAMES["1h"], BEGIN_US, END_US
            )
            # 120 minutes from 11:40 on: one hour is halted whole, two in part.
            assert len(hours) == MINUTES // 60 - 1
        assert faults.applied
        asked = here.history.requests
        second = await here.backfill.run(symbols, "1m", BEGIN_US, END_US)
        assert [report.fetched + report.rebuilt for report in second] == [0, 0]
        assert [report.missing for report in second] == [report.missing for report in first]
        assert here.history.requests == asked + 1, "the clock only"


async def test_a_backfill_that_ended_in_the_middle_goes_on_where_it_was(pipeline: Any) -> None:
    config, _ = pipeline
    symbol, asked_for = "SOL/USDT", HALT[0]
    async with ReplayExchange([market(symbol)], at_end=True) as exchange:
        async with opened(config, exchange) as here:
            # What kill -9 leaves behind: a job without its end.
            job = await here.backfill._writer.begin(
                Market("binance", symbol), ONE, BEGIN_US, asked_for
            )
            pages = here.history.candle_pages(symbol, "1m", BEGIN_US, BEGIN_US + 250 * MINUTE_US)
            async for page in pages:
                await here.backfill._writer.put(job, page.candles)
            await here.backfill._writer.flush()
            async with asyncio.timeout(120):
                where = Market("binance", symbol)
                # ClickHouse has no event for us.
                while len(await here.stored.open_times_us(where, ONE, BEGIN_US, END_US)) < 250:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        async with opened(config, exchange) as here:
            report = (await here.backfill.run([symbol], "1m", BEGIN_US, asked_for))[0]
            assert (report.had, report.fetched, report.missing) == (250, 450, [])
            rows = await here.stored.rows(
                "SELECT count(), uniqExact(open_time) FROM {db}.candles_log WHERE "
                "symbol = {symbol:String} AND timeframe = '1m'",
                {"symbol": symbol},
            )
            assert list(rows[0]) == [700, 700], "nothing twice"
            hours = await here.stored.candles(
                report.market, TIMEFRAMES["1h"], BEGIN_US, BEGIN_US + 660 * MINUTE_US
            )
            # The hour across the seam comes from the exchange itself.
            assert [candle.coverage for candle in hours] == ["exchange"] * 11


async def test_krakens_older_candles_are_built_from_its_trades(pipeline: Any) -> None:
    config, _ = pipeline
    source = market("BTC/USDT")
    async with (
        ReplayExchange([source], dialect="kraken", at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        first_us = BEGIN_US + 640 * MINUTE_US  # the last 720 begin later
        report = (await here.backfill.run(["BTC/USDT"], "1m", first_us, END_US))[0]
        assert not report.missing
        stored = await here.stored.candles(report.market, ONE, first_us, END_US)
        assert told(stored)[:60] == own(source, range(640, 700))
        older = [c for c in stored if c.open_time_us < HALT[1]]
        assert {c.coverage for c in older} <= {"contiguous", "exchange"}
        # Consecutive ids across the halt prove that there was no trade.
        assert {c.trade_count for c in older if c.open_time_us >= HALT[0]} == {0}


async def test_verify_heals_wrong_candles_by_a_revision_that_consumers_see(pipeline: Any) -> None:
    config, _ = pipeline
    source = market("XRP/USDT")
    where = Market("binance", "XRP/USDT")
    end_us = BEGIN_US + 60 * MINUTE_US
    async with (
        ReplayExchange([source], at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        pages = here.history.candle_pages("XRP/USDT", "1m", BEGIN_US, end_us)
        candles = [candle async for page in pages for candle in page.candles]
        wrong = {7, 8, 31, 59}
        for number in wrong:
            candles[number] = changed(candles[number], volume="777", trade_count=1)
        await here.backfill.wait(await here.backfill.put(where, ONE, candles, "test"))
        found = await here.verifier.verify("XRP/USDT", "1m", BEGIN_US, end_us)
        minutes = [(m.open_time_us - BEGIN_US) // MINUTE_US for m in found.mismatches]
        assert minutes == sorted(wrong)
        fields = {d.field for m in found.mismatches for d in m.differences}
        assert fields == {"volume", "trade_count"}
        healed = await here.verifier.verify("XRP/USDT", "1m", BEGIN_US, end_us, heal=True)
        assert (healed.healed, healed.mismatches) == (4, [])
        for name in ("5m", "15m", "30m", "1h"):
            longer = await here.verifier.verify("XRP/USDT", name, BEGIN_US, end_us)
            assert (longer.mismatches, longer.absent) == ([], []), name
        stored = await here.stored.candles(where, ONE, BEGIN_US, end_us)
        assert told(stored) == own(source, range(60))
    revisions: dict[int, list[Candle]] = {}
    async for candle in read(CANDLES["1m"], config=config, until_end=True):
        if candle.symbol == "XRP/USDT":
            revisions.setdefault((candle.open_time_us - BEGIN_US) // MINUTE_US, []).append(candle)
    for number in wrong:
        first, *later = revisions[number]
        assert first.volume == "777"
        assert later
        assert later[-1].revision > first.revision
        assert later[-1].coverage == "contiguous", "built from the trades that were fetched again"


async def test_trades_are_brought_by_id_and_only_those_that_are_missing(pipeline: Any) -> None:
    config, _ = pipeline
    source = market("ADA/USDT")
    end_us = BEGIN_US + 40 * MINUTE_US
    async with (
        ReplayExchange([source], at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        ten_us = BEGIN_US + 10 * MINUTE_US
        first = await here.backfill.trades("ADA/USDT", ten_us, ten_us + 5 * MINUTE_US)
        assert (first.wanted, first.had, first.fetched) == (20, 0, 20)
        report = await here.backfill.trades("ADA/USDT", BEGIN_US, end_us)
        assert (report.wanted, report.had, report.missing_ids) == (160, 20, [])
        trades = await here.stored.trades(report.market, BEGIN_US, end_us)
        expected = source.rows(0, 160)
        assert [int(trade.trade_id) for trade in trades] == [row.trade_id for row in expected]
        again = await here.backfill.trades("ADA/USDT", BEGIN_US, end_us)
        assert (again.had, again.fetched) == (160, 0)
        stored = await here.stored.candles(report.market, ONE, BEGIN_US, end_us)
        assert {candle.coverage for candle in stored} == {"contiguous"}
        assert told(stored) == own(source, range(40))
