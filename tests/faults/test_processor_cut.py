"""A processor that cannot reach Kafka for longer than a transaction lasts tries again, for ever."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.roles.closing import close_within
from alpha_pulse.contracts.topics import INGEST
from alpha_pulse.processors.worker import held_partitions
from alpha_pulse.processors.worker.partition import Partition
from alpha_pulse.processors.worker.trade_path import TradePath
from tests.patience import PATIENCE_S


class Consumer:
    """Remembers where reading goes on."""

    def __init__(self) -> None:
        self.sought: list[tuple[Any, int]] = []

    def seek(self, where: Any, offset: int) -> None:
        self.sought.append((where, offset))


async def fail() -> None:
    raise TimeoutError


async def test_a_commit_that_timed_out_is_tried_again_until_kafka_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_partitions, "RETRY_WAIT_S", 0.0)
    opened: list[bool] = []

    async def open_again(self: Partition) -> None:
        opened.append(len(opened) >= 3)
        if not opened[-1]:
            raise KafkaConnectionError("away")
        self.kernel = self._new_kernel()
        self.committed = self.begun = 0

    monkeypatch.setattr(Partition, "open", open_again)
    config = Config()
    path = TradePath(config)
    path._consumer = consumer = Consumer()
    partition = path._held.by_number[0] = Partition(config, 0)
    # There is work: records taken in and no transaction that holds them.
    partition.kernel.position = 10
    partition.committed_at_s = -1_000.0
    partition.commit = asyncio.create_task(fail())
    async with asyncio.timeout(PATIENCE_S):
        while not consumer.sought:
            await path._held.commit_due()
            await asyncio.sleep(0)
    assert opened == [False, False, False, True]
    assert [(where.topic, offset) for where, offset in consumer.sought] == [(INGEST.name, 0)]
    assert partition.commit is None


async def test_a_client_that_cannot_leave_its_group_does_not_hide_why_a_worker_ends() -> None:
    never = asyncio.Event()

    async def stop() -> None:
        await never.wait()

    assert await asyncio.wait_for(close_within(0.01, stop()), PATIENCE_S) is False


def test_a_worker_that_failed_ends_even_where_its_clients_never_do() -> None:
    program = (
        "import time\n"
        "from alpha_pulse.contracts.roles.stopping import exit_within\n"
        "exit_within(0.2, 1)\n"
        "time.sleep(3600)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=PATIENCE_S, check=False)
    assert done.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_end_does_so_even_where_faust_never_does(
    number: signal.Signals, tmp_path: Path
) -> None:
    # Nothing of Faust's starts, and its stop never returns; the worker and its signals are real.
    program = f"""
import asyncio, os, signal, sys
from alpha_pulse.contracts.config import Config, ProcessorConfig
from alpha_pulse.processors.app import create_app

app = create_app(Config(data_dir={str(tmp_path)!r}, processor=ProcessorConfig(drain_s_max=0.1)))

async def start(self):
    os.kill(os.getpid(), {int(number)})
    await asyncio.Event().wait()

async def stop(self):
    assert app.trade_path._ending.is_set()
    await asyncio.Event().wait()

type(app).start, type(app).maybe_start, type(app).stop = start, start, stop
sys.argv = ["faust", "--quiet", "worker", "--loglevel", "warn", "--without-web"]
app.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        timeout=PATIENCE_S, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ending.cut_short" in done.stdout + done.stderr


async def test_a_failure_of_the_trade_path_is_told_before_faust_begins_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    path = TradePath(Config())
    path.on_failure = lambda: told.append("failed")

    async def crash(self: TradePath, reason: BaseException) -> None:
        told.append(f"crash {type(reason).__name__}")

    monkeypatch.setattr(TradePath, "crash", crash)
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    path._ended(task)
    await asyncio.sleep(0)
    assert told == ["failed", "crash TimeoutError"]
