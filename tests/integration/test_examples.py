"""The example consumers and the blocks of docs/read.md, run as written against real servers.

What they read holds corrections, records that came twice, aborted transactions and zstd batches.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ClickHouseConfig, Config, KafkaConfig, TopicsConfig
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import CANDLES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.clickhouse.client import ClickHouse, PassingFault
from alpha_pulse.sinks.lanes.consumer import Sink
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
EXAMPLE_FOLDER = ROOT / "examples"
PAGE = (ROOT / "docs" / "read.md").read_text()
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# What README shows to look at the demo: commands, one a line, and a reader.
LOOK = (ROOT / "README.md").read_text().split("## Look at it")[1].split("\n## ")[0]
FIRST_COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", LOOK, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
(FIRST_READER,) = re.findall(r"^```python\n(.*?)^```$", LOOK, re.MULTILINE | re.DOTALL)
CANDLE: Any = EXAMPLES[Candle]["contiguous"]

VERSIONS = [
    msgspec.structs.replace(
        CANDLE,
        symbol=symbol,
        open_time_us=CANDLE.open_time_us + minute * 60_000_000,
        revision=(600 << 44) + revision,  # beyond 2^53: no digit may be lost on the way
        **dict.fromkeys(("open", "high", "low", "close"), f"{revision}.50"),
    )
    for symbol in ("BTC/USDT", "ETH/USDT")
    for minute in range(3)
    for revision in (2, 1, 3, 3)
]
NEWEST = {
    (c.exchange, c.symbol, c.open_time_us, c.revision, c.close, c.coverage)
    for c in VERSIONS
    if c.close == "3.50"
}


async def fill(config: Config) -> None:
    await ensure_topics(config)
    topic = CANDLES["1m"].full_name(config.namespace)
    producer = AIOKafkaProducer(
        **client_arguments(config.kafka, "test"),
        transactional_id=f"{config.namespace}.test",
        compression_type="zstd",
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted", key=b"k")
        await producer.abort_transaction()
        async with producer.transaction():
            for candle in VERSIONS:
                key = message_key(candle.exchange, candle.symbol)
                await producer.send(topic, encode(candle), key=key)
    finally:
        await producer.stop()


async def store(config: Config) -> None:
    stop = asyncio.Event()
    sink = asyncio.create_task(Sink(config).run(stop))
    clickhouse = await ClickHouse.connect(config.clickhouse)
    sql = f"SELECT count() FROM merge('{config.database}', '^candles_log$')"

    async def is_stored() -> bool:
        try:
            return bool((await clickhouse.rows(sql))[0][0] == len(VERSIONS))
        except PassingFault:
            return False  # no table yet

    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await is_stored():
                assert not sink.done()
                await asyncio.sleep(0.05)
    finally:
        stop.set()
        await sink
        await clickhouse.close()


async def drop(config: Config) -> None:
    clickhouse = await ClickHouse.connect(config.clickhouse)
    await clickhouse.command(f"DROP DATABASE IF EXISTS {config.database}")
    await clickhouse.close()


@pytest.fixture(scope="module")
def market(runtime: Runtime) -> Iterator[Config]:
    config = Config(
        namespace=f"t{uuid.uuid4().hex[:12]}",
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        clickhouse=ClickHouseConfig(url=runtime.clickhouse),
        topics=TopicsConfig(partitions=2),
    )
    config = replace(config, sink=replace(config.sink, batch_age_s_max=0.1))
    asyncio.run(fill(config))
    asyncio.run(store(config))
    yield config
    asyncio.run(drop(config))


def environment(config: Config) -> dict[str, str]:
    return {
        **os.environ,
        "ALPHA_PULSE_KAFKA": config.kafka.bootstrap,
        "ALPHA_PULSE_CLICKHOUSE": config.clickhouse.url,
        "ALPHA_PULSE_NAMESPACE": config.namespace,
    }


def run(config: Config, *command: str) -> str:
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(config),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}, which is not installed here")


def newest_of(lines: list[str]) -> set[tuple[str, str, int, int, str, str]]:
    """Return what stands after lines of exchange, symbol, open time, revision, close, coverage."""
    found: dict[tuple[str, str, int], tuple[str, str, int, int, str, str]] = {}
    for line in lines:
        exchange, symbol, time, revision, close, coverage = line.split("\t")
        key = (exchange, symbol, int(time))
        if key in found:
            assert int(revision) > found[key][3], "printed once more, or an older revision"
        found[key] = (*key, int(revision), close, coverage)
    return set(found.values())


def test_the_python_example_ends_with_the_newest_revision_of_each_candle(market: Config) -> None:
    script = EXAMPLE_FOLDER / "python" / "newest_candles.py"
    output = run(market, sys.executable, str(script), "--until-end")
    assert newest_of(output.splitlines()) == NEWEST


def test_the_kcat_example_prints_every_committed_record(market: Config) -> None:
    need("kcat")
    output = run(market, "sh", str(EXAMPLE_FOLDER / "kcat" / "candles.sh"), "-e")
    assert sorted(output.splitlines()) == sorted(encode(candle).decode() for candle in VERSIONS)


def test_the_node_example_ends_with_the_newest_revision_of_each_candle(
    market: Config, tmp_path: Path
) -> None:
    need("node")
    need("npm")
    folder = tmp_path / "node"
    shutil.copytree(EXAMPLE_FOLDER / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    install = subprocess.run(
        ["npm", "ci", "--silent", "--prefer-offline", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if install.returncode != 0:
        pytest.skip(f"needs npm's registry: {install.stderr.strip()[:200]}")
    process = subprocess.Popen(
        ["node", "newest-candles.js"],
        cwd=folder,
        env=environment(market),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if newest_of(lines) == NEWEST:
                break
        assert newest_of(lines) == NEWEST
    finally:
        process.terminate()
        assert process.wait(20) == 0


def as_it_runs_here(market: Config, block: str) -> str:
    """A block with the addresses and names of this test in the places of the demo's."""
    here = {
        ".venv/bin/": f"{Path(sys.executable).parent}/",
        "127.0.0.1:19092": market.kafka.bootstrap,
        "http://127.0.0.1:8123": market.clickhouse.url,
        "database=alpha_pulse": f"database={market.database}",
        "-t market.": f"-t {market.namespace}.market.",
        "Config(kafka": f"Config(namespace={market.namespace!r}, kafka",
    }
    for written, real in here.items():
        block = block.replace(written, real)
    return block


@pytest.mark.parametrize(
    ("language", "block"),
    [(kind, text) for kind, text in BLOCKS if "npm" not in text],
    ids=lambda text: re.sub(r"\W+", "-", text)[:30],
)
def test_a_block_of_the_page_runs_as_written(market: Config, language: str, block: str) -> None:
    block = as_it_runs_here(market, block)
    if language == "sh":
        need(next(word for word in block.split() if "=" not in word))
        output = run(market, "sh", "-eu", "-c", block)
    else:
        output = run(market, sys.executable, "-c", block)
    lines = [line for line in output.splitlines() if "BTC/USDT" in line or "ETH/USDT" in line]
    assert lines
    assert any("3.5" in line for line in lines), output
    assert all("contiguous" in line for line in lines)


@pytest.mark.parametrize("command", FIRST_COMMANDS, ids=lambda text: text.split()[0])
def test_a_command_of_the_readme_runs_as_written(market: Config, command: str) -> None:
    command = as_it_runs_here(market, command)
    need(command.split()[0])
    output = run(market, "sh", "-eu", "-c", command)
    if "FROM latest " in command:
        assert output == "", "there are candles only here: an error would be text"
    else:
        assert "BTC/USDT" in output
        assert "contiguous" in output


def test_the_reader_of_the_readme_prints_candles_as_they_come(market: Config) -> None:
    block = as_it_runs_here(market, FIRST_READER)
    reading = subprocess.Popen(
        [sys.executable, "-u", "-c", block],
        env=environment(market),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert reading.stdout is not None
        found = {tuple(reading.stdout.readline().split()[::3]) for _ in VERSIONS}
    finally:
        reading.terminate()
        reading.wait(20)
    assert found == {("BTC/USDT", "contiguous"), ("ETH/USDT", "contiguous")}


def test_every_block_of_the_page_is_run() -> None:
    assert [command.split()[0] for command in FIRST_COMMANDS] == [
        ".venv/bin/alpha-pulse",
        "kcat",
        "curl",
    ]
    assert len(BLOCKS) == 6
    assert [text for _, text in BLOCKS if "npm" in text] == [
        "cd examples/node && npm ci --silent && ALPHA_PULSE_KAFKA=127.0.0.1:19092 npm start\n"
    ]
    assert json.loads((EXAMPLE_FOLDER / "node" / "package.json").read_text())["scripts"] == {
        "start": "node newest-candles.js"
    }
