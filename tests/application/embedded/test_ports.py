"""Ports on loopback: the usual one, else a free one, never a shared one."""

import pytest

from alpha_pulse.embedded.errors import PortError
from alpha_pulse.embedded.ports import HOST, free_port, listen


def test_a_taken_default_gives_another_free_port() -> None:
    with listen(0, 0, "a test") as taken:
        default = taken.getsockname()[1]
        with listen(None, default, "ClickHouse") as other:
            assert other.getsockname()[0] == HOST
            assert other.getsockname()[1] not in (0, default)


def test_a_free_default_is_taken() -> None:
    default = free_port(0, 0, "a test")
    assert free_port(None, default, "Kafka") == default


def test_a_port_that_was_asked_for_and_is_taken_is_refused_by_name() -> None:
    with listen(0, 0, "a test") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"expected port {port} .* free for Kafka"):
            free_port(port, 0, "Kafka")
