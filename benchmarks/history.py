"""How fast history comes: a year of candles into ClickHouse through Kafka, and under a limit.

`python -m benchmarks history [--minutes N] [--symbols N] [--workers N] [--limited] [--json]`:
replay exchange, processors, sink as processes, embedded Kafka and ClickHouse, default settings but
for the number of workers. The clock runs from the first request until the last candle, longer
timeframes included, is seen by SQL; then a second run must fetch nothing. `pages` is REST alone:
asked, decoded, checked. --limited: one exchange's own limit on (OKX: 600 requests a minute, 300
candles each); the share of what it allows over two minutes that was used, without being refused.
"""

import argparse
import asyncio
import json
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from alpha_pulse.cli.pipeline.role_processes import RoleProcesses, role_processes
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.data_pipeline.history.pipeline import open_pipeline
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.producers.history.pages import open_history
from alpha_pulse.replay.markets.synthetic import BEGIN_US
from benchmarks.processes import usage_by_role

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "BNB/USDT", "ADA/USDT")
LIMIT_REQUESTS = 600
LIMITED_S = 120.0
LIMITED_ROWS = 300


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code: 0 when everything came and nothing came twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks history", description=__doc__)
    parser.add_argument("--minutes", type=int, default=525_600, help="of history, per symbol")
    parser.add_argument("--symbols", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="processor processes")
    parser.add_argument("--limited", action="store_true", help="also under a limit: two minutes")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="history-bench-") as directory:
        figures = asyncio.run(_run(options, Path(directory)))
    print("\n".join(f"{name}: {value}" for name, value in figures.items()))
    if options.json:
        print(json.dumps(figures))
    return 0 if figures["missing"] == 0 and figures["second_run_fetched"] == 0 else 1


async def _run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    symbols = list(SYMBOLS[: options.symbols])
    end_us = BEGIN_US + options.minutes * MINUTE_US
    async with role_processes(directory / "logs") as roles:
        figures = await _pages(roles, symbols[0], options.minutes)
        if options.limited:
            figures |= await _limited(roles)
        async with _roles(roles, directory, options.workers) as config:
            url = await _exchange(roles, ",".join(symbols), options.minutes)
            producer = replace(config.producer, exchange="binance", exchange_url=url)
            async with open_pipeline(replace(config, producer=producer), share=0.0) as pipeline:
                before = usage_by_role()
                began_s = time.perf_counter()
                reports = await pipeline.backfill.run(symbols, "1m", BEGIN_US, end_us)
                took_s = time.perf_counter() - began_s
                after = usage_by_role()
                second = await pipeline.backfill.run(symbols, "1m", BEGIN_US, end_us)
    fetched = sum(report.fetched for report in reports)
    cpu_us = {
        role: round((after[role].cpu_s - before[role].cpu_s) / fetched * 1e6, 1)
        for role in after
        if role in before
    }
    return figures | {
        "candles": fetched,
        "seconds": round(took_s, 1),
        "candles_per_s": round(fetched / took_s),
        "workers": options.workers,
        "symbols": len(symbols),
        "cpu_us_per_candle": cpu_us,
        "cpu_us_per_candle_in_all": round(sum(cpu_us.values()), 1),
        "missing": sum(len(report.missing) for report in reports),
        "second_run_fetched": sum(report.fetched for report in second),
    }


async def _pages(roles: RoleProcesses, symbol: str, minutes: int) -> dict[str, Any]:
    url = await _exchange(roles, symbol, minutes)
    producer = replace(Config().producer, exchange="binance", exchange_url=url)
    async with open_history(producer, share=0.0) as history:
        began_s = time.perf_counter()
        count = 0
        end_us = BEGIN_US + minutes * MINUTE_US
        async for page in history.candles.pages(symbol, "1m", BEGIN_US, end_us):
            count += len(page.candles)
        took_s = time.perf_counter() - began_s
    await roles.stop("exchange")
    return {"pages_candles_per_s": round(count / took_s)}


async def _limited(roles: RoleProcesses) -> dict[str, Any]:
    minutes = round(LIMIT_REQUESTS * LIMITED_ROWS * (LIMITED_S / 60) * 2)
    arguments = ["--dialect", "okx", "--weight-limit", str(LIMIT_REQUESTS)]
    url = await _exchange(roles, "BTC/USDT", minutes, *arguments)
    producer = replace(Config().producer, exchange="okx", exchange_url=url)
    async with open_history(producer) as history:
        began_s = time.perf_counter()
        count = 0
        end_us = BEGIN_US + minutes * MINUTE_US
        async for page in history.candles.pages("BTC/USDT", "1m", BEGIN_US, end_us):
            count += len(page.candles)
            if time.perf_counter() - began_s >= LIMITED_S:
                break
        took_s = time.perf_counter() - began_s
        refused = history.ask.asked.by_error.get("RateLimitExceeded", 0)
        refused += history.ask.asked.by_error.get("DDoSProtection", 0)
    await roles.stop("exchange")
    allowed = LIMIT_REQUESTS / 60 * LIMITED_ROWS * took_s
    return {
        "limited_candles_per_s": round(count / took_s),
        "limited_share_of_allowed": round(count / allowed, 3),
        "limited_refused": refused,
    }


@asynccontextmanager
async def _roles(roles: RoleProcesses, directory: Path, workers: int) -> AsyncIterator[Config]:
    async with Runtime.start(directory, kafka_port=0, clickhouse_port=0) as runtime:
        base = Config(namespace=f"h{uuid.uuid4().hex[:8]}", data_dir=str(directory))
        config = replace(
            base,
            kafka=replace(base.kafka, bootstrap=runtime.kafka),
            clickhouse=replace(base.clickhouse, url=runtime.clickhouse),
            metrics=replace(base.metrics, enabled=False),
        )
        await ensure_topics(config)
        roles.start("sink", "sink", config)
        for number in range(1, workers + 1):
            roles.start(f"processor-{number}", "processor", config)
        # Connected, assigned and warm: the clock is for history alone.
        await asyncio.sleep(15)
        yield config
        await roles.stop_all()


async def _exchange(roles: RoleProcesses, symbols: str, minutes: int, *more: str) -> str:
    return await roles.start_exchange(
        ["--long", symbols, "--minutes", str(minutes), "--at-end", *more]
    )
