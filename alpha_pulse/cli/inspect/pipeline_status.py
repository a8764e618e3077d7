"""What a pipeline is doing, from Kafka's offsets and ClickHouse's views: for `status`."""

import asyncio
from dataclasses import asdict, dataclass, field
from typing import Any

import aiokafka
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError as AiokafkaError
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from alpha_pulse.cli.pipeline.stored import connect
from alpha_pulse.contracts.config import ClickHouseConfig, Config
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.kafka.causes import connecting, explain
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.topics import INGEST, STORED_TOPICS

KAFKA_S_MAX = 10.0
# A live symbol whose newest trade is older is worth a look, if it usually trades.
QUIET_S_MAX = 120.0
LAG_RECORDS_MAX = 100_000

_SYMBOLS = """
SELECT exchange, symbol, any(s), any(until), sum(recent) / 60, any(trade_age), any(candle_age)
FROM (
    SELECT exchange, symbol, toString(state) AS s, toString(complete_until) AS until,
           0 AS recent, NULL AS trade_age, NULL AS candle_age
    FROM status
    UNION ALL
    SELECT exchange, symbol, NULL, NULL, 0, trade_age_s, candle_age_s FROM freshness
    UNION ALL
    SELECT exchange, symbol, NULL, NULL, count(), NULL, NULL FROM trades
    WHERE trade_time > now64(6) - INTERVAL 1 MINUTE
    GROUP BY exchange, symbol
)
GROUP BY exchange, symbol ORDER BY exchange, symbol
"""
_COVERAGE = """
SELECT exchange, symbol, toString(coverage), count() FROM candles
WHERE timeframe = '1m' AND open_time > now64(6) - INTERVAL 1 DAY
GROUP BY exchange, symbol, coverage
"""
_GAPS = """
SELECT exchange, symbol, toString(status), count(), sum(length_s) FROM gaps
WHERE start_time > now64(6) - INTERVAL 1 DAY
GROUP BY exchange, symbol, status
"""
_AUDITS = """
SELECT exchange, symbol, toString(result), count() FROM audits
WHERE timeframe = '1m' AND open_time > now64(6) - INTERVAL 1 DAY
GROUP BY exchange, symbol, result
"""
_LETTERS = """
SELECT reason, ifNull(exchange, ''), ifNull(symbol, ''), count() FROM dead_letters
WHERE time > now64(6) - INTERVAL 1 DAY
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


@dataclass
class SymbolStatus:
    """One symbol. Ages in seconds, None: nothing yet; figures of a day are of the last 24 h."""

    exchange: str
    symbol: str
    state: str | None = None
    complete_until: str | None = None
    trades_per_s: float = 0.0
    trade_age_s: float | None = None
    candle_age_s: float | None = None
    coverage_of_day: dict[str, int] = field(default_factory=dict)
    gaps_of_day: dict[str, int] = field(default_factory=dict)
    gap_seconds_of_day: float = 0.0  # not filled
    audits_of_day: dict[str, int] = field(default_factory=dict)
    dead_letters_of_day: int = 0


@dataclass
class PipelineStatus:
    """Everything at one moment. A problem is "" where there is none."""

    kafka: str
    clickhouse: str
    database: str
    kafka_problem: str = ""
    clickhouse_problem: str = ""
    lag: dict[str, dict[str, int]] = field(default_factory=dict)  # group -> topic -> records
    symbols: list[SymbolStatus] = field(default_factory=list)
    dead_letters_of_day: dict[str, int] = field(default_factory=dict)  # by reason

    def as_json(self) -> dict[str, Any]:
        """Return it as plain objects, with what is worth a look."""
        return {**asdict(self), "attention": self.attention()}

    def attention(self) -> list[str]:
        """Return what is worth a look, each with what to do."""
        found = [problem for problem in (self.kafka_problem, self.clickhouse_problem) if problem]
        for group, topics in self.lag.items():
            behind = sum(topics.values())
            if behind > LAG_RECORDS_MAX:
                found.append(f"{group} is {behind} records behind: start more of its workers")
        for one in self.symbols:
            found += _attention_of(one)
        if self.dead_letters_of_day:
            count = sum(self.dead_letters_of_day.values())
            found.append(f"{count} dead letters in 24 h: alpha-pulse deadletters list")
        return found


def _attention_of(one: SymbolStatus) -> list[str]:
    name = f"{one.exchange} {one.symbol}"
    found = []
    if one.state not in (None, "live"):
        found.append(f"{name} is {one.state}: look at the producer's log")
    elif one.trade_age_s is not None and one.trade_age_s > QUIET_S_MAX and one.state == "live":
        found.append(
            f"{name} is live, its last trade {one.trade_age_s:.0f} s old: a quiet market, or lag"
        )
    if one.gaps_of_day.get("open"):
        found.append(f"{name} has {one.gaps_of_day['open']} open gaps: they are being sought")
    if one.gaps_of_day.get("unfillable"):
        found.append(f"{name} has {one.gaps_of_day['unfillable']} unfillable gaps: backfill them")
    if one.audits_of_day.get("different"):
        found.append(
            f"{name} differs from the exchange in {one.audits_of_day['different']} candles: "
            "see candle_audit"
        )
    return found


async def read_status(
    config: Config, clickhouse: ClickHouseConfig | None, shown_clickhouse: str
) -> PipelineStatus:
    """Return what there is; what can't be reached is a problem in it, not an error.

    clickhouse: where it answers; None: it does not, and `shown_clickhouse` says so.
    """
    status = PipelineStatus(config.kafka.bootstrap, shown_clickhouse, config.database)
    try:
        async with asyncio.timeout(KAFKA_S_MAX):
            status.lag = await _read_lag(config)
    except AlphaPulseError as error:
        status.kafka_problem = str(error)
    except (AiokafkaError, OSError, TimeoutError) as error:
        status.kafka_problem = (
            f"expected Kafka at {config.kafka.bootstrap}, found {explain(config.kafka, error)}"
        )
    if clickhouse is None:
        status.clickhouse_problem = shown_clickhouse
        return status
    try:
        await asyncio.to_thread(_read_tables, clickhouse, status)
    except (ClickHouseError, AlphaPulseError, OSError) as error:
        status.clickhouse_problem = f"expected the pipeline's tables, found {error}"
    return status


async def _read_lag(config: Config) -> dict[str, dict[str, int]]:
    """Return how many records each group has not settled, by topic without its namespace."""
    groups = {
        config.named(config.processor.group): [INGEST],
        config.named(config.sink.group): list(STORED_TOPICS),
    }
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "alpha-pulse-status"))
    consumer = aiokafka.AIOKafkaConsumer(**client_arguments(config.kafka, "alpha-pulse-status"))
    lag: dict[str, dict[str, int]] = {}
    try:
        async with connecting(config.kafka):
            await admin.start()
            await consumer.start()
        for group, topics in groups.items():
            names = {topic.full_name(config.namespace): topic.name for topic in topics}
            partitions = await _partitions(admin, list(names))
            ends = await consumer.end_offsets(partitions)
            starts = await consumer.beginning_offsets(partitions)
            settled = await admin.list_consumer_group_offsets(group)
            behind = dict.fromkeys(names.values(), 0)
            for where in partitions:
                known = settled.get(where)
                offset = known.offset if known is not None and known.offset >= 0 else starts[where]
                behind[names[where.topic]] += max(0, ends[where] - offset)
            lag[group] = behind
    finally:
        await consumer.stop()
        await admin.close()
    return lag


async def _partitions(admin: AIOKafkaAdminClient, names: list[str]) -> list[TopicPartition]:
    return [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in await admin.describe_topics(names)
        if not topic["error_code"]
        for partition in topic["partitions"]
    ]


def _read_tables(clickhouse: ClickHouseConfig, status: PipelineStatus) -> None:
    client = connect(clickhouse, status.database)
    try:
        known: dict[tuple[str, str], SymbolStatus] = {}
        for exchange, symbol, *rest in client.query(_SYMBOLS).result_rows:
            known[exchange, symbol] = SymbolStatus(exchange, symbol, *rest)
        _add_days(client, known)
        status.symbols = list(known.values())
        for reason, exchange, symbol, count in client.query(_LETTERS).result_rows:
            letters = status.dead_letters_of_day
            letters[reason] = letters.get(reason, 0) + count
            if (exchange, symbol) in known:
                known[exchange, symbol].dead_letters_of_day += count
    finally:
        client.close()


def _add_days(client: Client, known: dict[tuple[str, str], SymbolStatus]) -> None:
    def of(exchange: str, symbol: str) -> SymbolStatus:
        return known.setdefault((exchange, symbol), SymbolStatus(exchange, symbol))

    for exchange, symbol, coverage, count in client.query(_COVERAGE).result_rows:
        of(exchange, symbol).coverage_of_day[coverage] = count
    for exchange, symbol, result, count in client.query(_AUDITS).result_rows:
        of(exchange, symbol).audits_of_day[result] = count
    for exchange, symbol, gap_status, count, seconds in client.query(_GAPS).result_rows:
        one = of(exchange, symbol)
        one.gaps_of_day[gap_status] = count
        if gap_status != "filled":
            one.gap_seconds_of_day += seconds
