"""Find the servers that a command talks to: given ones, a running demo's, or own ones."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import clickhouse_connect
import orjson
from aiokafka.admin import AIOKafkaAdminClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from alpha_pulse.contracts.config import ClickHouseConfig, Config, TopicsConfig
from alpha_pulse.contracts.kafka.connection import client_arguments
from alpha_pulse.contracts.topics import INGEST
from alpha_pulse.embedded.front.users import Login
from alpha_pulse.embedded.progress import OnProgress
from alpha_pulse.embedded.runtime import Runtime

_FILE = "addresses.json"


def start_runtime(
    settings: Config, data_dir: Path, on_progress: OnProgress, logins: Sequence[Login] = ()
) -> AbstractAsyncContextManager[Runtime]:
    """Return a runtime that starts the servers which the settings do not name.

    logins: users of a ClickHouse that is started; of a given one they are nothing.
    """
    default = Config()
    kafka, clickhouse = settings.kafka.bootstrap, settings.clickhouse.url
    return Runtime.start(
        data_dir,
        on_progress=on_progress,
        kafka=kafka if kafka != default.kafka.bootstrap else None,
        clickhouse=clickhouse if clickhouse != default.clickhouse.url else None,
        clickhouse_logins=logins,
    )


def with_servers(settings: Config, runtime: Runtime) -> Config:
    """Return the settings with the runtime's addresses and data directory in them."""
    return replace(
        settings,
        data_dir=str(runtime.data_dir),
        kafka=replace(settings.kafka, bootstrap=runtime.kafka),
        clickhouse=replace(settings.clickhouse, url=runtime.clickhouse),
    )


async def with_partitions(config: Config, runtime: Runtime, workers: int = 1) -> Config:
    """Return the settings with the partitions of an embedded Kafka, where none are asked for.

    Its topics keep what they were made with; new ones get what fits this machine and so many
    processors. A given Kafka gets what is configured.
    """
    if not runtime.owns_kafka or config.topics.partitions != TopicsConfig().partitions:
        return config
    partitions = await _partitions_there(config) or fitting_partitions(workers)
    return replace(config, topics=replace(config.topics, partitions=partitions))


def fitting_partitions(workers: int, cores: int | None = None) -> int:
    """Return one partition a core, at least two and one a worker, at most the usual number.

    Each costs its own transactions and inserts, twice a second (docs/scale.md).
    """
    cores = cores or len(os.sched_getaffinity(0))
    return max(2, workers, min(cores, TopicsConfig().partitions))


async def _partitions_there(config: Config) -> int:
    name = INGEST.full_name(config.namespace)
    admin = AIOKafkaAdminClient(**client_arguments(config.kafka, "alpha-pulse-admin"))
    try:
        await admin.start()
        if name not in await admin.list_topics():
            return 0
        (found,) = await admin.describe_topics([name])
        return len(found["partitions"])
    finally:
        await admin.close()


@contextlib.contextmanager
def announced(config: Config) -> Iterator[None]:
    """Leave the addresses in the data directory while they are good, for other commands."""
    file = Path(config.data_dir) / _FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    # The address may carry a password: it is for the owner alone.
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
        target.write(
            orjson.dumps(
                {
                    "kafka": config.kafka.bootstrap,
                    "clickhouse": config.clickhouse.url,
                    "partitions": config.topics.partitions,
                }
            )
        )
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def with_running_kafka(settings: Config) -> Config:
    """Return the settings with a running demo's Kafka and partitions, where none is given."""
    if settings.kafka.bootstrap == Config().kafka.bootstrap:
        with contextlib.suppress(OSError, orjson.JSONDecodeError, KeyError):
            addresses = orjson.loads((Path(settings.data_dir) / _FILE).read_bytes())
            return replace(
                settings,
                kafka=replace(settings.kafka, bootstrap=str(addresses["kafka"])),
                topics=replace(settings.topics, partitions=int(addresses["partitions"])),
            )
    return settings


@contextlib.asynccontextmanager
async def reachable_clickhouse(settings: Config) -> AsyncIterator[ClickHouseConfig]:
    """Give a ClickHouse that answers: the given one, a running demo's, or the engine opened now.

    Raises: EmbeddedRuntimeError when the data directory is in use or the engine does not start.
    """
    if settings.clickhouse.url != ClickHouseConfig().url:
        yield settings.clickhouse
        return
    data_dir = Path(settings.data_dir)
    url = _running_clickhouse(data_dir)
    if url:
        yield replace(settings.clickhouse, url=url)
        return
    # A name for Kafka, so that only the engine is started: no query needs Kafka.
    async with Runtime.start(data_dir, kafka="not-needed:0", clickhouse_port=0) as runtime:
        yield replace(settings.clickhouse, url=runtime.clickhouse)


def _running_clickhouse(data_dir: Path) -> str | None:
    with contextlib.suppress(OSError, orjson.JSONDecodeError, KeyError, ClickHouseError):
        url = str(orjson.loads((data_dir / _FILE).read_bytes())["clickhouse"])
        clickhouse_connect.get_client(dsn=url, connect_timeout=2).close()
        return url
    return None
