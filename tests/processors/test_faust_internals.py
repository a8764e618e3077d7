"""What the processors lean on in faust-streaming 0.15.3 and mode."""

import inspect
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import faust
import mode

from alpha_pulse.contracts.config import Config, ProcessorConfig
from alpha_pulse.processors.app import LOOPBACK, ProcessorApp, create_app
from alpha_pulse.processors.worker.trade_path import TradePath
from tests.patience import PATIENCE_S


def test_the_version_is_the_one_that_was_tried() -> None:
    assert version("faust-streaming") == "0.15.3"


def test_an_app_carries_the_trade_path_and_at_least_one_agent() -> None:
    app = create_app(Config(namespace="n"))
    services = [service for service in app._extra_services if isinstance(service, TradePath)]
    assert len(services) == 1
    # Without any topic Faust's conductor crashes.
    assert len(app.agents) >= 1


def test_faust_keeps_to_loopback_with_the_web_off_and_on() -> None:
    assert not create_app(Config()).conf.web_enabled
    app = create_app(Config(processor=ProcessorConfig(web_port=7001)))
    assert (app.conf.web_bind, app.conf.web_port) == (LOOPBACK, 7001)


def test_a_group_of_our_own_is_not_fausts(tmp_path: Path) -> None:
    config = Config(namespace="n", data_dir=str(tmp_path))
    assert create_app(config).conf.id != config.named(config.processor.group)


def test_the_hooks_that_are_overridden_exist() -> None:
    assert inspect.iscoroutinefunction(faust.App.on_first_start)
    assert issubclass(ProcessorApp, faust.App)
    for name in ("on_start", "on_stop", "crash"):
        assert inspect.iscoroutinefunction(getattr(mode.Service, name))
    # What SIGTERM and SIGINT call; `tests/faults/test_processor_cut.py` sends real ones.
    assert callable(faust.Worker._schedule_shutdown)


def test_faults_of_a_service_end_the_worker_with_an_exit_code() -> None:
    code = """
import asyncio, sys, faust, mode
app = faust.App("t", broker="kafka://127.0.0.1:1", store="memory://", web_enabled=False)
class Failing(mode.Service):
    async def on_start(self):
        asyncio.ensure_future(self.crash(RuntimeError("on purpose")))
class Worker(mode.Worker):
    pass
Worker(Failing(), loglevel="crit").execute_from_commandline()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ,
    )
    assert done.returncode != 0


def test_tables_keep_text() -> None:
    app = create_app(Config(namespace="n"))
    assert {name: table.value_type for name, table in app.tables.items()} == {
        "audit-ledgers": str,
        "latest": str,
    }
