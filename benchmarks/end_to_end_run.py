"""One run of the end-to-end benchmark: everything started, warm, watched, and taken down again."""

import asyncio
import math
import os
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alpha_pulse.cli.pipeline.role_processes import role_processes
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    ProducerConfig,
    TopicsConfig,
)
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.migrate import migrate
from benchmarks.end_to_end_stored import fill
from benchmarks.end_to_end_watch import watching
from benchmarks.processes import busy_core_s, serving, usage_by_role

EXCHANGE = Path(__file__).with_name("end_to_end_exchange.py")
WARM_UP_S = 15.0
SETTLE_S = 5.0
# A rate is held when the newest visible trade is this young in the last third of a run and hardly
# older than it was in the first, and 99 of 100 trades were seen in this time.
HELD_LAG_S_MAX = 2.0
HELD_GROWTH_S_MAX = 0.5
HELD_P99_MS_MAX = 2_000.0


def is_held(lags: dict[str, float], figures: dict[str, Any]) -> bool:
    """Return whether a run kept up, and so fast that its rate counts."""
    return (
        lags["last_third"] <= HELD_LAG_S_MAX
        and lags["last_third"] - lags["first_third"] <= HELD_GROWTH_S_MAX
        and figures["trade_in_clickhouse_ms"].get("p99", math.inf) <= HELD_P99_MS_MAX
    )


@dataclass(frozen=True)
class Load:
    """What a run is asked for. stored_rows: rows that the trades table holds before it begins."""

    rate: float
    symbols: int
    partitions: int
    stored_rows: int
    seconds: float


async def run(runtime: Runtime, load: Load) -> dict[str, Any]:
    """Start everything, let it run warm, measure; return the figures."""
    names = tuple(f"S{number:04}/USDT" for number in range(load.symbols))
    config = Config(
        namespace=f"b{uuid.uuid4().hex[:8]}",
        data_dir=str(runtime.data_dir),
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        clickhouse=ClickHouseConfig(url=runtime.clickhouse),
        producer=ProducerConfig(symbols=names),
        topics=TopicsConfig(partitions=load.partitions),
    )
    await ensure_topics(config)
    clickhouse = await ClickHouse.connect(config.clickhouse)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(clickhouse.close)
        await migrate(config, clickhouse)
        stack.push_async_callback(_drop, config, clickhouse)
        await fill(config.database, clickhouse, names, load.stored_rows)
        url = await stack.enter_async_context(serving(EXCHANGE, len(names), load.rate))
        config = replace(config, producer=replace(config.producer, exchange_url=url))
        roles = await stack.enter_async_context(
            role_processes(runtime.data_dir / f"logs-{config.namespace}")
        )
        for role in ("sink", "processor", "producer"):
            roles.start(role, role, config)
        watch = await stack.enter_async_context(watching(config, clickhouse))
        died = asyncio.create_task(roles.wait_dead())
        stack.callback(died.cancel)
        await watch.all_symbols(load.symbols, died)
        await asyncio.sleep(WARM_UP_S)
        loads = [os.getloadavg()[0]]
        usage, busy_s, from_us = usage_by_role(), busy_core_s(), time.time_ns() // 1000
        await asyncio.wait([died], timeout=load.seconds)
        if died.done():
            raise died.result()
        used, until_us = usage_by_role(), time.time_ns() // 1000
        elapsed_s = (until_us - from_us) / 1e6
        busy = (busy_core_s() - busy_s) / elapsed_s
        loads.append(os.getloadavg()[0])
        await asyncio.sleep(SETTLE_S)  # what was printed until now may still be on its way
        lags = watch.lags(from_us, until_us)
        figures = await watch.figures(from_us, until_us)
    roles_used = {
        name: used[name].since(usage[name], elapsed_s, load.rate) for name in used if name in usage
    }
    ours = sum(each["cores"] for each in roles_used.values())
    return {
        "rate": load.rate,
        "symbols": load.symbols,
        "partitions": load.partitions,
        "stored_rows": load.stored_rows,
        "seconds": round(elapsed_s, 1),
        "lag_s": lags,
        "held": is_held(lags, figures),
        **figures,
        "cores_ours": round(ours, 2),
        "cores_of_others": round(max(0.0, busy - ours), 2),
        "load": [round(each, 1) for each in loads],
        "roles": roles_used,
    }


async def _drop(config: Config, clickhouse: ClickHouse) -> None:
    # The next run meets the same machine.
    await clickhouse.command(f"DROP DATABASE IF EXISTS {config.database}")
