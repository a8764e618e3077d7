"""`alpha-pulse doctor`: is everything there that the pipeline needs, and if not, what to do."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer

from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.cli.pipeline.servers import reachable_clickhouse, with_running_kafka
from alpha_pulse.cli.setup.checks.check import Check, failure, ok
from alpha_pulse.cli.setup.checks.clickhouse import check_clickhouse
from alpha_pulse.cli.setup.checks.exchange import check_exchange_clock, check_start
from alpha_pulse.cli.setup.checks.kafka import check_kafka
from alpha_pulse.cli.setup.checks.machine import check_machine
from alpha_pulse.contracts.config import ClickHouseConfig, Config, KafkaConfig, load_config
from alpha_pulse.contracts.errors import AlphaPulseError, ConfigError

_MARK = {"ok": "ok  ", "warning": "warn", "failure": "FAIL"}


def doctor(
    config: ConfigFile = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per check.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the exchange.")] = False,
) -> None:
    """Look at this machine, Kafka, ClickHouse and the exchange; say what to do about each.

    Exit code 1 when the pipeline can't work like this; a warning alone is 0.
    """
    checks = asyncio.run(run_checks(config, offline=offline))
    for check in checks:
        if json:
            typer.echo(orjson.dumps(asdict(check)).decode())
            continue
        typer.echo(f"{_MARK[check.verdict]}  {check.name}: {check.found}")
        if check.next:
            typer.echo(f"      next: {check.next}")
    if any(check.verdict == "failure" for check in checks):
        raise typer.Exit(1)


async def run_checks(path: Path | None, *, offline: bool) -> list[Check]:
    """Return every check. path: the configuration; offline: without the exchange."""
    try:
        config = load_config(path)
    except ConfigError as error:
        return [failure("configuration", str(error), "correct it; alpha-pulse config check")]
    checks = [ok("configuration", str(path) if path else "defaults and environment")]
    checks += check_machine(config)
    checks.append(check_start(config))
    asking = [_kafka(config), _clickhouse(config)]
    if not offline:
        asking.append(_exchange(config))
    for found in await asyncio.gather(*asking):
        checks += found
    return checks


async def _kafka(config: Config) -> list[Check]:
    running = with_running_kafka(config)
    if running.kafka.bootstrap == KafkaConfig().bootstrap and not running.kafka.sasl_username:
        return [ok("kafka", "none given: `demo`, `up` and `replay` start their own")]
    return await check_kafka(running)


async def _clickhouse(config: Config) -> list[Check]:
    given = config.clickhouse.url != ClickHouseConfig().url
    if not given and not (Path(config.data_dir) / "clickhouse").exists():
        return [ok("clickhouse", "none given: `demo`, `up` and `replay` start their own")]
    try:
        async with reachable_clickhouse(config) as address:
            return await check_clickhouse(config, address)
    except AlphaPulseError as error:
        return [failure("clickhouse", str(error), "end what uses the data directory, or wait")]


async def _exchange(config: Config) -> list[Check]:
    return [await check_exchange_clock(config)]
