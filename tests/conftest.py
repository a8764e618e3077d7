"""Shared by all tests: one real Kafka and ClickHouse for the run, a namespace for each test."""

import gc
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

from alpha_pulse.embedded.runtime import Runtime
from tests.servers import GIVEN, Owner, shared, started

# The same examples in every run: a test that fails now fails again. HYPOTHESIS_PROFILE=random looks
# further. No deadlines: a busy machine is no failure.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "random", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


# Modules and tests stay until the end: looking through them for garbage doubles the time that it
# takes to make them, in each worker.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Leave what was made until here out of the search for garbage."""
    gc.freeze()
    gc.enable()


OWNER = pytest.StashKey[Owner]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each worker where it finds the servers that all of them share."""
    config = node.config
    if OWNER not in config.stash:
        folder = config._tmp_path_factory.mktemp("shared")
        config.stash[OWNER] = Owner(folder)
        config.add_cleanup(config.stash[OWNER].end)
    node.workerinput["servers"] = str(config.stash[OWNER].folder)


@pytest.fixture(scope="session")
def runtime(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runtime]:
    """The run's Kafka and ClickHouse: embedded, or those of ALPHA_PULSE_KAFKA and _CLICKHOUSE.

    Everything in them is shared, with other processes too: keep to names inside `namespace`.
    """
    worker = getattr(request.config, "workerinput", None)
    own = tmp_path_factory.mktemp("own")
    with shared(Path(worker["servers"])) if worker else started(own, **GIVEN) as runtime:
        yield runtime


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
