"""How fast an exchange's frames become Kafka records: our producer, ccxt.pro, cryptofeed.

`python -m benchmarks producers [--exchange ID] [--trades N] [--json]`: for every exchange with a
decoder of its own, a local server floods each contender in turn with the same trades (prices of
Binance's recording, where ALPHA_PULSE_RECORDINGS is set) and one Kafka takes the records. Counted
are records per second of CPU of the contender's own process. cryptofeed is asked for Binance alone;
it runs in an environment of its own, made by pip on the first run; where that fails it is left out,
in words.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alpha_pulse.contracts.config import Config, KafkaConfig, TopicsConfig
from alpha_pulse.contracts.events import Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.topics import DEAD_LETTERS, INGEST, Topic
from alpha_pulse.embedded.runtime import Runtime
from benchmarks.processes import serving

HERE = Path(__file__).parent
CRYPTOFEED = "cryptofeed==2.4.1"
# Enough for a steady rate, few enough for contenders that take 100 µs and more each.
PEER_TRADES = {"ccxt": 30_000, "cryptofeed": 5_000}
# Trades of a frame, as recorded frames have them: Binance's, OKX's and Bybit's hold one, Kraken's
# and Coinbase's two. Kraken's trades, by order, are 1.75 in the mean.
TRADES_PER_FRAME = {
    "binance": 1,
    "binanceusdm": 1,
    "okx": 1,
    "bybit": 1,
    "kraken": 2,
    "coinbase": 2,
}
# Whose figures stand for all where there is room for one.
FIRST = "binance"
RUN_S_MAX = 600.0
PEER_TOPICS = tuple(Topic(name, (Trade,), "of a peer") for name in ("ccxt", "cryptofeed"))
_TRADE_ID = re.compile(rb'"trade_id":"([0-9]+)"')


@dataclass(frozen=True)
class FloodOf:
    """Which exchange floods, with how many trades in a frame."""

    exchange: str
    per_frame: int


@dataclass(frozen=True)
class Result:
    """One contender. rss_mib: resident memory after each number of records."""

    name: str
    trades: int
    records: int
    cpu_s: float
    records_per_cpu_s: int
    rss_mib: dict[str, float]


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code: 0 when nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks producers", description=__doc__)
    parser.add_argument(
        "--exchange", choices=(*TRADES_PER_FRAME, "all"), default="all", help="one, or all"
    )
    parser.add_argument("--trades", type=int, default=1_000_000, help="of our own run")
    parser.add_argument("--trades-per-frame", type=int, help="not the usual number")
    parser.add_argument("--rounds", type=int, default=3, help="of all contenders; medians count")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args(arguments)
    exchanges = list(TRADES_PER_FRAME) if options.exchange == "all" else [options.exchange]
    per_frame = {name: options.trades_per_frame or TRADES_PER_FRAME[name] for name in exchanges}
    summary = asyncio.run(run(per_frame, options.trades, options.rounds))
    if options.json:
        print(json.dumps(summary))
    return 0 if summary["lost"] == 0 and summary["duplicated"] == 0 else 1


async def run(per_frame: dict[str, int], trades: int, rounds: int) -> dict[str, Any]:
    """Run all contenders one after the other, so many rounds of each exchange.

    Args:
        per_frame: exchanges, and how many trades their frames hold.
        trades: of our own run; the peers have fewer.
        rounds: medians count.

    Returns:
        The figures by exchange; those of Binance, where it is among them, stand for all too.
    """
    python = await asyncio.to_thread(cryptofeed_python) if FIRST in per_frame else None
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="producers-bench-") as directory:
        kafka = os.environ.get("ALPHA_PULSE_KAFKA")
        async with Runtime.start(
            Path(directory), kafka=kafka, clickhouse="unused", kafka_port=0
        ) as runtime:
            for exchange, count in per_frame.items():
                pythons = {"ours": sys.executable, "ccxt": sys.executable}
                if python and exchange == FIRST:
                    pythons["cryptofeed"] = python
                flood = FloodOf(exchange, count)
                found[exchange] = await run_exchange(flood, pythons, runtime.kafka, trades, rounds)
    # What the README's table shows is of all exchanges.
    whole = set(found) == set(TRADES_PER_FRAME)
    return {
        **found.get(FIRST, {}),
        "exchanges" if whole else "some_exchanges": found,
        "lost": sum(one["lost"] for one in found.values()),
        "duplicated": sum(one["duplicated"] for one in found.values()),
    }


async def run_exchange(
    flood: "FloodOf", pythons: dict[str, str], kafka: str, trades: int, rounds: int
) -> dict[str, Any]:
    """Run the contenders of one exchange; return its figures."""
    results: list[Result] = []
    lost = duplicated = 0
    for _ in range(rounds):
        config = Config(
            namespace=f"bench-{uuid.uuid4().hex[:8]}",
            kafka=KafkaConfig(bootstrap=kafka),
            topics=TopicsConfig(partitions=1),
        )
        await ensure_topics(config, [INGEST, DEAD_LETTERS, *PEER_TOPICS])
        for name, python in pythons.items():
            count = PEER_TRADES.get(name, trades)
            results.append(await contend(name, python, config, flood, count))
        missing, twice = await check(config, trades)
        lost, duplicated = lost + missing, duplicated + twice
    return {
        "trades_per_frame": flood.per_frame,
        "contenders": [asdict(result) for result in results],
        **rates_of(results),
        "lost": lost,
        "duplicated": duplicated,
        "rss_growth": max(growth(r.rss_mib) for r in results if r.name == "ours"),
    }


def rates_of(results: list[Result]) -> dict[str, Any]:
    """Return the median rate of each, their spread, and ours as a multiple of the others."""
    rates: dict[str, list[int]] = {}
    for result in results:
        rates.setdefault(result.name, []).append(result.records_per_cpu_s)
    median = {name: round(statistics.median(found)) for name, found in rates.items()}
    return {
        "records_per_cpu_s": median,
        "spread": {name: [min(found), max(found)] for name, found in rates.items()},
        "times": {
            name: round(median["ours"] / rate, 1) for name, rate in median.items() if name != "ours"
        },
    }


def growth(rss_mib: dict[str, float]) -> float:
    """Return by how much memory grew from the first figure to the last, as a share."""
    figures = list(rss_mib.values())
    return round(figures[-1] / figures[0] - 1, 3)


async def contend(name: str, python: str, config: Config, flood: FloodOf, trades: int) -> Result:
    """Flood one contender in a process of its own; return what it measured."""
    script = HERE / "producers_flood.py"
    async with serving(script, flood.exchange, trades, flood.per_frame) as url:
        process = await asyncio.create_subprocess_exec(
            python,
            str(HERE / f"producers_{name}.py"),
            url,
            config.kafka.bootstrap,
            config.namespace,
            str(trades),
            flood.exchange,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), RUN_S_MAX)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        raise SystemExit(f"expected {name} to run, found: {errors.decode()[-4000:]}")
    measured = json.loads(output.decode().splitlines()[-1])
    result = Result(
        name=name,
        trades=trades,
        records=measured["records"],
        cpu_s=round(measured["cpu_s"], 2),
        records_per_cpu_s=round(measured["records"] / measured["cpu_s"]),
        rss_mib=measured.get("rss_mib", {}),
    )
    print(
        f"{flood.exchange:12} {name:10} {result.records:>9,} records {result.cpu_s:>8} s CPU "
        f"{result.records_per_cpu_s:>9,} records/CPU-s {result.rss_mib or ''}",
        file=sys.stderr,
    )
    return result


async def check(config: Config, trades: int) -> tuple[int, int]:
    """Read the log back; return how many trades are lost and how many stand twice."""
    consumer = batch_consumer(config.kafka, "bench-check", group_id=None)
    consumer.subscribe([INGEST.full_name(config.namespace)])
    await consumer.start()
    ids: list[int] = []
    try:
        await consumer.seek_to_beginning()
        partitions = consumer.assignment()
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for batches in (await consumer.getmany(timeout_ms=500)).values():
                for batch in batches:
                    found = _TRADE_ID.findall(b"\n".join(value or b"" for value in batch.values))
                    ids += map(int, found)
    finally:
        await consumer.stop()
    if ids != sorted(ids):
        raise SystemExit("expected trades in id order, found another order in the log")
    return trades - len(set(ids)), len(ids) - len(set(ids))


def cryptofeed_python() -> str | None:
    """Return the Python of an environment with cryptofeed, made on the first run; None: no way."""
    folder = Path(os.environ.get("ALPHA_PULSE_DATA_DIR", ".alpha-pulse")) / "bench-cryptofeed"
    python = folder / "bin" / "python"
    if python.exists() and _succeeds(str(python), "-c", "import cryptofeed, aiokafka"):
        return str(python)
    made = _succeeds(sys.executable, "-m", "venv", "--clear", str(folder)) and _succeeds(
        str(python), "-m", "pip", "install", "-q", CRYPTOFEED, "aiokafka", "uvloop"
    )
    if made:
        return str(python)
    print(f"cryptofeed is left out: pip could not install {CRYPTOFEED}", file=sys.stderr)
    return None


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
