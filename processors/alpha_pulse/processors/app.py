"""The Faust app: wiring only. `faust -A alpha_pulse.processors.app worker` runs all of it.

Faust gives the worker, the command line, signals, agents, tables and web views; the trade path is
a service inside that worker. Settings come from the file that ALPHA_PULSE_CONFIG names and from the
environment.
"""

import asyncio
import contextlib
import gc
import os
import signal
from pathlib import Path

import faust
import mode.loop
import structlog

from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.kafka.admin import await_topics
from alpha_pulse.contracts.roles.logs import configure_logs
from alpha_pulse.contracts.roles.metrics.server import Monitor, lag_problem, monitored
from alpha_pulse.contracts.roles.stopping import CLOSE_S_MAX, exit_within
from alpha_pulse.processors.audit.agent import add_audits
from alpha_pulse.processors.audit.credentials import faust_credentials
from alpha_pulse.processors.kernel.warm_up import warm_up
from alpha_pulse.processors.worker.metrics import ProcessorMetrics
from alpha_pulse.processors.worker.trade_path import TradePath

log = structlog.get_logger()

LOOPBACK = "127.0.0.1"


class EndingWorker(faust.Worker):  # type: ignore[misc]
    """Ends in time, whatever happens to Faust's own consumer.

    That one is stopped before the trade path, and while Kafka is away, or gives partitions to
    another worker just then, it may never end. It writes the log that the process has configured.
    """

    def _setup_logging(self) -> None:
        # Faust would replace the log by lines of its own form, and draw a spinner on stdout.
        self.spinner = None

    def _schedule_shutdown(self, told: signal.Signals) -> None:
        if not self._signal_stop_time:
            self.app.trade_path.begin_to_end()
            exit_within(self.app.pipeline.processor.drain_s_max + CLOSE_S_MAX)
        super()._schedule_shutdown(told)


class ProcessorApp(faust.App):  # type: ignore[misc]
    """A Faust app that makes what it needs before anything reads from Kafka."""

    pipeline: Config
    trade_path: TradePath
    role_monitor: Monitor
    role_pages: contextlib.AsyncExitStack

    async def on_first_start(self) -> None:
        """Show the pages; make the topics, and the directory that Faust asks for."""
        settings = self.pipeline.metrics
        await self.role_pages.enter_async_context(
            monitored(settings, self.role_monitor, settings.processor_port, log)
        )
        await await_topics(
            self.pipeline,
            lambda error: log.warning("kafka.awaited", error=str(error)),
            lambda: self.should_stop,
        )
        await asyncio.to_thread(os.makedirs, self.conf.datadir, exist_ok=True)
        await super().on_first_start()

    async def on_shutdown(self) -> None:
        """Take the pages down, after everything else has stopped."""
        await super().on_shutdown()
        await self.role_pages.aclose()


def create_app(config: Config) -> ProcessorApp:
    """Return the Faust app of a configuration, with the trade path and the agents."""
    settings = config.processor
    created = ProcessorApp(
        config.named(f"{settings.group}-faust"),
        broker="kafka://" + config.kafka.bootstrap.replace(",", ";"),
        broker_credentials=faust_credentials(config.kafka),
        store="memory://",
        topic_partitions=config.topics.partitions,
        topic_replication_factor=config.topics.replication_factor,
        topic_disable_leader=True,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 12,
        broker_rebalance_timeout=20.0,
        Worker=EndingWorker,
        datadir=str(Path(config.data_dir) / "faust" / config.named(settings.group)),
        web_enabled=settings.web_port > 0,
        web_bind=LOOPBACK,
        web_host=LOOPBACK,
        web_port=settings.web_port or 6066,
    )
    created.pipeline = config
    created.role_pages = contextlib.AsyncExitStack()
    monitor = created.role_monitor = Monitor("processor")
    metrics = ProcessorMetrics(monitor.registry, config)
    trade_path = created.trade_path = TradePath(config, metrics)
    monitor.checks |= {
        "trade_path": trade_path.problem,
        "lag": lambda: lag_problem(config.metrics, trade_path.lag()),
    }
    created.service(trade_path)
    add_audits(created, config, metrics)
    return created


def read_config() -> Config:
    """Return the settings of the file in ALPHA_PULSE_CONFIG, if any, and the environment."""
    path = os.environ.get("ALPHA_PULSE_CONFIG")
    return load_config(Path(path) if path else None, os.environ)


# Millions of small objects come and go and form no cycles: look for some less often, and never
# among what is imported.
gc.freeze()
gc.set_threshold(50_000, 20, 20)
mode.loop.use("uvloop")
configure_logs()
# The first start compiles for seconds: before the loop begins, or no heartbeat goes out meanwhile.
_config = read_config()
warm_up(_config.processor)
app = create_app(_config)
