"""Kafka: reachable, allowed, and its topics as this configuration makes them."""

import asyncio
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError as AiokafkaError

from alpha_pulse.cli.setup.checks.check import Check, failure, ok, warning
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.kafka.admin import topic_settings
from alpha_pulse.contracts.kafka.causes import connecting, explain
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.topics import TOPICS

KAFKA_S_MAX = 10.0
NAMES_SHOWN = 3


async def check_kafka(config: Config) -> list[Check]:
    """Return what is found of Kafka and of the topics."""
    try:
        async with asyncio.timeout(KAFKA_S_MAX):
            return await _look(config)
    except AlphaPulseError as error:
        found = str(error)
    except (AiokafkaError, OSError, TimeoutError) as error:
        found = f"{config.kafka.bootstrap}: {explain(config.kafka, error)}"
    return [failure("kafka", found, "once it answers, look again")]


async def _look(config: Config) -> list[Check]:
    names = {topic.full_name(config.namespace): topic for topic in TOPICS}
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "alpha-pulse-doctor"))
    try:
        async with connecting(config.kafka):
            await admin.start()
        cluster = await admin.describe_cluster()
        described = {t["topic"]: t for t in await admin.describe_topics(list(names))}
        there = {name: t for name, t in described.items() if not t["error_code"]}
        settings = await _settings(admin, list(there))
    finally:
        await admin.close()
    security = config.kafka.security_protocol
    checks = [
        ok(
            "kafka",
            f"{len(cluster['brokers'])} brokers at {config.kafka.bootstrap}, {security}",
        ),
        _missing(sorted(names.keys() - there.keys()), len(names)),
    ]
    if there:
        expected = {name: topic_settings(names[name], config) for name in there}
        checks += [
            check_partitions({n: len(t["partitions"]) for n, t in there.items()}, config),
            _check_replicas(there, config),
            check_settings(settings, expected),
        ]
    return checks


def _missing(missing: list[str], total: int) -> Check:
    if not missing:
        return ok("topics", f"all {total} are there")
    return warning(
        "topics",
        f"{len(missing)} of {total} are missing: {_some(missing)}",
        "any role makes them at its start; where it may not, make them by hand (docs/contracts.md)",
    )


def check_partitions(partitions: dict[str, int], config: Config) -> Check:
    """Return whether all topics have the same number of partitions, as configured."""
    if len(set(partitions.values())) > 1:
        return failure(
            "partitions",
            f"they differ: {partitions}",
            "outputs stay in their input's partition: recreate the topics that differ",
        )
    number = next(iter(partitions.values()))
    if number != config.topics.partitions:
        return warning(
            "partitions",
            f"{number} in every topic, {config.topics.partitions} configured",
            f"set [topics] partitions = {number}, or recreate the topics while nothing runs",
        )
    return ok("partitions", f"{number} in every topic")


def _check_replicas(there: dict[str, Any], config: Config) -> Check:
    counts = {len(p["replicas"]) for t in there.values() for p in t["partitions"]}
    leaderless = [n for n, t in there.items() if any(p["leader"] < 0 for p in t["partitions"])]
    if leaderless:
        return failure(
            "replicas", f"no leader for {_some(leaderless)}", "look at the brokers' logs"
        )
    if min(counts) < config.topics.replication_factor:
        return warning(
            "replicas",
            f"{min(counts)} at least, {config.topics.replication_factor} configured",
            "raise them with kafka-reassign-partitions.sh: a topic that exists is never changed",
        )
    return ok("replicas", f"{min(counts)} at least")


def check_settings(
    settings: dict[str, dict[str, str]], expected: dict[str, dict[str, str]]
) -> Check:
    """Return whether the topics' settings are the ones that they would be made with now."""
    differences = [
        f"{name} {key}={settings[name].get(key)} (expected {value})"
        for name, wanted in expected.items()
        for key, value in wanted.items()
        if settings.get(name, {}).get(key) not in (None, value)
    ]
    if not differences:
        return ok("topic settings", "as configured")
    return warning(
        "topic settings",
        f"{len(differences)} differ: {_some(differences)}",
        "change them with kafka-configs.sh, or the configuration: what exists is never changed",
    )


async def _settings(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    answers = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    )
    found: dict[str, dict[str, str]] = {}
    for answer in answers:
        for _, _, _, name, entries, *_ in answer.resources:
            found[name] = {entry[0]: entry[1] for entry in entries}
    return found


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
