"""What the trade path does when it stands still, is fenced, or finds records gone. No Kafka."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, ProducerFenced

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.config import Config, ProcessorConfig
from alpha_pulse.contracts.errors import KafkaError
from alpha_pulse.contracts.events import Candle, Heartbeat, Trade
from alpha_pulse.contracts.market import MINUTE_US, message_key
from alpha_pulse.contracts.roles.batches import EncodedBatch
from alpha_pulse.processors.wire.records import RecordsWriter
from alpha_pulse.processors.worker import held_partitions
from alpha_pulse.processors.worker.held_partitions import FencedError
from alpha_pulse.processors.worker.partition import Partition
from alpha_pulse.processors.worker.standstill import StalledError
from alpha_pulse.processors.worker.trade_path import TradePath
from tests.patience import PATIENCE_S

START_US = 1_763_942_400_000_000
KEY = message_key("bybit", "BTC/USDT")  # an exchange that does not number its trades


class Consumer:
    """Has what it is given, and begins where retention left it."""

    def __init__(self, begins_at: int = 0) -> None:
        self.batches: dict[TopicPartition, list[EncodedBatch]] = {}
        self._begins_at = begins_at

    async def getmany(self, timeout_ms: int, max_records: int) -> Any:
        await asyncio.sleep(0)
        found, self.batches = self.batches, {}
        return found

    async def beginning_offsets(self, parts: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(parts, self._begins_at)


class Producer:
    """Is there; nothing is sent through it."""

    async def stop(self) -> None: ...


def path_with_partition(consumer: Consumer, **settings: Any) -> tuple[TradePath, Partition]:
    config = Config(processor=ProcessorConfig(**settings))
    path = TradePath(config)
    path._consumer = consumer
    partition = path._held.by_number[0] = Partition(config, 0)
    partition._producer = Producer()
    return path, partition


def batch_of(start: int, *events: Any) -> EncodedBatch:
    writer = RecordsWriter(900_000)
    for event in events:
        writer.append((KEY, encode(event)))
    ((records, count),) = writer.batches()
    kafka_ms = START_US // 1000 + 3_600_000
    return EncodedBatch(records.tobytes(), count, start, start, start + count, kafka_ms)


def trade(name: str, minute: float) -> Trade:
    time_us = START_US + round(minute * MINUTE_US)
    return Trade(
        exchange="bybit", symbol="BTC/USDT", trade_id=name, price="10.0", amount="1", side="buy",
        trade_time_us=time_us, receive_time_us=time_us,
    )  # fmt: skip


def live_until(minute: float) -> Heartbeat:
    return Heartbeat(
        exchange="bybit", symbol="BTC/USDT", state="live",
        complete_until_us=START_US + round(minute * MINUTE_US),
    )  # fmt: skip


def test_a_batch_that_holds_something_else_says_where_it_stands() -> None:
    _, partition = path_with_partition(Consumer())
    batch = batch_of(7, trade("a", 0.1), trade("b", 0.2))
    with pytest.raises(KafkaError, match=r"expected 3 records.*at offset 7 of .*up to 9"):
        partition.process(replace(batch, count=3))


async def step_for_ever(path: TradePath, consumer: Consumer) -> None:
    while True:
        await path._step(consumer)


async def never_ends() -> None:
    await asyncio.Event().wait()


async def test_work_without_a_commit_for_too_long_ends_the_worker() -> None:
    consumer = Consumer()
    path, partition = path_with_partition(consumer, stall_s_max=0.05)
    partition.kernel.position = 10  # taken in, and in no transaction yet
    partition.commit = asyncio.create_task(never_ends())
    path._held._standstill.gone_on_at_s = path._held._now_s()
    try:
        with pytest.raises(StalledError, match="found none"):
            await asyncio.wait_for(step_for_ever(path, consumer), PATIENCE_S)
    finally:
        partition.commit.cancel()


async def test_nothing_to_do_is_no_standstill() -> None:
    consumer = Consumer()
    path, _ = path_with_partition(consumer, stall_s_max=500.0)
    path._held._standstill.gone_on_at_s = path._held._now_s() - 1000
    await path._step(consumer)
    assert path._held._now_s() - path._held._standstill.gone_on_at_s < 1000


async def test_a_kafka_that_can_not_be_reached_ends_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_partitions, "RETRY_WAIT_S", 0.0)
    consumer = Consumer()
    path, partition = path_with_partition(consumer, stall_s_max=100.0)
    now_s = 0.0
    monkeypatch.setattr(path._held, "_now_s", lambda: now_s)
    causes: list[Exception] = [KafkaConnectionError("away")] * 9 + [TimeoutError()] * 9

    async def away(self: Partition) -> None:
        raise causes.pop(0)

    monkeypatch.setattr(Partition, "open", away)
    partition.kernel.position = 10
    partition.commit = asyncio.create_task(held_partitions._fail(TimeoutError()))

    async def step_a_minute_later() -> None:
        nonlocal now_s
        now_s += 60.0
        assert partition.commit is not None
        await asyncio.wait([partition.commit])
        await path._step(consumer)

    for _ in range(9):
        await step_a_minute_later()
    assert path._held._standstill.problem(now_s) == "nothing was committed for 540 s"
    # It answers again, and still nothing is committed: a new start may help.
    await step_a_minute_later()
    with pytest.raises(StalledError):
        await step_a_minute_later()


async def test_a_worker_that_fails_crashes_its_service_with_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, _ = path_with_partition(Consumer())
    crashed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def crash(reason: BaseException) -> None:
        crashed.set_result(reason)

    async def run() -> None:
        raise StalledError("nothing goes on")

    monkeypatch.setattr(path, "crash", crash)
    monkeypatch.setattr(path, "_run", run)
    await path.on_start()
    reason = await asyncio.wait_for(crashed, PATIENCE_S)
    assert reason is path.failure
    assert isinstance(reason, StalledError)


@pytest.mark.parametrize("error", [ProducerFenced(), KafkaConnectionError("away")])
async def test_only_fencing_ends_a_worker_whose_commit_failed(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Consumer()
    path, partition = path_with_partition(consumer)
    reopened: list[Partition] = []

    async def fail() -> None:
        raise error

    async def reopen(found: Partition) -> None:
        reopened.append(found)

    monkeypatch.setattr(path._held, "_reopen", reopen)
    partition.kernel.position = 10
    partition.commit = asyncio.create_task(fail())
    await asyncio.wait([partition.commit])
    if isinstance(error, ProducerFenced):
        with pytest.raises(FencedError, match="another worker took it over"):
            await path._held.commit_due()
        assert not reopened
    else:
        partition.committed_at_s = path._held._now_s() + 1000
        await path._held.commit_due()
        assert reopened == [partition]


@pytest.mark.parametrize(("begins_at", "coverage"), [(0, "unverified"), (9, "gap")])
async def test_records_that_retention_took_are_a_gap_and_skipped_offsets_are_not(
    begins_at: int, coverage: str
) -> None:
    """Offsets jump in both cases: over control records, or over what retention took."""
    consumer = Consumer(begins_at)
    path, partition = path_with_partition(consumer, commit_interval_s=1000.0)
    partition.committed_at_s = path._held._now_s()
    path._held._standstill.gone_on_at_s = path._held._now_s()
    consumer.batches = {partition.ingest: [batch_of(0, live_until(0), trade("a", 1.1))]}
    await path._step(consumer)
    rest = batch_of(9, trade("b", 1.9), live_until(2.5), trade("c", 3.1), live_until(5))
    consumer.batches = {partition.ingest: [rest]}
    await path._step(consumer)

    candles = [
        decode_event(value) for _, value in partition.kernel.drain_outputs()["market.candles.1m.v1"]
    ]
    found = {c.open_time_us: c.coverage for c in candles if isinstance(c, Candle)}
    assert found[START_US + MINUTE_US] == coverage
    assert found[START_US + 3 * MINUTE_US] == "unverified"
