"""The Faust app: wiring only, and none of it at import.

Faust gives the worker, the command line, signals, agents, tables and web views; the trade path is
a service inside that worker. `python -m alpha_pulse.processors` runs it; Faust's own command line
finds it too: `app` is made when somebody asks for it (`faust -A alpha_pulse.processors.app`).
"""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faust
import mode.loop
import structlog

from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.kafka.admin import await_topics
from alpha_pulse.contracts.roles.logs import configure_logs
from alpha_pulse.contracts.roles.metrics.server import Monitor, lag_problem, monitored
from alpha_pulse.contracts.roles.stopping import CLOSE_S_MAX, exit_within
from alpha_pulse.contracts.topics import TOPICS
from alpha_pulse.processors.audit.agent import add_audits, app_name, changelogs
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
            (*TOPICS, *changelogs(self.pipeline)),
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
        config.named(app_name(config)),
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
    created.service(trade_path)
    audits = add_audits(created, config, metrics.audited)
    monitor.checks |= {
        "trade_path": trade_path.problem,
        "lag": lambda: lag_problem(config.metrics, trade_path.lag()),
        "audit": audits.problem,
    }
    return created


def prepare(environ: Mapping[str, str] = os.environ) -> ProcessorApp:
    """Set the process up for the role and return its app, ready to run.

    Args:
        environ: the settings, and in ALPHA_PULSE_CONFIG a file with more of them.
    """
    path = environ.get("ALPHA_PULSE_CONFIG")
    config = load_config(Path(path) if path else None, environ)
    # Millions of small objects come and go and form no cycles: look for some less often, and never
    # among what is imported.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    mode.loop.use("uvloop")
    configure_logs()
    # The first start compiles for seconds: before the loop begins, or no heartbeat goes out
    # meanwhile.
    warm_up(config.processor)
    return create_app(config)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()["app"] = prepare()
    return found
