"""`python -m alpha_pulse.sinks.setup`: topics, schema and users, once; then it ends.

Waits for Kafka and ClickHouse, `[setup] wait_s_max` at most. Everything in it can be repeated.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import uvloop

from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import AlphaPulseError, KafkaError
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.roles.logs import configure_logs
from alpha_pulse.contracts.roles.stopping import exit_on_signal
from alpha_pulse.sinks.clickhouse.client import ClickHouse, PassingFault
from alpha_pulse.sinks.clickhouse.migrate import migrate
from alpha_pulse.sinks.clickhouse.users import make_users

log = structlog.get_logger("alpha_pulse.sinks")

RETRY_WAIT_S = 1.0


async def set_up(config: Config) -> None:
    """Make what is missing. Raises: KafkaError or StorageError when time is up or it is refused."""
    topics = await _until_done(config, lambda: ensure_topics(config))
    log.info("topics.made", topics=len(topics))
    clickhouse = await asyncio.wait_for(
        ClickHouse.connect(config.clickhouse, wait_s_max=RETRY_WAIT_S), config.setup.wait_s_max
    )
    try:
        files = await _until_done(config, lambda: migrate(config, clickhouse))
        log.info("schema.applied", files=len(files), database=config.database)
        users = await _until_done(config, lambda: make_users(config, clickhouse))
        log.info("users.made", users=users)
    finally:
        await clickhouse.close()


async def _until_done(config: Config, work: Callable[[], Awaitable[list[str]]]) -> list[str]:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + config.setup.wait_s_max
    while True:
        try:
            return await work()
        except (KafkaError, PassingFault) as error:
            if loop.time() > end_s:
                raise
            log.warning("setup.waiting", error=str(error)[:300])
            await asyncio.sleep(RETRY_WAIT_S)


def main() -> int:
    """Set up; return the exit code."""
    exit_on_signal()
    configure_logs()
    path = os.environ.get("ALPHA_PULSE_CONFIG")
    try:
        uvloop.run(set_up(load_config(Path(path) if path else None)))
    except AlphaPulseError as error:
        log.error("setup.failed", error=str(error))
        return 1
    except TimeoutError:
        log.error(
            "setup.failed", error="expected ClickHouse to answer in time, found that it did not"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
