"""`make soak MINUTES=60 [SEED=…]`: everything runs, things go wrong at random, nothing is lost.

The replay exchange plays a seeded market; `alpha-pulse up` runs one producer, two processors and a
sink on an embedded Kafka and ClickHouse. Accidents come at times that follow from the seed. At the
end they stop, and what the exchange printed is held against Kafka and ClickHouse. Prints each
accident as it happens and one JSON object at last; exit code 0 only when all of it holds. What
failed is left where the last line says: logs, ledger, data directory.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from alpha_pulse.cli.pipeline.stored import connect
from alpha_pulse.cli.replay.accidents import Accident
from alpha_pulse.replay.exchange.server import ReplayExchange
from tests.faults.soak.found import newest_minutes, unseen
from tests.faults.soak.judge import judge, ledger_of
from tests.faults.soak.pipeline import Load, Pipeline
from tests.faults.soak.plan import SCENARIOS, plan_scenario, plan_soak
from tests.faults.soak.samples import Samples, read_process

SAMPLE_INTERVAL_S = 2.0
START_S_MAX = 600.0  # a busy machine starts Kafka and four roles in minutes
KAFKA_DISK_MIB = 150
HEAL_S_MAX = 60.0
MINUTE_US = 60_000_000


def main() -> int:
    """Run one soak; return 0 when nothing was lost, doubled or different, and all stayed flat."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="with accidents")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--rate", type=float, default=400.0, help="trades a second, all symbols")
    parser.add_argument("--symbols", type=int, default=8, choices=range(1, 13), metavar="1-12")
    parser.add_argument(
        "--scenario", help=f"instead of random accidents: {', '.join(SCENARIOS)}, kill, terminate"
    )
    parser.add_argument("--times", type=int, default=20, help="of a scenario that repeats")
    parser.add_argument("--keep", action="store_true", help="leave the data of a good run too")
    options = parser.parse_args()
    load = Load(options.symbols, options.rate, options.seed)
    if options.scenario:
        plan = plan_scenario(options.scenario, options.seed, times=options.times)
        seconds = max(accident.at_s + accident.seconds for accident in plan)
    else:
        seconds = options.minutes * 60
        plan = plan_soak(options.seed, seconds)
    directory = Path(tempfile.mkdtemp(prefix="alpha-pulse-soak-"))
    summary = soak(directory, load, plan, seconds)
    print(orjson.dumps(summary).decode(), flush=True)
    if summary["failures"] or options.keep:
        say(f"{'FAILED' if summary['failures'] else 'kept'}: {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if summary["failures"] else 0


def soak(directory: Path, load: Load, plan: Sequence[Accident], seconds: float) -> dict[str, Any]:
    """Run a plan under a directory and return the summary: `failures` is empty when all holds."""
    say(f"SEED={load.seed}, {load.symbols} symbols, {load.rate:g} trades/s, {directory}")
    summary: dict[str, Any] = {**asdict(load), "seconds": seconds, "failures": ["was interrupted"]}
    try:
        asyncio.run(Soak(directory, load, plan, seconds).run(summary))
    except Exception as error:
        traceback.print_exc()
        summary["failures"] = [f"{type(error).__name__}: {error}"]
    finally:
        summary["left_processes"] = left = processes_of(directory)
        summary["failures"] += [f"left running: {left}"] if left else []
        (directory / "summary.json").write_bytes(orjson.dumps(summary))
    return summary


class Soak:
    """One run: start, accidents, calm, verdict."""

    def __init__(
        self, directory: Path, load: Load, plan: Sequence[Accident], seconds: float
    ) -> None:
        self._directory = directory
        self._load = load
        self._seconds = seconds
        self._plan = plan
        self._samples = Samples()
        self._happened: list[dict[str, Any]] = []

    async def run(self, summary: dict[str, Any]) -> None:
        """Fill in the summary; raises when the pipeline could not run at all."""
        summary["accidents"] = self._happened
        fills = any(accident.kind == "full" for accident in self._plan)
        three_nodes = any(accident.kind == "kill leader" for accident in self._plan)
        start = Pipeline.start(
            self._directory,
            self._load,
            kafka_disk_mib=KAFKA_DISK_MIB if fills else 0,
            three_nodes=three_nodes,
        )
        async with start as pipeline:
            try:
                await self._run_in(pipeline, summary)
            finally:
                report = pipeline.exchange.ledger.report(with_sha256=True)
                (self._directory / "ledger.json").write_bytes(orjson.dumps(report))

    async def _run_in(self, pipeline: Pipeline, summary: dict[str, Any]) -> None:
        await self._until_all_is_stored(pipeline, START_S_MAX)
        self._started = time.monotonic()
        sampling = asyncio.create_task(self._sample(pipeline))
        await self._go_wrong(pipeline)
        say(f"accidents are over; waiting {HEAL_S_MAX:.0f} s at most until unseen is 0")
        summary["unseen"], summary["healed_s"] = await self._until_all_is_stored(
            pipeline, HEAL_S_MAX, then_minutes=True
        )
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
        summary["flat"] = self._samples.verdict(self._elapsed())
        ledger = ledger_of(pipeline.exchange)
        summary["exit_code"] = await pipeline.stop()
        summary["terminated_s"] = pipeline.roles.endings_s
        summary["reconnected_s"] = pipeline.reconnected_s
        if pipeline.disk is not None:
            summary["kafka_exited"] = pipeline.disk.kafka_exited
        summary["faults_met"] = len(pipeline.exchange.faults.applied)
        await judge(pipeline, ledger, self._plan, summary)

    async def _go_wrong(self, pipeline: Pipeline) -> None:
        async with asyncio.TaskGroup() as group:
            for accident in self._plan:
                await asyncio.sleep(max(0.0, accident.at_s - self._elapsed()))
                self._happened.append(asdict(accident))
                lasts = f" for {accident.seconds:.1f} s" if accident.seconds else ""
                say(f"{accident.at_s:7.1f} s  {accident.role}: {accident.kind}{lasts}")
                group.create_task(pipeline.cause(accident))
            await asyncio.sleep(max(0.0, self._seconds - self._elapsed()))

    async def _until_all_is_stored(
        self, pipeline: Pipeline, seconds_max: float, *, then_minutes: bool = False
    ) -> tuple[int, float]:
        """Wait until what is printed by now is stored; return how much is not, and how long."""
        begun = time.monotonic()
        exchange, config = pipeline.exchange, pipeline.direct()
        async with asyncio.timeout(START_S_MAX):
            while not _flowing(exchange):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        wanted = {symbol: published.ids for symbol, published in ledger_of(exchange).items()}
        last_minute_us = (exchange.conductor.now_us // MINUTE_US - 1) * MINUTE_US
        client = await asyncio.to_thread(connect, config.clickhouse)
        missing = -1
        while time.monotonic() < begun + seconds_max:
            tables = await asyncio.to_thread(_tables, client, config.database)
            if {"trades_log", "candles_log", "gaps"} <= tables:
                missing = await asyncio.to_thread(unseen, client, config.database, wanted)
                minutes = await asyncio.to_thread(newest_minutes, client, config.database)
                closed = all(minutes.get(symbol, 0) >= last_minute_us for symbol in wanted)
                if missing == 0 and (closed or not then_minutes):
                    break
            await asyncio.sleep(0.5)
        client.close()
        return missing, round(time.monotonic() - begun, 1)

    async def _sample(self, pipeline: Pipeline) -> None:
        while True:
            for name, pid in pipeline.roles.pids().items():
                values = read_process(pid)
                if values:
                    self._samples.add(name, self._elapsed(), values)
            await asyncio.sleep(SAMPLE_INTERVAL_S)

    def _elapsed(self) -> float:
        return time.monotonic() - self._started


def processes_of(directory: Path) -> list[str]:
    """Return the processes that were started with this data directory and still run."""
    wanted = str(directory).encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
        except OSError:
            continue
    return found


def say(line: str) -> None:
    """Tell how it goes."""
    print(line, file=sys.stderr, flush=True)


def _flowing(exchange: ReplayExchange) -> bool:
    return all(feed.watched and feed.published > feed.begin for feed in exchange.feeds)


def _tables(client: Any, database: str) -> set[str]:
    rows = client.query(
        "SELECT name FROM system.tables WHERE database = {database:String}",
        parameters={"database": database},
    ).result_rows
    return {name for (name,) in rows}


if __name__ == "__main__":
    sys.exit(main())
