"""Version N-1 and N of the contracts read each other: golden bytes, never to be written again.

golden/v1.ndjson: what the first release writes. v1-older: its writers before there were the
optional fields. v1-newer: writers that know fields which we don't. A change that makes a test here
fail breaks readers or writers out there: it is a new topic with the next version.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    ProcessorConfig,
    SinkConfig,
    TopicsConfig,
)
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kinds import EVENT_TYPES
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.topics import CANDLES, DEAD_LETTERS, GAPS, TRADES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.wire.records import EncodedRecords
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.lanes.consumer import Sink
from tests.patience import PATIENCE_S

GOLDEN = Path(__file__).parent / "golden"


def lines(version: str) -> list[bytes]:
    return (GOLDEN / f"{version}.ndjson").read_bytes().splitlines()


def raw(line: bytes) -> dict[str, Any]:
    return msgspec.json.decode(line, type=dict[str, Any])


def of_kind(version: str, kind: str) -> list[bytes]:
    return [line for line in lines(version) if raw(line)["event"] == kind]


def test_there_is_a_golden_line_of_every_event() -> None:
    tags = {kind.__struct_config__.tag for kind in EVENT_TYPES}
    assert {raw(line)["event"] for line in lines("v1")} == tags


@pytest.mark.parametrize("line", lines("v1"), ids=lambda line: raw(line)["event"])
def test_what_is_written_now_is_byte_for_byte_what_was_written_then(line: bytes) -> None:
    assert encode(decode_event(line)) == line


@pytest.mark.parametrize("version", ["v1-older", "v1-newer"])
def test_older_and_newer_writers_are_read(version: str) -> None:
    known = [decode_event(line) for line in lines("v1")]
    for line, event in zip(lines(version), known, strict=True):
        read = msgspec.to_builtins(decode_event(line))
        wanted = msgspec.to_builtins(event)
        absent = {name for name in wanted if name not in raw(line)}
        assert {k: v for k, v in read.items() if k not in absent} == {
            k: v for k, v in wanted.items() if k not in absent
        }


def older_reader(line: bytes) -> msgspec.Struct:
    """Return the event as a reader decodes it that knows only the fields of v1-older."""
    kind = next(k for k in EVENT_TYPES if k.__struct_config__.tag == raw(line)["event"])
    known = {name for old in of_kind("v1-older", raw(line)["event"]) for name in raw(old)}
    fields = [
        (field.name, field.type) if field.required else (field.name, field.type, field.default)
        for field in msgspec.structs.fields(kind)
        if field.name in known
    ]
    fields.sort(key=len)
    config = kind.__struct_config__
    reader = msgspec.defstruct("Older", fields, tag=config.tag, tag_field=config.tag_field)
    return msgspec.json.decode(line, type=reader)


@pytest.mark.parametrize("version", ["v1", "v1-newer"])
def test_an_older_reader_reads_newer_writers(version: str) -> None:
    for line in lines(version):
        older = msgspec.to_builtins(older_reader(line))
        assert older == {name: raw(line)[name] for name in older if name in raw(line)}


@pytest.mark.parametrize("version", ["v1-older", "v1", "v1-newer"])
def test_processors_admit_trades_of_every_version_byte_for_byte(version: str) -> None:
    trades = of_kind(version, "trade")
    keys = [message_key(raw(t)["exchange"], raw(t)["symbol"]) for t in trades]
    kernel = Kernel(ProcessorConfig(), "ingest.events.v1", 0)
    newest_ms = max(raw(trade)["trade_time_us"] for trade in trades) // 1000
    records = EncodedRecords.of(range(len(trades)), keys, trades)
    kernel.process(records, newest_ms, len(trades))
    outputs = kernel.drain_outputs()
    live = [(k, t) for k, t in zip(keys, trades, strict=True) if "job" not in raw(t)]
    assert not outputs.get(DEAD_LETTERS.name)
    assert [pair for pair in outputs[TRADES.name] if pair in live] == live


@pytest.fixture
async def clickhouse(runtime: Runtime, namespace: str) -> AsyncIterator[ClickHouse]:
    connection = await ClickHouse.connect(ClickHouseConfig(url=runtime.clickhouse))
    try:
        yield connection
    finally:
        await connection.command(f"DROP DATABASE IF EXISTS {Config(namespace=namespace).database}")
        await connection.close()


async def test_the_sink_stores_rows_of_every_version(
    runtime: Runtime, namespace: str, clickhouse: ClickHouse
) -> None:
    config = Config(
        namespace=namespace,
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        clickhouse=ClickHouseConfig(url=runtime.clickhouse),
        topics=TopicsConfig(partitions=1),
        sink=SinkConfig(batch_age_s_max=0.1),
    )
    await ensure_topics(config)
    publisher = Publisher(config.kafka, "golden")
    await publisher.start()
    sent = Counter[str]()
    for version in ("v1-older", "v1", "v1-newer"):
        for topic, kind, table in (
            (TRADES, "trade", "trades_log"),
            (CANDLES["1m"], "candle", "candles_log"),
            (GAPS, "gap", "gaps_log"),
        ):
            # The sinks' contract: a stored gap has been given its revision.
            values = [v for v in of_kind(version, kind) if kind == "trade" or "revision" in raw(v)]
            for value in values:
                await publisher.publish(topic.full_name(namespace), b"golden:GOLDEN/X", [value])
                sent[table] += 1
    await publisher.stop()
    assert min(sent.values()) > 2
    stop = asyncio.Event()
    sink = asyncio.create_task(Sink(config).run(stop))

    async def stored() -> Counter[str]:
        found = Counter[str]()
        exists = f"SELECT name FROM system.tables WHERE database = '{config.database}'"
        tables = {name for (name,) in await clickhouse.rows(exists)}
        for table in (*sent, "dead_letters_log"):
            if table in tables:
                sql = f"SELECT count() FROM {config.database}.{table}"
                found[table] = (await clickhouse.rows(sql))[0][0]
        return +found

    try:
        async with asyncio.timeout(PATIENCE_S):
            while sum((await stored()).values()) < sum(sent.values()) and not sink.done():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        stop.set()
        await sink
    assert await stored() == sent
