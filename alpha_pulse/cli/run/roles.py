"""`alpha-pulse produce | process | sink`: one role, in this process."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.cli.pipeline.role_processes import ROLE_MODULES
from alpha_pulse.cli.pipeline.supervise import Worker, supervise
from alpha_pulse.contracts.config import config_environment, load_config
from alpha_pulse.contracts.roles.stopping import hold_signals_for_exec


def produce(config: ConfigFile = None) -> None:
    """Follow the configured symbols of an exchange and publish them to Kafka."""
    _become("producer", config)


def process(
    config: ConfigFile = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 1,
) -> None:
    """Validate trades and build candles, inside Faust workers: one process per core."""
    if workers == 1:
        _become("processor", config)
    settings = load_config(config)
    names = [f"processor-{number}" for number in range(1, workers + 1)]
    asyncio.run(
        supervise(
            [Worker(name, "processor", settings) for name in names],
            Path(settings.data_dir) / "logs",
        )
    )


def sink(config: ConfigFile = None) -> None:
    """Store the market topics in ClickHouse."""
    _become("sink", config)


def _become(role: str, file: Path | None) -> NoReturn:
    # The role replaces this process: signals and exit codes are its own, as under any supervisor.
    # What arrives before it can hear waits.
    hold_signals_for_exec()
    settings = config_environment(load_config(file))
    command = [sys.executable, "-m", ROLE_MODULES[role]]
    os.execve(sys.executable, command, {**os.environ, **settings})
