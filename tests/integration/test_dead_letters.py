"""Dead letters: listed, shown and published again, on a real Kafka and the real engine."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import ClickHouseConfig, Config, KafkaConfig, SinkConfig
from alpha_pulse.contracts.dead_letters import dead_letter_of_row
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import DeadLetter, Trade
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.contracts.topics import TRADES
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.dead_letters import (
    list_dead_letters,
    replay_dead_letters,
    show_dead_letter,
)
from alpha_pulse.sinks.clickhouse.migrate import migrate
from alpha_pulse.sinks.clickhouse.tables import table_of
from alpha_pulse.sinks.lanes.consumer import Sink
from alpha_pulse.sinks.lanes.writer import REFUSED
from tests.patience import PATIENCE_S

TRADE = encode(EXAMPLES[Trade]["binance"])


@pytest.fixture
def config(runtime: Runtime, namespace: str) -> Config:
    return Config(
        namespace=namespace,
        kafka=KafkaConfig(bootstrap=runtime.kafka),
        clickhouse=ClickHouseConfig(url=runtime.clickhouse),
        sink=SinkConfig(batch_age_s_max=0.1, retry_wait_s_max=0.2),
    )


@pytest.fixture
async def clickhouse(config: Config) -> AsyncIterator[ClickHouse]:
    connection = await ClickHouse.connect(config.clickhouse)
    await migrate(config, connection)
    try:
        yield connection
    finally:
        await connection.command(f"DROP DATABASE IF EXISTS {config.database}")
        await connection.close()


async def insert(clickhouse: ClickHouse, config: Config, *letters: DeadLetter) -> None:
    values = [encode(letter) for letter in letters]
    batch = Batch("t", 0, range(len(values)), values, len(values), 0)
    table = table_of(kinds.DEAD_LETTER)
    await clickhouse.insert(
        f"{config.database}.{table.name}", table.insert_columns, batch.body(), {}
    )


def letter_of(config: Config, offset: int, payload: bytes = TRADE) -> DeadLetter:
    topic = TRADES.full_name(config.namespace)
    return dead_letter(topic, 3, offset, payload)


def dead_letter(topic: str, partition: int, offset: int, payload: bytes) -> DeadLetter:
    return dead_letter_of_row(
        topic, partition, offset, payload,
        reason=REFUSED, error=f"error {offset}", timestamp_ms=1_700_000_000_000 + offset,
    )  # fmt: skip


async def test_the_newest_come_first_and_filters_hold(
    config: Config, clickhouse: ClickHouse
) -> None:
    letters = [letter_of(config, offset) for offset in range(5)]
    await insert(clickhouse, config, *letters, letters[2])  # published twice, shown once
    d = config.database
    listed = await list_dead_letters(clickhouse, d)
    assert [letter.offset for letter in listed] == [4, 3, 2, 1, 0]
    assert (listed[0].payload, listed[0].exchange) == (TRADE, "binance")
    since = datetime.fromtimestamp(1_700_000_000.003, tz=UTC)
    assert len(await list_dead_letters(clickhouse, d, since=since)) == 2
    assert len(await list_dead_letters(clickhouse, d, limit=1)) == 1
    assert await list_dead_letters(clickhouse, d, reason="other") == []
    assert await list_dead_letters(clickhouse, d, topic="it's; DROP TABLE x") == []


async def test_one_is_shown_by_its_identity(config: Config, clickhouse: ClickHouse) -> None:
    await insert(clickhouse, config, letter_of(config, 7, b"\xff\x00rubbish"))
    identity = f"{TRADES.full_name(config.namespace)}:3:7"
    shown = await show_dead_letter(clickhouse, config.database, identity)
    assert (shown.payload, shown.error, shown.is_cut) == (b"\xff\x00rubbish", "error 7", False)
    with pytest.raises(ValidationError, match="found none"):
        await show_dead_letter(clickhouse, config.database, "nowhere:0:0")


async def test_a_replay_stores_each_trade_once_however_often_it_is_repeated(
    config: Config, clickhouse: ClickHouse
) -> None:
    await ensure_topics(config)
    cut = letter_of(config, 1, b"x" * 300_000)
    foreign = dead_letter("another.topic", 0, 1, TRADE)
    await insert(clickhouse, config, letter_of(config, 0), cut, foreign)
    letters = await list_dead_letters(clickhouse, config.database)
    for _ in range(2):
        replay = await replay_dead_letters(config, letters)
        assert replay.published == (f"{TRADES.full_name(config.namespace)}:3:0",)
        assert sorted(why for _, why in replay.refused) == [
            "another.topic is no topic of this pipeline and namespace",
            "only 262144 of its 300000 bytes were kept: fetch its time again with a backfill",
        ]
    stop = asyncio.Event()
    sink = asyncio.create_task(Sink(config).run(stop))
    log = f"SELECT count() FROM {config.database}.trades_log"
    async with asyncio.timeout(PATIENCE_S):
        while await clickhouse.rows(log) != [(2,)] and not sink.done():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    stop.set()
    await sink
    assert await clickhouse.rows(f"SELECT count() FROM {config.database}.trades") == [(1,)]
