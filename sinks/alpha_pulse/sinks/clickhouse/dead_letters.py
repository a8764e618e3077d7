"""Dead letters as they are stored: list them, look at one, publish its bytes again."""

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.topics import DEAD_LETTERS, TOPICS
from alpha_pulse.sinks.clickhouse.client import ClickHouse

_COLUMNS = (
    "identity, reason, error, exchange, symbol, topic, partition, offset, payload_base64, "
    "payload_bytes, toUnixTimestamp64Micro(time)"
)


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """One dead letter. payload: the bytes as far as they were kept; topic: None for a frame."""

    identity: str
    reason: str
    error: str
    exchange: str | None
    symbol: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    payload: bytes
    payload_bytes: int
    time: datetime

    @property
    def is_cut(self) -> bool:
        """Whether the message was longer than what was kept of it."""
        return len(self.payload) < self.payload_bytes


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of each dead letter that was to be published again.

    refused: identity and why, for those that can't be.
    """

    published: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


async def list_dead_letters(
    clickhouse: ClickHouse,
    database: str,
    *,
    reason: str | None = None,
    topic: str | None = None,
    since: datetime | None = None,
    limit: int = 100,
) -> list[StoredDeadLetter]:
    """Return dead letters, the newest first."""
    conditions, parameters = ["true"], {"limit": limit}
    filters: dict[str, tuple[str, Any]] = {
        "reason = {reason:String}": ("reason", reason),
        "topic = {topic:String}": ("topic", topic),
        "time >= {since:DateTime64(6, 'UTC')}": ("since", since),
    }
    for condition, (name, value) in filters.items():
        if value is not None:
            conditions.append(condition)
            parameters[name] = value
    rows = await clickhouse.rows(
        f"SELECT {_COLUMNS} FROM {database}.dead_letters WHERE {' AND '.join(conditions)} "
        "ORDER BY time DESC, identity LIMIT {limit:UInt64}",
        parameters,
    )
    return [_from_row(row) for row in rows]


async def show_dead_letter(
    clickhouse: ClickHouse, database: str, identity: str
) -> StoredDeadLetter:
    """Return one dead letter. Raises: ValidationError when there is none of that identity."""
    rows = await clickhouse.rows(
        f"SELECT {_COLUMNS} FROM {database}.dead_letters WHERE identity = {{identity:String}}",
        {"identity": identity},
    )
    if not rows:
        raise ValidationError(
            f"expected a dead letter with identity {identity!r}, found none; "
            "`alpha-pulse deadletters list` shows those there are"
        )
    return _from_row(rows[0])


async def replay_dead_letters(config: Config, letters: Iterable[StoredDeadLetter]) -> Replay:
    """Publish the bytes of dead letters to the topics that they came from.

    Their identity is in the bytes: what was accepted in the meantime counts as a duplicate, so that
    a replay can be repeated. Raises: KafkaError when Kafka can't be reached.
    """
    topics = {topic.full_name(config.namespace) for topic in TOPICS if topic is not DEAD_LETTERS}
    published, refused = [], []
    publisher = Publisher(config.kafka, "alpha-pulse-dead-letters")
    await publisher.start()
    try:
        for letter in letters:
            why = _why_not(letter, topics)
            if why:
                refused.append((letter.identity, why))
                continue
            assert letter.topic is not None
            await publisher.publish(letter.topic, _key_of(letter), [letter.payload])
            published.append(letter.identity)
    finally:
        await publisher.stop()
    return Replay(tuple(published), tuple(refused))


def _why_not(letter: StoredDeadLetter, topics: set[str]) -> str:
    if letter.topic is None:
        return "it is a frame of an exchange, not a record: fetch its time again with a backfill"
    if letter.topic not in topics:
        return f"{letter.topic} is no topic of this pipeline and namespace"
    if letter.is_cut:
        return (
            f"only {len(letter.payload)} of its {letter.payload_bytes} bytes were kept: "
            "fetch its time again with a backfill"
        )
    return ""


def _key_of(letter: StoredDeadLetter) -> bytes:
    # With the key of its symbol a record comes back into the partition of its symbol.
    if letter.exchange and letter.symbol:
        return message_key(letter.exchange, letter.symbol)
    return letter.identity.encode()


def _from_row(row: Sequence[Any]) -> StoredDeadLetter:
    *_, payload_base64, payload_bytes, time_us = row
    try:
        payload = base64.b64decode(payload_base64, validate=True)
    except (binascii.Error, ValueError):
        payload = b""
    return StoredDeadLetter(
        identity=row[0],
        reason=row[1],
        error=row[2],
        exchange=row[3],
        symbol=row[4],
        topic=row[5],
        partition=row[6],
        offset=row[7],
        payload=payload,
        payload_bytes=payload_bytes,
        time=datetime.fromtimestamp(time_us / 1_000_000, tz=UTC),
    )
