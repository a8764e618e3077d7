"""What the doctor thinks of what it finds: pure, without servers."""

import resource
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from alpha_pulse.cli.setup.checks.check import Check
from alpha_pulse.cli.setup.checks.clickhouse import (
    check_migrations,
    check_parts,
    check_version,
)
from alpha_pulse.cli.setup.checks.exchange import check_start
from alpha_pulse.cli.setup.checks.kafka import check_partitions, check_settings
from alpha_pulse.cli.setup.checks.machine import (
    check_disk,
    check_open_files,
    check_ports,
    check_python,
    is_taken,
)
from alpha_pulse.cli.setup.doctor import run_checks
from alpha_pulse.contracts.config import Config, MetricsConfig, ProducerConfig
from alpha_pulse.sinks.clickhouse.migrate import load_migrations, load_schema

MIGRATIONS = load_migrations()
APPLIED = {migration.name: migration.checksum for migration in MIGRATIONS}


@pytest.mark.parametrize(
    ("exchange", "symbols", "said"),
    [
        ("binance", 1, "1 symbol of binance on 1 connection of each address; its limits make"),
        ("binance", 1_000, "1,000 symbols of binance on 2 connections of each address"),
        (
            "okx",
            1_000,
            "1,000 symbols of okx on 9 connections of each address; its limits make that take 8 s",
        ),
        (
            "gate",
            3,
            "3 symbols of gate on 1 connection of each address; its limits make that take 0 s",
        ),
    ],
)
def test_the_start_that_the_limits_allow(exchange: str, symbols: int, said: str) -> None:
    names = tuple(f"A{n}/USDT" for n in range(symbols))
    found = check_start(Config(producer=ProducerConfig(exchange=exchange, symbols=names)))
    assert (found.verdict, found.found[: len(said)]) == ("ok", said)


@pytest.mark.parametrize(
    ("version", "verdict"),
    [((3, 10), "failure"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "warning")],
)
def test_python(version: tuple[int, int], verdict: str) -> None:
    assert check_python(version).verdict == verdict


@pytest.mark.parametrize(
    ("limit", "verdict"), [(1024, "warning"), (4096, "ok"), (resource.RLIM_INFINITY, "ok")]
)
def test_open_files(limit: int, verdict: str) -> None:
    assert check_open_files(limit).verdict == verdict


def test_a_data_directory_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert check_disk(tmp_path / "not" / "yet").verdict in ("ok", "warning")


def test_a_taken_port_is_told_but_no_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert is_taken(port)
        config = Config(metrics=MetricsConfig(producer_port=0, processor_port=0, sink_port=port))
        (check,) = check_ports(config)
        assert (check.verdict, f"{port} (sink)" in check.found) == ("ok", True)
    assert not is_taken(port)


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("24.8.1.1", "failure"), ("25.3.1.1", "ok"), ("26.8.1.1", "ok")],
)
def test_clickhouse_version(version: str, verdict: str) -> None:
    assert check_version(version, "http://a").verdict == verdict


@pytest.mark.parametrize(
    ("applied", "verdict"),
    [
        (APPLIED, "ok"),
        (dict(list(APPLIED.items())[:-1]), "warning"),
        (APPLIED | {MIGRATIONS[0].name: "other"}, "failure"),
        (APPLIED | {"9999_newer.sql": "x"}, "failure"),
    ],
)
def test_schema(applied: dict[str, str], verdict: str) -> None:
    assert check_migrations(applied, MIGRATIONS).verdict == verdict


def test_a_table_or_view_that_is_missing_is_named() -> None:
    schema = load_schema()
    assert {"gaps", "trades_log"} < schema.names
    assert check_parts(set(schema.names), schema) is None
    missing = check_parts(schema.names - {"gaps", "trades_log"}, schema)
    assert missing is not None
    assert missing.found == "to be made: gaps, trades_log"


def test_partitions_must_be_the_same_everywhere() -> None:
    eight = replace(Config().topics, partitions=8)
    config = replace(Config(), topics=eight)
    assert check_partitions({"a": 8, "b": 8}, config).verdict == "ok"
    assert check_partitions({"a": 4, "b": 4}, config).verdict == "warning"
    assert check_partitions({"a": 4, "b": 8}, config).verdict == "failure"


def test_a_setting_that_differs_is_named() -> None:
    expected = {"a": {"retention.ms": "1"}}
    assert check_settings({"a": {"retention.ms": "1", "x": "y"}}, expected).verdict == "ok"
    differing = check_settings({"a": {"retention.ms": "2"}}, expected)
    assert differing.found == "1 differ: a retention.ms=2 (expected 1)"


async def test_a_configuration_that_can_not_be_is_the_only_finding(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("nonsense = 1")
    (check,) = await run_checks(file, offline=True)
    assert check.verdict == "failure"
    assert "'nonsense'" in check.found


async def test_a_mistyped_exchange_is_one_finding_among_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPHA_PULSE_PRODUCER_EXCHANGE", "binanc")
    monkeypatch.setenv("ALPHA_PULSE_DATA_DIR", str(tmp_path))
    checks = {check.name: check for check in await run_checks(None, offline=False)}
    assert checks["exchange"].verdict == "failure"
    assert "did you mean binance" in checks["exchange"].found
    assert checks["kafka"].verdict == "ok"


def test_whatever_is_not_well_says_what_to_do() -> None:
    found: list[Check] = [
        check_python((3, 10)),
        check_open_files(10),
        check_version("20.1.1", "http://a"),
        check_migrations({}, MIGRATIONS),
        check_partitions({"a": 1, "b": 2}, Config()),
    ]
    assert all(check.next for check in found)
