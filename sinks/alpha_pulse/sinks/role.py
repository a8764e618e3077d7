"""The sink role: `python -m alpha_pulse.sinks` stores until SIGTERM or SIGINT, drains, exits 0.

Settings come from the environment and from the TOML file that ALPHA_PULSE_CONFIG or `--config`
names.
"""

import argparse
import asyncio
import gc
import os
from pathlib import Path

import structlog
import uvloop

from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.roles.logs import configure_logs
from alpha_pulse.contracts.roles.metrics.server import Monitor, lag_problem, monitored
from alpha_pulse.contracts.roles.stopping import stop_on_signal
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.migrate import migrate
from alpha_pulse.sinks.clickhouse.tables import stored_tables
from alpha_pulse.sinks.lanes.consumer import Sink
from alpha_pulse.sinks.lanes.offsets import OffsetStore, check_topic
from alpha_pulse.sinks.metrics import SinkMetrics

log = structlog.get_logger("alpha_pulse.sinks")


def main(arguments: list[str] | None = None) -> int:
    """Run the role or one of its two maintenance commands; return the exit code."""
    options = _parser().parse_args(arguments)
    configure_logs()
    try:
        config = load_config(options.config)
        if options.begin_epoch or options.raise_generation:
            uvloop.run(_maintain(config, options))
        else:
            uvloop.run(run_sink(config))
    except AlphaPulseError as error:
        log.error("sink.failed", error=str(error))
        return 1
    return 0


async def run_sink(config: Config) -> None:
    """Run the sink until SIGTERM or SIGINT. Raises: AlphaPulseError for what no retry can heal."""
    # What was imported stays, and rows are no cycles: looking through them was 4 % of the CPU.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    stop = asyncio.Event()
    stop_on_signal(stop, config.sink.drain_s_max)
    monitor = Monitor("sink")
    metrics = SinkMetrics(monitor.registry, config.named(config.sink.group))
    sink = metrics.sink = Sink(config, metrics.stored)
    monitor.checks |= {
        "storing": sink.problem,
        "lag": lambda: lag_problem(config.metrics, sink.lag_by_partition()),
    }
    async with monitored(config.metrics, monitor, config.metrics.sink_port, log):
        await sink.run(stop)
    log.info("sink.stopped")


async def _maintain(config: Config, options: argparse.Namespace) -> None:
    clickhouse = await ClickHouse.connect(config.clickhouse)
    try:
        await migrate(config, clickhouse)
        offsets = OffsetStore(clickhouse, config.database)
        known = stored_tables(config.namespace)
        for topic in options.begin_epoch:
            epoch = await offsets.begin_epoch(check_topic(topic, known))
            log.info("epoch.begun", topic=topic, epoch=epoch.number)
        for topic in options.raise_generation:
            epoch = await offsets.raise_generation(check_topic(topic, known))
            log.info("generation.raised", topic=topic, generation=epoch.generation)
    finally:
        await clickhouse.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m alpha_pulse.sinks", description=__doc__)
    environment = os.environ.get("ALPHA_PULSE_CONFIG")
    parser.add_argument("--config", type=Path, default=Path(environment) if environment else None)
    parser.add_argument(
        "--begin-epoch",
        metavar="TOPIC",
        action="append",
        default=[],
        help="after a topic was deleted and recreated: read it from its start, keep what is stored",
    )
    parser.add_argument(
        "--raise-generation",
        metavar="TOPIC",
        action="append",
        default=[],
        help="after rows were deleted from a table by hand: store them again from Kafka",
    )
    return parser
