"""Trades to candles: our processor, Kafka Streams, Quix Streams and textbook Faust, in one run.

`python -m benchmarks processors [--trades N] [--symbols N,…] [--workers N,…] [--only NAMES]`: each
reads the same topic of one Kafka and writes valid trades and candles. Ours and Kafka Streams
write 1m to 1d; the two slow ones write 1m only, and textbook Faust gets 20,000 trades, because it
would need an hour for more. What counts is trades per CPU-second of the process (with the JVM's
compiler and collector threads), from being ready to the last commit; wall time is noisy, and the
machine's load is printed beside it. `--symbols 10,200,5000 --workers 1,2 --only ours` shows how
ours scales.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import aiokafka
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.partitioner import DefaultPartitioner

from alpha_pulse.contracts.config import Config, KafkaConfig, TopicsConfig, config_environment
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.roles.batches import fill_batch
from alpha_pulse.contracts.topics import CANDLES, INGEST, TRADES
from alpha_pulse.embedded.runtime import Runtime
from benchmarks.processors_workload import CHECKED, Workload, compare, make_workload

HERE = Path(__file__).parent
PARTITIONS = 4
SLOW_S_MAX = 40.0
FAUST_TRADES = 20_000
FAUST_S_MAX = 120.0
PATH_S_MAX = 400.0
POLL_S = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Result:
    """One processor.

    exact: candles equal to the reference, of those expected; `cut off` when time ran out. load: of
    the machine over the last minute, everything together.
    """

    name: str
    symbols: int
    workers: int
    trades: int
    trades_per_cpu_s: int
    trades_per_s: int
    rss_mib: int
    exact: str
    trades_out: int
    load: float


@dataclass(frozen=True)
class Contender:
    """A way to do the work: its command, and what of the outputs it writes.

    trades_max: the workload is cut to so many.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    group: str
    namespace: str
    ready: str
    timeframes: Sequence[str]
    seconds_max: float
    processes: int = 1
    trades_max: int | None = None


def numbers(text: str) -> list[int]:
    """Return the numbers of a text such as `10,200`."""
    return [int(number) for number in text.split(",")]


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks processors", description=__doc__)
    parser.add_argument("--trades", type=int, default=2_000_000)
    parser.add_argument("--symbols", type=numbers, default=[200], help="one or several")
    parser.add_argument("--workers", type=numbers, default=[1], help="of ours")
    parser.add_argument("--only", default="", help="names with commas, such as ours,streams-eos")
    parser.add_argument("--kafka", default=os.environ.get("ALPHA_PULSE_KAFKA", ""))
    parser.add_argument(
        "--quix-python", default=os.environ.get("QUIX_PYTHON", sys.executable),
        help="one that has quixstreams",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args(arguments)
    results = asyncio.run(run(options))
    if options.json:
        found = [asdict(result) for result in results]
        print(json.dumps({"results": found, "times": times_of(results)}))
    wrong = [r for r in results if r.name == "ours" and not is_exact(r)]
    return 1 if wrong else 0


def times_of(results: list[Result]) -> dict[str, float]:
    """Return how many times faster our first result is than each peer and each other form."""
    ours = next((result for result in results if result.name == "ours"), None)
    if ours is None:
        return {}
    times = {}
    for result in results:
        name = result.name
        if (result.symbols, result.workers) != (ours.symbols, ours.workers):
            name += f", {result.symbols} symbols, {result.workers} workers"
        if result is not ours and result.trades_per_cpu_s:
            times[name] = round(ours.trades_per_cpu_s / result.trades_per_cpu_s, 2)
    return times


def is_exact(result: Result) -> bool:
    """Return whether every expected candle was published, and equal."""
    equal, _, expected = result.exact.partition("/")
    return equal == expected


async def run(options: argparse.Namespace) -> list[Result]:
    """Make the workload, publish it once per contender, and measure one after the other."""
    directory = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        # ClickHouse is not needed: an address that nobody asks.
        async with Runtime.start(
            directory, kafka=options.kafka or None, clickhouse="http://127.0.0.1:1", kafka_port=0
        ) as runtime:
            results = []
            for symbols in options.symbols:
                workload = make_workload(options.trades, symbols)
                for contender in await contenders(runtime.kafka, options, directory):
                    mine = workload
                    if contender.trades_max is not None and contender.trades_max < options.trades:
                        mine = make_workload(contender.trades_max, symbols)
                        say(f"{contender.name}: {contender.trades_max:,} trades only")
                    result = await measure(runtime.kafka, contender, mine, symbols)
                    results.append(result)
                    say(line_of(result))
            return results
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def line_of(result: Result) -> str:
    """Return a result as a person reads it."""
    return (
        f"{result.name:12} {result.symbols:>5} symbols {result.workers} workers "
        f"{result.trades_per_cpu_s:>9,} trades/CPU-s {result.trades_per_s:>9,}/s "
        f"{result.rss_mib:>5} MiB  exact {result.exact}  load {result.load}"
    )


async def contenders(kafka: str, options: argparse.Namespace, directory: Path) -> list[Contender]:
    """Return who takes part; who can't is named with the reason."""
    wanted = [name for name in options.only.split(",") if name]
    found: list[Contender] = []

    def enters(name: str) -> bool:
        return not wanted or name in wanted

    def spaces(name: str) -> str:
        return f"bench{time.monotonic_ns()}-{name}"

    for workers in options.workers if enters("ours") else ():
        config = config_of(kafka, spaces("ours"), str(directory / f"ours-{workers}"))
        found.append(
            Contender(
                "ours", [sys.executable, "-m", "alpha_pulse.processors"],
                config_environment(config), config.named(config.processor.group),
                config.namespace, "partitions.assigned", CHECKED, PATH_S_MAX, workers,
            )
        )  # fmt: skip
    streams = ("streams-eos", "exactly_once_v2", "true"), ("streams-alos", "at_least_once", "false")
    if any(enters(name) for name, _, _ in streams):
        classpath = await build_streams(directory)
        for name, guarantee, dedupe in streams:
            if classpath and enters(name):
                space = spaces(name)
                command = ["java", "-Xmx1g", "-cp", classpath, "Candles", kafka, f"{space}-app"]
                found.append(
                    Contender(
                        name, [*command, space, guarantee, dedupe, "1"], {}, f"{space}-app",
                        space, "READY", CHECKED, PATH_S_MAX,
                    )
                )  # fmt: skip
    if enters("quix"):
        space = spaces("quix")
        if await has_quix(options.quix_python):
            command = [options.quix_python, str(HERE / "processors_quix.py"), kafka, f"{space}-app"]
            found.append(
                Contender(
                    "quix", [*command, space], {}, f"{space}-app", space, "READY", ("1m",),
                    SLOW_S_MAX,
                )
            )  # fmt: skip
        else:
            say("quix: skipped, quixstreams is not installed; name a Python with it as QUIX_PYTHON")
    if enters("faust"):
        space = spaces("faust")
        command = [sys.executable, str(HERE / "processors_faust.py"), kafka, f"{space}-app", space]
        found.append(
            Contender(
                "faust", [*command, str(PARTITIONS)], {}, f"{space}-app", space, "READY", ("1m",),
                FAUST_S_MAX, trades_max=FAUST_TRADES,
            )
        )  # fmt: skip
    return found


def config_of(kafka: str, namespace: str, data_dir: str) -> Config:
    """Return our settings: everything on that the peers do too, what only we do off."""
    config = Config(
        namespace=namespace,
        data_dir=data_dir,
        kafka=KafkaConfig(bootstrap=kafka),
        topics=TopicsConfig(partitions=PARTITIONS),
    )
    return replace(config, processor=replace(config.processor, open_candles=False, audits=False))


async def build_streams(directory: Path) -> str:
    """Return the class path of the built Kafka Streams program; empty when it can't be built."""
    if not (shutil.which("mvn") and shutil.which("javac")):
        say("streams-*: skipped, no JDK with Maven on this machine")
        return ""
    source = directory / "kafka_streams"
    shutil.copytree(HERE / "kafka_streams", source)
    process = await asyncio.create_subprocess_exec(
        "mvn", "-q", "-B", "compile", "dependency:copy-dependencies", cwd=source,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode:
        say(f"streams-*: skipped, the build failed: {output.decode()[-500:]}")
        return ""
    return f"{source / 'target' / 'classes'}:{source / 'target' / 'dependency'}/*"


async def has_quix(python: str) -> bool:
    """Return whether that Python can import quixstreams."""
    process = await asyncio.create_subprocess_exec(
        python, "-c", "import quixstreams", stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


class Log:
    """Where a contender writes to."""

    def __init__(self) -> None:
        descriptor, name = tempfile.mkstemp(prefix="benchmark-", suffix=".log")
        self.file = os.fdopen(descriptor, "wb")
        self._path = Path(name)

    def text(self) -> str:
        """Return what was written so far."""
        return self._path.read_text(errors="replace")

    def close(self) -> None:
        """Remove it."""
        self.file.close()
        self._path.unlink()


async def measure(kafka: str, contender: Contender, workload: Workload, symbols: int) -> Result:
    """Publish the workload for a contender, let it work, and look at what it wrote."""
    config = config_of(kafka, contender.namespace, "")
    await ensure_topics(config)
    total = await publish(config, workload)
    log = Log()
    processes = []
    try:
        for _ in range(contender.processes):
            process = await asyncio.create_subprocess_exec(
                *contender.command,
                env={**os.environ, **contender.environment},
                stdout=log.file,
                stderr=log.file,
            )
            processes.append(process)
        pids = [process.pid for process in processes]
        await ready(log, contender, processes)
        cpu_s, started_s = sum(map(cpu_of, pids)), time.perf_counter()
        until_s = started_s + contender.seconds_max
        done = await committed(config, contender, total, workload.trades, until_s)
        took_s = time.perf_counter() - started_s
        cpu_s = sum(map(cpu_of, pids)) - cpu_s
        load = round(os.getloadavg()[0], 1)
        rss = max(map(rss_mib, pids))
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
        for process in processes:
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()
        log.close()
    published = {
        name: await read_all(config, CANDLES[name].full_name(config.namespace))
        for name in contender.timeframes
    }
    trades = len(await read_all(config, TRADES.full_name(config.namespace)))
    equal, expected = compare(workload, published)
    exact = f"{equal}/{expected}"
    if done < total:
        # What was published was processed, also where the commit lags behind.
        done, exact = max(done, trades), "cut off"
    return Result(
        contender.name, symbols, contender.processes, done, round(done / cpu_s),
        round(done / took_s), rss, exact, trades, load,
    )  # fmt: skip


async def publish(config: Config, workload: Workload) -> int:
    """Write the ingest log; return how many records it has."""
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=config.kafka.bootstrap, compression_type="zstd",
        max_batch_size=900_000, max_request_size=1_000_000, linger_ms=0, enable_idempotence=True,
    )  # fmt: skip
    await producer.start()
    try:
        partitioner, numbers = DefaultPartitioner(), list(range(PARTITIONS))
        home = {key: partitioner(key, numbers, numbers) for key, _ in set_of_keys(workload)}
        parts: dict[int, list[tuple[bytes, bytes]]] = {number: [] for number in numbers}
        for record in workload.records:
            parts[home[record[0]]].append(record)
        topic = INGEST.full_name(config.namespace)
        for number, records in parts.items():
            start = 0
            while start < len(records):
                batch, count = fill_batch(producer, records[start : start + 10_000])
                await (await producer.send_batch(batch, topic, partition=number))
                start += count
    finally:
        await producer.stop()
    return len(workload.records)


def set_of_keys(workload: Workload) -> set[tuple[bytes, None]]:
    """Return the keys of a workload."""
    return {(key, None) for key, _ in workload.records}


async def ready(
    log: "Log", contender: Contender, processes: list[asyncio.subprocess.Process]
) -> None:
    """Return once the log says that every process has begun."""
    async with asyncio.timeout(120):
        while log.text().count(contender.ready) < contender.processes:
            if any(process.returncode is not None for process in processes):
                raise RuntimeError(f"{contender.name} ended: {log.text()[-2000:]}")
            await asyncio.sleep(POLL_S)


async def committed(
    config: Config, contender: Contender, total: int, unique: int, until_s: float
) -> int:
    """Return how many records were committed: all of them, or what the time was enough for."""
    topic = INGEST.full_name(config.namespace)
    parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=config.kafka.bootstrap)
    await admin.start()
    await consumer.start()
    try:
        ends = await consumer.end_offsets(parts)
        # Textbook Faust stops committing while it goes on: then its outputs say that it is done.
        outputs = [
            TopicPartition(TRADES.full_name(config.namespace), number)
            for number in range(PARTITIONS)
        ]
        while True:
            if contender.trades_max is not None:
                written = sum((await consumer.end_offsets(outputs)).values())
                if written >= unique:
                    return total
            offsets = await admin.list_consumer_group_offsets(contender.group, partitions=parts)
            found = {part: max(offsets[part].offset, 0) for part in parts if part in offsets}
            if all(found.get(part, 0) >= ends[part] for part in parts):
                return total
            if time.perf_counter() > until_s:
                return sum(found.values())
            await asyncio.sleep(POLL_S)
    finally:
        await consumer.stop()
        await admin.close()


async def read_all(config: Config, topic: str) -> list[tuple[bytes, bytes]]:
    """Return the committed records of a topic, in order per partition."""
    parts = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    # A transaction that is committed becomes visible a little later; the log's end tells.
    async with aiokafka.AIOKafkaConsumer(bootstrap_servers=config.kafka.bootstrap) as any_consumer:
        ends = await any_consumer.end_offsets(parts)
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=config.kafka.bootstrap, isolation_level="read_committed",
        auto_offset_reset="earliest", enable_auto_commit=False,
        max_partition_fetch_bytes=8 * 2**20,
    )  # fmt: skip
    consumer.assign(parts)
    await consumer.start()
    try:
        records: list[tuple[bytes, bytes]] = []
        for part in parts:
            while await consumer.position(part) < ends[part]:
                found = await consumer.getmany(part, timeout_ms=200)
                records += [(record.key, record.value) for record in found.get(part, [])]
        return records
    finally:
        await consumer.stop()


def cpu_of(pid: int) -> float:
    """Return the CPU time that a process used so far, all threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid: int) -> int:
    """Return the most memory that a process had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def say(text: str) -> None:
    """Tell a person how it goes."""
    print(text, file=sys.stderr, flush=True)
