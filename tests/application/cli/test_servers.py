"""How many partitions the embedded Kafka's topics get."""

from dataclasses import replace

import pytest

from alpha_pulse.cli.pipeline.servers import fitting_partitions, with_partitions, with_servers
from alpha_pulse.contracts.config import Config, TopicsConfig
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.topics import INGEST
from alpha_pulse.embedded.runtime import Runtime


@pytest.mark.parametrize(
    ("cores", "workers", "partitions"),
    [(1, 1, 2), (2, 1, 2), (2, 4, 4), (4, 1, 4), (64, 1, 8), (64, 12, 12)],
)
def test_partitions_follow_cores_and_workers(cores: int, workers: int, partitions: int) -> None:
    assert fitting_partitions(workers, cores) == partitions


async def test_topics_that_exist_keep_their_partitions(
    runtime: Runtime, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests' Kafka may belong to another process, which counts as a given one.
    monkeypatch.setattr(Runtime, "owns_kafka", True)
    fresh = with_servers(Config(namespace=namespace), runtime)
    assert (await with_partitions(fresh, runtime)).topics.partitions == fitting_partitions(1)
    await ensure_topics(replace(fresh, topics=TopicsConfig(partitions=3)), [INGEST])
    assert (await with_partitions(fresh, runtime, workers=5)).topics.partitions == 3


async def test_what_is_configured_stands(runtime: Runtime, namespace: str) -> None:
    config = Config(namespace=namespace, topics=TopicsConfig(partitions=7))
    assert await with_partitions(with_servers(config, runtime), runtime) == with_servers(
        config, runtime
    )


async def test_a_given_kafka_gets_the_usual_number(runtime: Runtime) -> None:
    given = Runtime(runtime.data_dir, runtime.kafka, runtime.clickhouse)
    config = with_servers(Config(), given)
    assert await with_partitions(config, given) == config
