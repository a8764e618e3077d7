"""Topic creation: every topic of the contracts, made once, never changed."""

import asyncio
from collections.abc import Callable, Iterable

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import KafkaError
from alpha_pulse.contracts.kafka.causes import connecting, explain
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.topics import TOPICS, Topic

DESCRIBE_ATTEMPTS_MAX = 100
DESCRIBE_WAIT_S = 0.1
AWAIT_S_MIN, AWAIT_S_MAX = 0.25, 5.0
# Kafka is not there, or not yet; everything else is an answer of its own.
_ABSENT = (
    KafkaConnectionError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    OSError,
    TimeoutError,
)


async def ensure_topics(config: Config, topics: Iterable[Topic] = TOPICS) -> list[str]:
    """Create the topics that are missing; safe when several processes start at once.

    Args:
        config: where Kafka is, the namespace, and what new topics are made with.
        topics: those that must exist.

    Returns:
        The names of the topics that were created, without the namespace.

    Raises:
        KafkaError: Kafka can't be reached, refuses a topic, or holds one whose number of partitions
            differs from the others' (outputs stay in their input's partition).
    """
    names = {topic.full_name(config.namespace): topic for topic in topics}
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "alpha-pulse-admin"))
    try:
        async with connecting(config.kafka):
            await admin.start()
        existing = set(await admin.list_topics())
        missing = [_new_topic(name, names[name], config) for name in names if name not in existing]
        if missing:
            await _create(admin, missing)
        await _check_partitions(admin, sorted(names))
    except (AiokafkaError, OSError) as error:
        raise KafkaError(
            f"expected to create topics at {config.kafka.bootstrap}, found "
            f"{explain(config.kafka, error)}"
        ) from error
    finally:
        await admin.close()
    return [topic.name for topic in missing]


async def await_topics(
    config: Config, on_wait: Callable[[KafkaError], None], stopping: Callable[[], bool],
    topics: Iterable[Topic] = TOPICS,
) -> None:  # fmt: skip
    """Create the topics as `ensure_topics` does, but wait for a Kafka that can't be reached.

    Args:
        config: as for `ensure_topics`.
        on_wait: called with the error of each attempt that failed.
        stopping: called between attempts; True ends the wait.
        topics: as for `ensure_topics`.

    Raises:
        KafkaError: Kafka refuses a topic or holds one that does not fit.
    """
    wait_s = AWAIT_S_MIN
    while not stopping():
        try:
            await ensure_topics(config, topics)
            return
        except KafkaError as error:
            if not isinstance(error.__cause__, _ABSENT):
                raise
            on_wait(error)
        until_s = asyncio.get_running_loop().time() + wait_s
        while not stopping() and asyncio.get_running_loop().time() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(AWAIT_S_MIN)
        wait_s = min(wait_s * 2, AWAIT_S_MAX)


def topic_settings(topic: Topic, config: Config) -> dict[str, str]:
    """Return the settings, by Kafka's names, that a topic is made with."""
    settings = {
        "cleanup.policy": topic.cleanup,
        "min.insync.replicas": str(config.topics.min_insync_replicas),
        "message.timestamp.type": "CreateTime",
    }
    if topic.cleanup == "delete":
        settings["retention.ms"] = str(int(topic.retention_ms * config.topics.retention_scale))
    else:
        # State is read back on every assignment: keep the uncompacted tail short.
        settings |= {"segment.ms": "600000", "min.cleanable.dirty.ratio": "0.2"}
    return settings


def _new_topic(name: str, topic: Topic, config: Config) -> NewTopic:
    return NewTopic(
        name,
        config.topics.partitions,
        config.topics.replication_factor,
        topic_configs=topic_settings(topic, config),
    )


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
    response = await admin.create_topics(topics)
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            detail = rest[0] if rest else ""
            raise KafkaError(
                f"expected to create topic {name}, found {error.__name__} {detail or ''}; create "
                "it by hand or grant the right to"
            )


async def _check_partitions(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    counts: dict[str, int] = {}
    for _ in range(DESCRIBE_ATTEMPTS_MAX):
        described = await admin.describe_topics(names)
        counts = {t["topic"]: len(t["partitions"]) for t in described if not t["error_code"]}
        if len(counts) == len(names):
            break
        # A topic is known to all of Kafka only a moment after its creation.
        await asyncio.sleep(DESCRIBE_WAIT_S)
    else:
        raise KafkaError(
            f"expected Kafka to know its new topics, found none of "
            f"{sorted(set(names) - set(counts))} after "
            f"{DESCRIBE_ATTEMPTS_MAX * DESCRIBE_WAIT_S:.0f} s; look at the broker's log"
        )
    if len(set(counts.values())) > 1:
        raise KafkaError(
            f"expected the same number of partitions in every topic, found {counts}; outputs stay "
            "in their input's partition: recreate the topics that differ"
        )
