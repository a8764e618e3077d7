"""Shared by all tests: one real Kafka and ClickHouse for the session, a namespace for each test."""

import asyncio
import os
import uuid
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from alpha_pulse.embedded.runtime import Runtime

# The same examples in every run: a test that fails now fails again. HYPOTHESIS_PROFILE=random looks
# further. No deadlines: a busy machine is no failure.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "random", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """The session's Kafka and ClickHouse: embedded, or those of ALPHA_PULSE_KAFKA and _CLICKHOUSE.

    Everything in them is shared: keep to names inside `namespace`.
    """
    with asyncio.Runner() as runner:
        start = Runtime.start(
            tmp_path_factory.mktemp("runtime"),
            kafka=os.environ.get("ALPHA_PULSE_KAFKA"),
            clickhouse=os.environ.get("ALPHA_PULSE_CLICKHOUSE"),
            kafka_port=0,
            clickhouse_port=0,
        )
        running = runner.run(start.__aenter__())
        try:
            yield running
        finally:
            runner.run(start.__aexit__(None, None, None))


@pytest.fixture
def namespace() -> str:
    """Prefix of topics, groups and databases that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session", autouse=True)
def logs_begin_unconfigured() -> None:
    """Forget what modules configured when they were imported: it writes to a file of pytest's."""
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def logs_are_left_unconfigured() -> Iterator[None]:
    """A command or role that a test runs in this process configures the logs of all later tests."""
    yield
    structlog.reset_defaults()
