"""The producer role as a process of its own: replay exchange to a real Kafka."""

import asyncio
import signal
import sys
from collections import Counter
from dataclasses import replace

import pytest

from alpha_pulse.contracts.codec import decode_ingest
from alpha_pulse.contracts.config import Config, KafkaConfig, ProducerConfig, config_environment
from alpha_pulse.contracts.events import Candle, Heartbeat, Trade
from alpha_pulse.contracts.kinds import IngestEvent
from alpha_pulse.contracts.roles.batches import batch_consumer
from alpha_pulse.contracts.topics import INGEST
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S

MINUTE_US = 60_000_000


async def start_role(config: Config) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "alpha_pulse.producers",
        env=config_environment(config),
        stderr=asyncio.subprocess.PIPE,
    )


async def read_log(config: Config) -> list[IngestEvent]:
    consumer = batch_consumer(config.kafka, "test-reader", group_id=None)
    consumer.subscribe([INGEST.full_name(config.namespace)])
    await consumer.start()
    events: list[IngestEvent] = []
    try:
        await consumer.seek_to_beginning()
        partitions = consumer.assignment()
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for batches in (await consumer.getmany(timeout_ms=500)).values():
                events += [decode_ingest(value) for b in batches for value in b.values if value]
    finally:
        await consumer.stop()
    return events


async def test_a_recording_at_full_speed_is_in_the_log_in_order_and_the_role_exits_0(
    runtime: Runtime, namespace: str
) -> None:
    market = SyntheticMarket("BTC/USDT", 7, end_us=BEGIN_US + 5 * MINUTE_US)
    async with ReplayExchange([market]) as exchange:
        assert exchange.end_us is not None
        config = Config(
            namespace=namespace,
            kafka=KafkaConfig(bootstrap=runtime.kafka),
            producer=ProducerConfig(
                exchange_url=exchange.url, clock="event", until_us=exchange.end_us
            ),
        )
        role = await start_role(config)
        _, logs = await asyncio.wait_for(role.communicate(), PATIENCE_S)
        assert role.returncode == 0, logs.decode()
        sent = market.rows(0, market.position_at(exchange.end_us))
    events = await read_log(config)
    trades = [event for event in events if isinstance(event, Trade)]
    assert [int(trade.trade_id) for trade in trades] == [row.trade_id for row in sent]
    assert [(t.price, t.amount, t.side, t.trade_time_us) for t in trades] == [
        (row.price, row.amount, row.side, row.trade_time_us) for row in sent
    ]
    candles = [event for event in events if isinstance(event, Candle)]
    assert [candle.open_time_us for candle in candles] == [
        BEGIN_US + minute * MINUTE_US for minute in range(5)
    ]
    last = events[-1]
    assert isinstance(last, Heartbeat)
    assert (last.state, last.complete_until_us) == ("live", config.producer.until_us)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_restart_goes_on_after_the_last_trade_in_the_log(
    number: signal.Signals, runtime: Runtime, namespace: str
) -> None:
    market = SyntheticMarket("BTC/USDT", 11, end_us=BEGIN_US + 12 * MINUTE_US)
    async with ReplayExchange([market], speed=120.0) as exchange:
        assert exchange.end_us is not None
        config = Config(
            namespace=namespace,
            kafka=KafkaConfig(bootstrap=runtime.kafka),
            producer=ProducerConfig(
                exchange_url=exchange.url, clock="event", until_us=exchange.end_us
            ),
        )
        role = await start_role(config)
        assert role.stderr is not None
        while b"stream.live" not in await asyncio.wait_for(role.stderr.readline(), PATIENCE_S):
            pass
        while exchange.state()["published"]["BTC/USDT"] < 500:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        role.send_signal(number)
        _, logs = await asyncio.wait_for(role.communicate(), PATIENCE_S)
        assert role.returncode == (0 if number == signal.SIGTERM else -number), logs.decode()
        role = await start_role(replace(config))
        _, logs = await asyncio.wait_for(role.communicate(), PATIENCE_S)
        assert role.returncode == 0, logs.decode()
        sent = market.rows(0, market.position_at(exchange.end_us))
    trades = [event for event in await read_log(config) if isinstance(event, Trade)]
    counted = Counter(int(trade.trade_id) for trade in trades)
    assert sorted(counted) == [row.trade_id for row in sent]
    assert list(counted) == sorted(counted)
