"""History through the whole pipeline: REST, Kafka, processors, sinks, ClickHouse, and back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

from msgspec.structs import replace as changed

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.events import Candle, Heartbeat, Trade
from alpha_pulse.contracts.kafka.reader import read
from alpha_pulse.contracts.market import DAY_US, MINUTE_US, TIMEFRAMES
from alpha_pulse.contracts.topics import CANDLES, DEAD_LETTERS
from alpha_pulse.data_pipeline.history.missing import find_missing
from alpha_pulse.data_pipeline.history.pipeline import Pipeline, open_pipeline
from alpha_pulse.data_pipeline.history.repairing import repair_once
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.producers.history.missing import Reason
from alpha_pulse.replay.exchange.faults import SHORT_FAULTS, random_rest_plan
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.long_market import LongMarket
from alpha_pulse.replay.markets.no_trades import WithNoTrades
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S

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
    minutes, end_us = 960, BEGIN_US + 960 * MINUTE_US
    symbols = ["BTC/USDT", "ETH/USDT"]
    markets = [market(symbol) for symbol in symbols]
    kinds = ("http500", "empty", "truncated", "null", *SHORT_FAULTS)
    faults = random_rest_plan(kinds, 11, 0.25, 200)
    async with (
        ReplayExchange(markets, at_end=True, faults=faults) as exchange,
        opened(config, exchange) as here,
    ):
        first = await here.backfill.run(symbols, "1m", BEGIN_US, end_us)
        for report, source in zip(first, markets, strict=True):
            assert (report.wanted, report.had, report.fetched) == (minutes, 0, minutes - 120)
            runs = [(run.start_us, run.end_us, run.reason) for run in report.missing]
            assert runs == [(*HALT, "halted")]
            stored = await here.stored.candles(report.market, ONE, BEGIN_US, end_us)
            assert told(stored) == own(source, range(minutes))
            hours = await here.stored.open_times_us(
                report.market, TIMEFRAMES["1h"], BEGIN_US, end_us
            )
            # 120 minutes from 11:40 on: one hour is halted whole, two in part.
            assert len(hours) == minutes // 60 - 1
        assert faults.applied
        asked = here.history.requests
        second = await here.backfill.run(symbols, "1m", BEGIN_US, end_us)
        assert [report.fetched + report.rebuilt for report in second] == [0, 0]
        assert [report.missing for report in second] == [report.missing for report in first]
        assert here.history.requests == asked + 1, "the clock only"


async def test_a_backfill_that_ended_in_the_middle_goes_on_where_it_was(pipeline: Any) -> None:
    config, _ = pipeline
    symbol, asked_for = "SOL/USDT", HALT[0]
    async with ReplayExchange([market(symbol)], at_end=True) as exchange:
        async with opened(config, exchange) as here:
            # What kill -9 leaves behind: a job without its end.
            job = await here.backfill.bring.writer.begin(
                Market("binance", symbol), ONE, BEGIN_US, asked_for
            )
            pages = here.history.candles.pages(symbol, "1m", BEGIN_US, BEGIN_US + 250 * MINUTE_US)
            async for page in pages:
                await here.backfill.bring.writer.put(job, page.candles)
            await here.backfill.bring.writer.flush()
            async with asyncio.timeout(PATIENCE_S):
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


async def live(here: Pipeline, source: LongMarket, minutes: int, seed: int) -> tuple[set[int], ...]:
    """Publish minutes as the live stream would; lose trades on the wire, corrupt candles.

    Returns: the minutes with lost trades, and those whose exchange candle is wrong.
    """
    chance = Random(seed)
    name = source.instrument.symbol
    where, writer = Market("binance", name), here.backfill.bring.writer
    end_us = BEGIN_US + minutes * MINUTE_US
    lost, wrong = set(), set(chance.sample(range(minutes), 4))
    pages = here.history.candles.pages(name, "1m", BEGIN_US, end_us)
    candles = {c.open_time_us: c async for page in pages for c in page.candles}
    for minute in range(minutes):
        for row in source.rows(minute * 4, minute * 4 + 4):
            # The first and the last one stay: they say which ids are missing.
            if chance.random() < 0.1 and 0 < row.trade_id - 1_000_001 < minutes * 4 - 1:
                lost.add(minute)
                continue
            await writer.publish(
                where,
                Trade(
                    exchange="binance", symbol=name, trade_id=str(row.trade_id), price=row.price,
                    amount=row.amount, side="buy" if row.side == "buy" else "sell",
                    trade_time_us=row.trade_time_us, receive_time_us=row.trade_time_us,
                ),
            )  # fmt: skip
        candle = candles[BEGIN_US + minute * MINUTE_US]
        if minute in wrong:
            candle = changed(candle, volume="777", trade_count=1)
        await writer.publish(where, candle)
    until = Heartbeat(
        exchange="binance", symbol=name, complete_until_us=end_us + 10_000_000, state="live"
    )
    await writer.publish(where, until)
    await writer.flush()
    return lost, wrong


async def test_verify_heals_lost_trades_and_wrong_candles_by_revisions_that_consumers_see(
    pipeline: Any,
) -> None:
    config, _ = pipeline
    symbol, minutes, seed = "XRP/USDT", 60, 3
    source = market(symbol)
    where = Market("binance", symbol)
    end_us = BEGIN_US + minutes * MINUTE_US
    async with (
        ReplayExchange([source], at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        lost, wrong = await live(here, source, minutes, seed)
        await here.backfill.settle([where])
        found = await here.verifier.verify(symbol, "1m", BEGIN_US, end_us)
        different = {(m.open_time_us - BEGIN_US) // MINUTE_US for m in found.mismatches}
        assert different, "a wrong candle stands in for a minute with lost trades"
        assert different <= lost | wrong
        gaps = await here.stored.gaps(where)
        async with asyncio.timeout(PATIENCE_S):
            while not gaps:
                await asyncio.sleep(0.1)
                gaps = await here.stored.gaps(where)
        assert {gap.status for gap in gaps} == {"open"}
        await here.repairer.fill_gaps(where)
        await here.verifier.verify(symbol, "1m", BEGIN_US, end_us, heal=True)
        for name in ("1m", "5m", "15m", "30m", "1h"):
            healed = await here.verifier.verify(symbol, name, BEGIN_US, end_us, heal=True)
            assert (healed.mismatches, healed.absent) == ([], []), name
        stored = await here.stored.candles(where, ONE, BEGIN_US, end_us)
        assert told(stored) == own(source, range(minutes))
        async with asyncio.timeout(PATIENCE_S):
            while await here.stored.gaps(where):  # noqa: ASYNC110 (ClickHouse has no event for us)
                await asyncio.sleep(0.1)
    revisions: dict[int, list[Candle]] = {}
    async for candle in read(CANDLES["1m"], config=config, until_end=True):
        if candle.symbol == symbol:
            revisions.setdefault((candle.open_time_us - BEGIN_US) // MINUTE_US, []).append(candle)
    for number in different:
        first, last = revisions[number][0], revisions[number][-1]
        assert last.revision > first.revision
        assert last.coverage == "contiguous", "built from the trades that were fetched again"


async def test_trades_are_brought_by_id_and_only_those_that_are_missing(pipeline: Any) -> None:
    config, _ = pipeline
    source = market("ADA/USDT")
    end_us = BEGIN_US + 40 * MINUTE_US
    async with (
        ReplayExchange([source], at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        ten_us = BEGIN_US + 10 * MINUTE_US
        first = await here.backfill.trades.fill("ADA/USDT", ten_us, ten_us + 5 * MINUTE_US)
        assert (first.wanted, first.had, first.fetched) == (20, 0, 20)
        report = await here.backfill.trades.fill("ADA/USDT", BEGIN_US, end_us)
        assert (report.wanted, report.had, report.missing_ids) == (160, 20, [])
        trades = await here.stored.trades(report.market, BEGIN_US, end_us)
        expected = source.rows(0, 160)
        assert [int(trade.trade_id) for trade in trades] == [row.trade_id for row in expected]
        again = await here.backfill.trades.fill("ADA/USDT", BEGIN_US, end_us)
        assert (again.had, again.fetched) == (160, 0)
        stored = await here.stored.candles(report.market, ONE, BEGIN_US, end_us)
        assert {candle.coverage for candle in stored} == {"contiguous"}
        assert told(stored) == own(source, range(40))


async def test_ids_that_rest_leaves_out_are_no_trades_and_not_missing(pipeline: Any) -> None:
    """A perpetual: one id now and then, more than a page of REST, right before both ends."""
    config, _ = pipeline
    symbol, last_us = "ADA/USDT:USDT", BEGIN_US + 45 * MINUTE_US
    start_us, end_us = BEGIN_US + 5 * MINUTE_US, BEGIN_US + 40 * MINUTE_US
    trades = SyntheticMarket("ADA/USDT", 4, end_us=last_us, trades_per_minute=40)
    first, end = trades.position_at(start_us), trades.position_at(end_us)
    source = WithNoTrades(trades, every=25, runs={first: 3, first + 300: 700, end: 5})
    async with (
        ReplayExchange([source], dialect="binanceusdm", at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        middle_us = start_us + 10 * MINUTE_US
        await here.backfill.trades.fill(symbol, start_us, middle_us)
        report = await here.backfill.trades.fill(symbol, start_us, end_us)
        assert (report.missing_ids, report.is_complete) == ([], True)
        stored = await here.stored.trades(report.market, start_us, end_us)
        rows = source.rows(first, end)
        assert [int(trade.trade_id) for trade in stored] == [row.trade_id for row in rows]
        again = await here.backfill.trades.fill(symbol, start_us, end_us)
        assert (again.fetched, again.missing_ids) == (0, [])
        candles = await here.stored.candles(report.market, ONE, start_us, end_us)
        assert {candle.coverage for candle in candles} == {"contiguous"}
        verdict = await here.verifier.verify(symbol, "1m", start_us, end_us, heal=True)
        assert (verdict.mismatches, verdict.absent) == ([], [])
        assert await here.stored.gaps(report.market) == []
        (counted,) = await here.stored.rows(
            "SELECT sum(toInt64(last_trade_id) - toInt64(first_trade_id) + 1) FROM {db}.ids "
            "WHERE symbol = {symbol:String} AND reason = 'no_trade'",
            {"symbol": symbol},
        )
        after = source.rows(end, end + 1)[0].trade_id
        assert counted[0] >= after - rows[0].trade_id - len(rows) > 700


async def test_trades_of_the_minute_that_still_runs_are_left_to_the_live_stream(
    pipeline: Any,
) -> None:
    config, _ = pipeline
    now_us = BEGIN_US + 10 * MINUTE_US + 31_000_000
    source = SyntheticMarket("DOT/USDT", 4, end_us=now_us, quiet_minutes=0.0)
    async with (
        ReplayExchange([source], at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        (report,) = await here.backfill.run(
            ["DOT/USDT"], "1m", BEGIN_US, now_us + MINUTE_US, trades=True
        )
        ended = BEGIN_US + 10 * MINUTE_US
        assert report.fetched == source.position_at(ended) < source.position_at(now_us)
        stored = await here.stored.candles(report.market, ONE, BEGIN_US, now_us + MINUTE_US)
        assert len(stored) == 10
        assert stored[-1].open_time_us + MINUTE_US == ended


async def test_a_round_of_repair_heals_what_the_tables_say_is_wrong(pipeline: Any) -> None:
    config, _ = pipeline
    symbol, minutes = "LTC/USDT", 40
    source = LongMarket(symbol, 4, begin_us=BEGIN_US, end_us=BEGIN_US + 60 * MINUTE_US)
    where = Market("binance", symbol)
    async with (
        ReplayExchange([source], at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        lost, wrong = await live(here, source, minutes, 5)
        assert lost, "the seed must lose something"
        assert wrong
        await here.backfill.settle([where])
        followed = replace(config, producer=replace(config.producer, symbols=(symbol,)))
        # Twice: what the first round corrected is on its way while the second one looks.
        for _ in range(2):
            await repair_once(followed, here)
            await here.backfill.settle([where])
        end_us = BEGIN_US + 57 * MINUTE_US  # younger minutes are left to the live stream
        verdict = await here.verifier.verify(symbol, "1m", BEGIN_US, end_us)
        assert (verdict.compared, verdict.mismatches, verdict.absent) == (57, [], [])
        stored = await here.stored.candles(where, ONE, BEGIN_US, end_us)
        assert {candle.coverage for candle in stored} <= {"contiguous", "exchange"}


async def told_us(here: Pipeline, where: Market, reason: Reason) -> int:
    """Return of how much time ClickHouse knows that there is nothing, for a reason."""
    explained = await here.stored.explained(where, BEGIN_US, BEGIN_US + 30 * DAY_US)
    return sum(window.end_us - window.start_us for window in explained.get(reason, []))


async def test_each_symbol_and_each_row_stands_for_itself_and_a_second_run_asks_nothing(
    pipeline: Any,
) -> None:
    config, _ = pipeline
    minutes, days = 300, 20
    now_us = BEGIN_US + days * DAY_US
    broken = [BEGIN_US + n * MINUTE_US for n in (100, 101)]
    good = LongMarket("UNI/USDT", 4, begin_us=BEGIN_US, end_us=now_us, broken=broken)
    gone = LongMarket("OLD/USDT", 4, begin_us=BEGIN_US, end_us=BEGIN_US + minutes * MINUTE_US)
    symbols, end_us = ["UNI/USDT", "NOPE/USDT", "OLD/USDT"], BEGIN_US + minutes * MINUTE_US
    async with (
        ReplayExchange([good, gone], at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        first = await here.backfill.run(symbols, "1m", BEGIN_US, end_us)
        assert [report.fetched for report in first] == [minutes - 2, 0, minutes]
        assert "expected a symbol that binance lists" in first[1].error
        assert not first[0].error
        assert not first[2].error
        runs = [(run.start_us, run.end_us, run.reason) for run in first[0].missing]
        assert runs == [(broken[0], broken[1] + MINUTE_US, "refused")]
        letters = [
            letter
            async for letter in read(DEAD_LETTERS, config=config, until_end=True)
            if letter.symbol == "UNI/USDT"
        ]
        assert {letter.reason for letter in letters} == {"bad_candle"}
        # Two minutes, and the five minutes that begin with the first of them.
        assert len({letter.identity for letter in letters}) == 3
        # Weeks after the last trade, while others go on: proven once, and stored.
        later_us = BEGIN_US + 15 * DAY_US
        asked = here.history.requests
        (ended,) = await here.backfill.run(["OLD/USDT"], "1m", BEGIN_US, later_us)
        assert {run.reason for run in ended.missing} == {"ended"}
        assert ended.missing[0].start_us == end_us
        assert ended.missing[-1].end_us == later_us
        assert here.history.requests - asked < 40
        uni, old = first[0].market, ended.market
        async with asyncio.timeout(PATIENCE_S):
            # ClickHouse has no event for us.
            while (  # noqa: ASYNC110
                # The five minutes replace the two that begin with them.
                await told_us(here, uni, "refused") < 5 * MINUTE_US
                or await told_us(here, old, "ended") < later_us - end_us
            ):
                await asyncio.sleep(0.1)
        asked = here.history.requests
        again = await here.backfill.run(["OLD/USDT"], "1m", BEGIN_US, later_us)
        once_more = await here.backfill.run(["UNI/USDT"], "1m", BEGIN_US, end_us)
        assert [report.fetched for report in (*again, *once_more)] == [0, 0]
        assert here.history.requests == asked + 2, "the clock only"


async def test_a_market_is_found_by_whatever_is_stored_of_it(pipeline: Any) -> None:
    config, _ = pipeline
    end_us = BEGIN_US + 10 * 60 * MINUTE_US
    hours = LongMarket("HOUR/USDT", 4, begin_us=BEGIN_US, end_us=end_us)
    async with (
        ReplayExchange([hours], at_end=True) as exchange,
        opened(config, exchange) as here,
    ):
        await here.backfill.run(["HOUR/USDT"], "1h", BEGIN_US, end_us)
        (span,) = await here.stored.chosen_markets("binance", "HOUR/USDT")
        assert (span.start_us, span.end_us, span.timeframe) == (BEGIN_US, end_us, "1h")
        (lacking,) = await find_missing(
            here.stored, ("binance", "HOUR/USDT"), [], (None, end_us + 120 * MINUTE_US)
        )
        assert "1m" not in lacking.candles
        assert [run.reason for run in lacking.candles["1h"]] == ["unanswered"]
        trade = Trade(
            exchange="binance", symbol="TRADE/USDT", trade_id="1", price="1", amount="1",
            side="buy", trade_time_us=BEGIN_US + 5, receive_time_us=BEGIN_US + 5, job="storage-1",
        )  # fmt: skip
        await here.backfill.bring.writer.publish(Market("binance", "TRADE/USDT"), trade)
        await here.backfill.bring.writer.flush()
        async with asyncio.timeout(PATIENCE_S):
            # ClickHouse has no event for us.
            while not any(s.market.symbol == "TRADE/USDT" for s in await here.stored.markets()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        (span,) = await here.stored.chosen_markets("", "TRADE/USDT")
        assert (span.start_us, span.end_us, span.timeframe) == (BEGIN_US + 5, BEGIN_US + 6, None)
