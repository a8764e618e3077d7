"""The typed reader of the contracts, as a downstream user has it, on a real Kafka."""

import asyncio
import json
import os
import sys
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import Config, KafkaConfig, TopicsConfig
from alpha_pulse.contracts.errors import KafkaError, ValidationError
from alpha_pulse.contracts.events import Candle, Event, Gap, Heartbeat, Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.kafka.reader import read
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.newest import Newest
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import CANDLES, INGEST, TRADES, Topic
from alpha_pulse.embedded.runtime import Runtime
from tests.patience import PATIENCE_S

CANDLE: Any = EXAMPLES[Candle]["contiguous"]
TRADE: Any = EXAMPLES[Trade]["binance"]
MINUTES = CANDLES["1m"]


@pytest.fixture
def config(runtime: Runtime, namespace: str) -> Config:
    kafka = KafkaConfig(bootstrap=runtime.kafka)
    return Config(namespace=namespace, kafka=kafka, topics=TopicsConfig(partitions=3))


def trade(number: int, symbol: str = "BTC/USDT") -> Trade:
    made: Trade = msgspec.structs.replace(TRADE, symbol=symbol, trade_id=str(number))
    return made


async def publish(config: Config, topic: Topic, values: list[tuple[str, bytes]]) -> None:
    await ensure_topics(config, [topic])
    publisher = Publisher(config.kafka, "test")
    await publisher.start()
    for symbol, value in values:
        key = message_key("binance", symbol)
        await publisher.publish(topic.full_name(config.namespace), key, [value])
    await publisher.stop()


async def publish_events(config: Config, topic: Topic, *events: Event) -> None:
    await publish(config, topic, [(event.symbol, encode(event)) for event in events])


async def test_the_newest_revision_of_each_candle_stands(config: Config) -> None:
    versions = [
        msgspec.structs.replace(
            CANDLE, symbol=symbol, revision=revision, close=close, high="99999.00"
        )
        for symbol in ("BTC/USDT", "ETH/USDT")
        for revision, close in ((2, "2.00"), (1, "1.00"), (3, "3.00"), (3, "3.00"))
    ]
    await publish_events(config, MINUTES, *versions)
    newest = Newest[Candle]()
    seen = 0
    async for candle in read(MINUTES, config, until_end=True):
        newest.accept(candle)
        seen += 1
    assert seen == 8
    assert {c.symbol: (c.revision, c.close) for c in newest} == {
        "BTC/USDT": (3, "3.00"),
        "ETH/USDT": (3, "3.00"),
    }


async def test_a_topic_of_several_kinds_yields_each_as_what_it_is(config: Config) -> None:
    events = [TRADE, CANDLE, EXAMPLES[Heartbeat]["live"], EXAMPLES[Gap]["open"]]
    await publish_events(config, INGEST, *events)
    found = [event async for event in read(INGEST, config, until_end=True)]
    assert {type(event) for event in found} == {Trade, Candle, Heartbeat, Gap}
    assert sorted(map(encode, found)) == sorted(map(encode, events))


async def test_a_kind_that_is_not_known_is_skipped_and_said_once(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    # As a newer producer would write it: of a kind, and with fields, that nobody here knows.
    tide = b'{"event":"tide","exchange":"binance","symbol":"BTC/USDT","bid":"1.5","ask":{"a":[1]}}'
    values = [encode(trade(1)), tide, encode(trade(2)), tide, tide]
    await publish(config, TRADES, [("BTC/USDT", value) for value in values])
    group = f"{config.namespace}.older"
    found = [e.trade_id async for e in read(TRADES, config, group=group, until_end=True)]
    assert found == ["1", "2"]
    said = [record.getMessage() for record in caplog.records if "kinds.skipped" in record.msg]
    assert len(said) == 1
    assert "'tide' is none of trade" in said[0]
    # What was skipped counts as read.
    caplog.clear()
    assert [e async for e in read(TRADES, config, group=group, until_end=True)] == []
    assert not [record for record in caplog.records if "kinds.skipped" in record.msg]


async def test_an_empty_topic_ends_at_once_when_its_end_was_asked_for(config: Config) -> None:
    await ensure_topics(config, [TRADES])
    assert [event async for event in read(TRADES, config, until_end=True)] == []


async def test_a_group_goes_on_where_it_was_and_repeats_what_was_not_finished(
    config: Config,
) -> None:
    await publish_events(config, TRADES, *(trade(number) for number in range(1, 7)))
    group = f"{config.namespace}.downstream"
    seen = []
    async with aclosing(read(TRADES, config, group=group)) as events:
        async for event in events:
            seen.append(event.trade_id)
            if len(seen) == 3:
                break  # the third was never finished, for all that the reader knows
    assert seen == ["1", "2", "3"]
    rest = [e.trade_id async for e in read(TRADES, config, group=group, until_end=True)]
    assert rest == ["3", "4", "5", "6"]
    assert [e async for e in read(TRADES, config, group=group, until_end=True)] == []


async def test_two_readers_of_a_group_share_the_partitions(config: Config) -> None:
    symbols = [f"S{number}/USDT" for number in range(12)]
    await publish_events(config, TRADES, *(trade(1, symbol) for symbol in symbols))
    group = f"{config.namespace}.shared"
    found: dict[str, set[int]] = {}
    everything = asyncio.Event()

    async def reader(number: int) -> None:
        async for event in read(TRADES, config, group=group):
            found.setdefault(event.symbol, set()).add(number)
            if len(found) == len(symbols):
                everything.set()

    tasks = [asyncio.create_task(reader(number)) for number in range(2)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await everything.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert set(found) == set(symbols)


async def test_a_broken_record_is_named_with_its_place(config: Config) -> None:
    await publish(config, TRADES, [("BTC/USDT", b'{"event":"trade","price":-1}')])
    with pytest.raises(ValidationError, match=r"market\.trades\.v1 partition \d offset 0"):
        await anext(read(TRADES, config))


async def test_a_topic_that_is_not_there_and_a_kafka_that_is_not_are_said(config: Config) -> None:
    with pytest.raises(KafkaError, match=r"expected the topic t\w+\.market\.trades\.v1"):
        await anext(read(TRADES, config))
    away = Config(kafka=KafkaConfig(bootstrap="127.0.0.1:1"))
    with pytest.raises(KafkaError, match=r"Kafka at 127\.0\.0\.1:1, found nothing that listens"):
        await anext(read(TRADES, away))


async def test_settings_come_from_the_environment_when_none_are_given(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish_events(config, TRADES, TRADE)
    monkeypatch.setenv("ALPHA_PULSE_KAFKA", config.kafka.bootstrap)
    monkeypatch.setenv("ALPHA_PULSE_NAMESPACE", config.namespace)
    assert [event async for event in read(TRADES, until_end=True)] == [TRADE]


# aiokafka as it was before the contracts came: every name of its modules and of their classes.
_UNTOUCHED = """
import asyncio, importlib, json, logging, pkgutil, sys
import aiokafka

for found in pkgutil.walk_packages(aiokafka.__path__, "aiokafka."):
    importlib.import_module(found.name)

def names():
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] == "aiokafka":
            for key, value in vars(module).items():
                found[name, key] = value
                if isinstance(value, type) and value.__module__.startswith("aiokafka"):
                    found |= {(name, key, at): each for at, each in vars(value).items()}
    return found

before, level = names(), logging.getLogger("aiokafka").level
from alpha_pulse.contracts.kafka.reader import read
from alpha_pulse.contracts.topics import TRADES

async def main():
    return [event.trade_id async for event in read(TRADES, until_end=True)]

seen = asyncio.run(main())
after = names()
changed = sorted(map(str, (k for k in before | after if before.get(k) is not after.get(k))))
ours = [name for name in sys.modules if name.startswith("alpha_pulse.contracts.roles")]
print(json.dumps({
    "seen": seen,
    "looked_at": len(before),
    "changed": changed,
    "fetcher": [after["aiokafka.consumer.fetcher", "PartitionRecords"].__module__,
                after["aiokafka.consumer.consumer", "Fetcher"].__module__],
    "level_changed": logging.getLogger("aiokafka").level != level,
    "roles": ours,
}))
"""


async def test_a_process_that_only_reads_keeps_its_aiokafka_as_it_was(config: Config) -> None:
    await publish_events(config, TRADES, *(trade(number) for number in range(1, 4)))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _UNTOUCHED,
        env={
            **os.environ,
            "ALPHA_PULSE_KAFKA": config.kafka.bootstrap,
            "ALPHA_PULSE_NAMESPACE": config.namespace,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 0, errors.decode()
    found = json.loads(output)
    assert found.pop("looked_at") > 1_000
    assert found == {
        "seen": ["1", "2", "3"],
        "changed": [],
        "fetcher": ["aiokafka.consumer.fetcher", "aiokafka.consumer.fetcher"],
        "level_changed": False,
        "roles": [],
    }
