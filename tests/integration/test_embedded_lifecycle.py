"""Both servers keep their data, whatever ends them, and leave no process behind."""

import asyncio
import os
import sys
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from alpha_pulse.embedded.data_dir import DataDir
from alpha_pulse.embedded.errors import ChildDiedError, DataDirError
from alpha_pulse.embedded.ports import free_port, listen
from alpha_pulse.embedded.runtime import Runtime
from tests.patience import PATIENCE_S

TOPIC = "kept"
# A process that starts a runtime, says where it is, and waits to be killed.
RUN_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from alpha_pulse.embedded.runtime import Runtime

async def main():
    async with Runtime.start(Path(sys.argv[1]), kafka_port=0, clickhouse_port=0) as runtime:
        print(runtime.kafka, runtime.clickhouse, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def sql(url: str, text: str) -> str:
    async with aiohttp.ClientSession() as session, session.post(url, data=text) as response:
        answer = await response.text()
        assert response.status == 200, answer
        return answer.strip()


async def write(kafka: str, clickhouse: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for number in range(3):
            await producer.send_and_wait(TOPIC, str(number).encode())
    await sql(clickhouse, "CREATE DATABASE kept")
    await sql(clickhouse, "CREATE TABLE kept.rows (n UInt64) ENGINE = MergeTree ORDER BY n")
    await sql(clickhouse, "INSERT INTO kept.rows SELECT number FROM numbers(1000)")


async def assert_kept(kafka: str, clickhouse: str) -> None:
    async with AIOKafkaConsumer(
        bootstrap_servers=kafka, auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:
        consumer.assign([TopicPartition(TOPIC, 0)])
        found = [(await asyncio.wait_for(consumer.getone(), PATIENCE_S)).value for _ in range(3)]
    assert found == [b"0", b"1", b"2"]
    assert await sql(clickhouse, "SELECT count(), sum(n) FROM kept.rows") == "1000\t499500"


def processes_of(data_dir: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(data_dir) in command and entry.name.isdigit() and int(entry.name) != os.getpid():
            found.append(command)
    return found


async def test_data_survives_an_orderly_end_and_the_kill_of_the_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN_FOR_EVER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    kafka, clickhouse = (await parent.stdout.readline()).decode().split()
    await write(kafka, clickhouse)
    with pytest.raises(DataDirError, match=f"in use by process {parent.pid}"):
        DataDir.open(tmp_path, wait_s=0.0, on_wait=lambda: None)
    parent.kill()
    await parent.wait()
    # The new runtime waits until the orphaned servers have ended.
    async with Runtime.start(tmp_path, kafka_port=0, clickhouse_port=0) as runtime:
        await assert_kept(runtime.kafka, runtime.clickhouse)
    async with Runtime.start(tmp_path, kafka_port=0, clickhouse_port=0) as runtime:
        await assert_kept(runtime.kafka, runtime.clickhouse)
    assert processes_of(tmp_path) == []


async def test_a_killed_server_is_reported_and_comes_back_with_its_data(tmp_path: Path) -> None:
    async with Runtime.start(tmp_path, kafka_port=0, clickhouse_port=0) as runtime:
        await write(runtime.kafka, runtime.clickhouse)
        before = (runtime.kafka, runtime.clickhouse)
        for name, shown in (("kafka", "Kafka"), ("clickhouse", "ClickHouse")):
            death = asyncio.create_task(runtime.wait_dead())
            await runtime.kill(name)
            error = await asyncio.wait_for(death, PATIENCE_S)
            assert isinstance(error, ChildDiedError)
            assert f"expected {shown} to run, found it ended by signal 9" in str(error)
            await runtime.restart(name)
        assert (runtime.kafka, runtime.clickhouse) == before
        await assert_kept(runtime.kafka, runtime.clickhouse)
    assert processes_of(tmp_path) == []


async def test_a_start_that_fails_half_way_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "kafka" / "data").mkdir(parents=True)
    (tmp_path / "kafka" / "data" / "meta.properties").write_text("rubbish")
    with pytest.raises(Exception, match=r"expected cluster\.id in .* remove"):
        async with Runtime.start(tmp_path, kafka_port=0, clickhouse_port=0):
            pass
    assert processes_of(tmp_path) == []


async def test_only_what_is_not_given_is_started(tmp_path: Path) -> None:
    async with Runtime.start(tmp_path, kafka="127.0.0.1:1", clickhouse_port=0) as runtime:
        assert runtime.kafka == "127.0.0.1:1"
        assert await sql(runtime.clickhouse, "SELECT 1") == "1"
    assert not (tmp_path / "kafka").exists()
    untouched = tmp_path / "untouched"
    async with Runtime.start(untouched, kafka="127.0.0.1:1", clickhouse="http://127.0.0.1:2"):
        assert not untouched.exists()


async def test_a_cancelled_run_stops_its_servers(tmp_path: Path) -> None:
    up = asyncio.Event()

    async def run() -> None:
        async with Runtime.start(tmp_path, kafka="127.0.0.1:1", clickhouse_port=0):
            up.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.wait_for(up.wait(), PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes_of(tmp_path) == []


async def test_a_taken_default_port_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listen(0, 0, "a test") as taken:
        monkeypatch.setattr("alpha_pulse.embedded.clickhouse.DEFAULT_PORT", taken.getsockname()[1])
        async with Runtime.start(tmp_path, kafka="127.0.0.1:1") as runtime:
            assert await sql(runtime.clickhouse, "SELECT 1") == "1"


async def test_a_server_that_cannot_start_shows_why(tmp_path: Path) -> None:
    (tmp_path / "clickhouse").mkdir()
    (tmp_path / "clickhouse" / "data").write_text("a file where a directory should be")
    with pytest.raises(ChildDiedError, match="expected ClickHouse to run, found it ended"):
        async with Runtime.start(tmp_path, kafka="127.0.0.1:1", clickhouse_port=0):
            pass


async def test_a_port_lost_between_look_and_bind_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listen(0, 0, "a test") as taken:
        ports = [taken.getsockname()[1]]

        def first_the_taken_one(port: int | None, default: int, name: str) -> int:
            if name == "Kafka" and ports:
                return int(ports.pop())
            return free_port(port, default, name)

        monkeypatch.setattr("alpha_pulse.embedded.kafka.free_port", first_the_taken_one)
        monkeypatch.setattr("alpha_pulse.embedded.kafka.DEFAULT_PORT", 0)
        async with Runtime.start(tmp_path, clickhouse="http://127.0.0.1:1") as runtime:
            assert runtime.kafka != f"127.0.0.1:{taken.getsockname()[1]}"
            async with AIOKafkaProducer(bootstrap_servers=runtime.kafka):
                pass
    assert ports == []
    assert processes_of(tmp_path) == []
