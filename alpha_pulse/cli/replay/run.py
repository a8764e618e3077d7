"""One replay: servers, exchange and roles started and waited for, and the verdict."""

import asyncio
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from alpha_pulse.cli.pipeline.role_processes import RoleProcesses, role_processes
from alpha_pulse.cli.pipeline.servers import start_runtime, with_servers
from alpha_pulse.cli.pipeline.stored import (
    connect,
    count_committed,
    count_gaps,
    count_records,
    count_trades,
    processor_lag,
    read_candles,
    read_trades,
)
from alpha_pulse.cli.replay.accidents import Accident, cause_accidents, duration_s
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.topics import CANDLES, EXCHANGE_CANDLES, TRADES
from alpha_pulse.embedded.progress import console_progress
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.replay.markets.recording import Recording
from alpha_pulse.replay.verdict import (
    compare_with_exchange,
    compare_with_trades,
    count_altered_trades,
)

# Partitions of a run for one symbol: more would only be more transactions to open.
PARTITIONS = 2
STORED_TIMEOUT_S = 600.0
# Tables that a replay waits for, and the topics that fill them.
_WAIT_FOR = {
    "trades_log": (TRADES,),
    "candles_log": tuple(CANDLES.values()),
    "exchange_candles_log": (EXCHANGE_CANDLES,),
}


@dataclass(frozen=True)
class ReplayPlan:
    """What is played and what goes wrong.

    market: arguments of the replay exchange. accidents: what happens to the roles.
    """

    recording: Recording
    market: Sequence[str]
    data_dir: Path
    accidents: Sequence[Accident] = field(default=())


async def run_replay(plan: ReplayPlan) -> dict[str, Any]:
    """Play the recording through the whole path in a namespace of its own; return the verdict.

    Raises: AlphaPulseError when a server or role ends by itself, or nothing more gets stored.
    """
    settings, recording, data_dir = load_config(), plan.recording, plan.data_dir
    started = time.perf_counter()
    namespace = settings.namespace or f"replay-{uuid.uuid4().hex[:8]}"
    async with AsyncExitStack() as stack:
        progress = stack.enter_context(console_progress(sys.stderr))
        runtime = await stack.enter_async_context(start_runtime(settings, data_dir, progress))
        roles = await stack.enter_async_context(role_processes(data_dir / "logs" / namespace))
        url = await roles.start_exchange([*plan.market, "--speed", _speed(plan)])
        config = _settings(settings, runtime, recording, namespace, url)
        await ensure_topics(config)
        await _run_roles(roles, config, plan)
        ledger = await _ledger(url)
        result = await _verdict(config, recording, ledger)
    result["seconds"] = round(time.perf_counter() - started, 1)
    return result


def _speed(plan: ReplayPlan) -> str:
    # Slow enough that every accident falls into it; else as fast as the roles can.
    wanted_s = duration_s(plan.accidents)
    if not wanted_s:
        return "full"
    recording = plan.recording
    return f"{max(1.0, (recording.end_us - recording.begin_us) / 1e6 / wanted_s):.3f}"


def _settings(
    settings: Config, runtime: Runtime, recording: Recording, namespace: str, url: str
) -> Config:
    return replace(
        with_servers(settings, runtime),
        namespace=namespace,
        topics=replace(settings.topics, partitions=PARTITIONS),
        producer=replace(
            settings.producer,
            exchange=recording.exchange,
            symbols=(recording.symbol,),
            exchange_url=url,
            clock="event",
            until_us=recording.end_us,
        ),
    )


async def _run_roles(roles: RoleProcesses, config: Config, plan: ReplayPlan) -> None:
    # The producer ends by itself at the recording's end; then the others have only to catch up.
    for name in ("sink", "processor", "producer"):
        roles.start(name, name, config)
    dead = asyncio.create_task(roles.wait_dead("producer"))
    work = asyncio.create_task(_wait_until_stored(roles, config, plan))
    try:
        await asyncio.wait({dead, work}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise dead.result()
        work.result()
    finally:
        for task in (dead, work):
            task.cancel()
        await asyncio.gather(dead, work, return_exceptions=True)


async def _wait_until_stored(roles: RoleProcesses, config: Config, plan: ReplayPlan) -> None:
    await cause_accidents(plan.accidents, roles, config)
    producer = roles["producer"]
    if await producer.wait() != 0:
        raise producer.death()
    while await processor_lag(config):  # noqa: ASYNC110, the broker is asked, no event tells
        await asyncio.sleep(0.1)
    topics = {topic: None for group in _WAIT_FOR.values() for topic in group}
    committed = await count_committed(config, topics)
    client = connect(config.clickhouse)
    deadline = time.monotonic() + STORED_TIMEOUT_S
    for table, sources in _WAIT_FOR.items():
        expected = sum(committed[topic.name] for topic in sources)
        while (found := count_records(client, config.database, table)) < expected:
            if time.monotonic() > deadline:
                raise AlphaPulseError(
                    f"expected {expected} records in {config.database}.{table}, found {found} "
                    f"after {STORED_TIMEOUT_S:.0f} s; see the sink's log {roles['sink'].log}"
                )
            await asyncio.sleep(0.1)
    client.close()


async def _ledger(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_ledger") as response:
        ledger: dict[str, Any] = orjson.loads(await response.read())
        return ledger


async def _verdict(config: Config, recording: Recording, ledger: dict[str, Any]) -> dict[str, Any]:
    client = connect(config.clickhouse)
    counts = count_trades(client, config.database)
    candles = read_candles(client, config.database)
    altered = count_altered_trades(recording, read_trades(client, config.database))
    gaps = count_gaps(client, config.database)
    client.close()
    return {
        "trades": {
            "sent": ledger["symbols"][recording.symbol]["published"],
            "stored": counts.stored,
            "duplicated": counts.duplicated,
            "republished": counts.republished,
            "altered": altered,
        },
        "gaps": gaps,
        "candles": compare_with_exchange(recording, candles).as_json(),
        "rollups": compare_with_trades(recording, candles).as_json(),
    }
