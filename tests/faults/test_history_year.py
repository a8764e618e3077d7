"""A year of history through faults and kill -9: stored exactly, the halt told, nothing twice.

Long form only: `make faults`, or ALPHA_PULSE_FAULTS=full. The short form, through the same code, is
tests/application/data_pipeline/test_history_pipeline.py.
"""

import asyncio
import json
import os
import random
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alpha_pulse.cli.pipeline.role_processes import RoleProcesses, role_processes
from alpha_pulse.contracts.config import Config, config_environment
from alpha_pulse.contracts.errors import format_us
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.market import MINUTE_US, TIMEFRAMES
from alpha_pulse.data_pipeline.history.stored import StoredMarket, stored_market
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.replay.markets.long_market import LongMarket
from alpha_pulse.replay.markets.synthetic import BEGIN_US
from tests.patience import FULL

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
# A quick look at the same: HISTORY_MINUTES=6000.
MINUTES = int(os.environ.get("HISTORY_MINUTES", "525600"))
HALT = (MINUTES * 2 // 3, 120)
FAULTS = "http429,http500,empty,truncated,null,no-rows,few-rows"
SEED = int(os.environ.get("SEED", "1"))
START = "2024-01-01"
ONE = TIMEFRAMES["1m"]


async def run_backfill(environment: dict[str, str], end: str, kill_after: int | None,
                       stored: StoredMarket) -> tuple[int, str]:  # fmt: skip
    """Run the command; kill it once so many candles are stored. Returns exit code and output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from alpha_pulse.cli.main import main; main()", "backfill",
        "binance", *SYMBOLS, "--start", START, "--end", end, "--json",
        env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    reading = asyncio.create_task(process.communicate())
    while kill_after is not None and not reading.done():
        rows = await stored.rows("SELECT count() FROM {db}.candles_log WHERE timeframe = '1m'", {})
        if rows[0][0] >= kill_after:
            process.kill()
            break
        await asyncio.sleep(0.5)
    out, _ = await reading
    assert process.returncode is not None
    return process.returncode, out.decode()


def expected(symbol: str) -> list[tuple[Any, ...]]:
    """Return the exchange's candles, computed apart from the pipeline."""
    halts = [(BEGIN_US + HALT[0] * MINUTE_US, BEGIN_US + sum(HALT) * MINUTE_US)]
    market = LongMarket(
        symbol, SEED, begin_us=BEGIN_US, end_us=BEGIN_US + MINUTES * MINUTE_US, halts=halts
    )
    found: list[tuple[Any, ...]] = []
    for minute in range(MINUTES):
        candle = market.closed_candle(BEGIN_US + minute * MINUTE_US)
        if candle is not None:
            texts = (candle.open, candle.high, candle.low, candle.close, candle.volume)
            sums = (f"{candle.quote_volume:f}", f"{candle.buy_volume:f}")
            short = (text.rstrip("0").rstrip(".") for text in (*texts, *sums))
            found.append((candle.open_time_us, *short, candle.trade_count))
    return found


@pytest.mark.skipif(not FULL, reason="long form: ALPHA_PULSE_FAULTS=full")
@pytest.mark.timeout(7_200)
async def test_a_year_of_three_symbols_through_faults_and_two_kills(
    runtime: Runtime, tmp_path: Path
) -> None:
    print(f"SEED={SEED}, {MINUTES} minutes")
    base = Config(namespace=f"t{uuid.uuid4().hex[:12]}", data_dir=str(tmp_path))
    config = replace(
        base,
        kafka=replace(base.kafka, bootstrap=runtime.kafka),
        clickhouse=replace(base.clickhouse, url=runtime.clickhouse),
        metrics=replace(base.metrics, enabled=False),
        history=replace(base.history, limit_share=0.0, retry_delay_s=0.05),
    )
    await ensure_topics(config)
    end_us = BEGIN_US + MINUTES * MINUTE_US
    async with role_processes(tmp_path / "logs") as roles, stored_market(config) as stored:
        url = await start(roles, config)
        producer = replace(config.producer, exchange_url=url)
        environment = config_environment(replace(config, producer=producer))
        end = format_us(end_us)
        total = (MINUTES - HALT[1]) * len(SYMBOLS)
        chance = random.Random(SEED)
        for low, high in ((0.1, 0.3), (0.5, 0.7)):
            at = round(total * chance.uniform(low, high))
            code, _ = await run_backfill(environment, end, at, stored)
            print(f"killed at {at} candles: exit code {code}")
            assert code == -9
        code, out = await run_backfill(environment, end, None, stored)
        assert code == 3, "the halt stays missing"
        for report in json.loads(out)["symbols"]:
            (missing,) = report["missing"]
            assert (missing["candles"], missing["reason"]) == (HALT[1], "halted")
            assert report["had"] > 0
            assert report["had"] + report["fetched"] == MINUTES - HALT[1]
        await check_exact(stored, end_us)
        code, out = await run_backfill(environment, end, None, stored)
        assert [r["fetched"] for r in json.loads(out)["symbols"]] == [0] * len(SYMBOLS)
        rows = await stored.rows(
            "SELECT count() - uniqExact(k_topic, k_partition, k_offset), "
            "uniqExact(k_topic, k_partition, k_offset) - uniqExact(symbol, open_time) "
            "FROM {db}.candles_log WHERE timeframe = '1m'",
            {},
        )
        print(f"duplicated, fetched again after a kill: {list(rows[0])}")
        assert rows[0][0] == 0


async def start(roles: RoleProcesses, config: Config) -> str:
    """Start the exchange with its faults, a processor and a sink; return the exchange's address."""
    roles.start("sink", "sink", config)
    roles.start("processor", "processor", config)
    return await roles.start_exchange(
        [
            "--long",
            ",".join(SYMBOLS),
            "--minutes",
            str(MINUTES),
            "--at-end",
            "--halt",
            f"{HALT[0]}+{HALT[1]}",
            "--seed",
            str(SEED),
            "--faults",
            FAULTS,
            "--rest-fault-share",
            "0.05",
        ]
    )


async def check_exact(stored: StoredMarket, end_us: int) -> None:
    """Hold every stored candle against the exchange's own, and the longer ones for completeness."""
    for symbol in SYMBOLS:
        market = Market("binance", symbol)
        candles = await stored.candles(market, ONE, BEGIN_US, end_us)
        found = [
            (c.open_time_us, c.open, c.high, c.low, c.close, c.volume, c.quote_volume,
             c.buy_volume, c.trade_count)
            for c in candles
        ]  # fmt: skip
        assert found == expected(symbol)
        for name in ("5m", "1h", "1d"):
            frame = TIMEFRAMES[name]
            opens = set(await stored.open_times_us(market, frame, BEGIN_US, end_us))
            minutes = {frame.open_time_us(c.open_time_us) for c in candles}
            assert opens == {t for t in minutes if t + frame.duration_us <= end_us}, name
