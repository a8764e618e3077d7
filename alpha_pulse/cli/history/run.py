"""What the history commands share: times, the running pipeline, how a missing run is told."""

import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import typer

from alpha_pulse.cli.pipeline.servers import reachable_clickhouse, with_running_kafka
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import ValidationError, format_us
from alpha_pulse.contracts.market import Timeframe
from alpha_pulse.contracts.roles.logs import configure_logs
from alpha_pulse.producers.history.missing import REASONS, Missing

EXIT_MISSING = 3


def time_us(text: str, option: str) -> int:
    """Return an ISO time in µs; UTC unless it says otherwise. Raises: ValidationError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValidationError(
            f"expected {option} as an ISO time such as 2024-01-01 or 2024-01-01T09:30:00Z, found "
            f"{text[:60]!r}"
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def now_us() -> int:
    """Return this machine's clock; the exchange's own clock still decides what is closed."""
    return int(datetime.now(UTC).timestamp() * 1_000_000)


def say(text: str) -> None:
    """Tell people what takes long; programs that read the command's output see none of it."""
    if sys.stderr.isatty():
        typer.echo(text, err=True)


@contextlib.asynccontextmanager
async def running_pipeline(settings: Config) -> AsyncIterator[Config]:
    """Yield the settings with the servers of a running `up` or demo where none are given."""
    # What a command says stands alone on stdout.
    configure_logs(logging.WARNING)
    settings = with_running_kafka(settings)
    async with reachable_clickhouse(settings) as clickhouse:
        yield replace(settings, clickhouse=clickhouse)


def missing_json(missing: Missing, frame: Timeframe) -> dict[str, Any]:
    """Return a run of missing candles as the `--json` of the commands tells it."""
    return {
        "start": format_us(missing.start_us),
        "end": format_us(missing.end_us),
        "candles": (missing.end_us - missing.start_us) // frame.duration_us,
        "reason": missing.reason,
    }


def missing_line(missing: Missing, frame: Timeframe) -> str:
    """Return a run of missing candles as one line for people."""
    count = (missing.end_us - missing.start_us) // frame.duration_us
    return (
        f"{count} candles from {format_us(missing.start_us)} to {format_us(missing.end_us)}: "
        f"{missing.reason.replace('_', ' ')} ({REASONS[missing.reason]})"
    )
