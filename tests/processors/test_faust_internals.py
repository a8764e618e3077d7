"""What the processors lean on in faust-streaming 0.15.3 and mode."""

import inspect
import json
import os
import signal
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
    # What would replace the log of the process.
    assert "self._setup_logging()" in inspect.getsource(mode.Worker.default_on_first_start)


def test_every_line_of_a_workers_log_is_one_json_object(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "ALPHA_PULSE_KAFKA": "127.0.0.1:1",
        "ALPHA_PULSE_DATA_DIR": str(tmp_path),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "alpha_pulse.processors"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stderr is not None
        lines: list[str] = []
        while not lines or "kafka.awaited" not in lines[-1]:
            lines.append(worker.stderr.readline())
            assert lines[-1], lines
        worker.send_signal(signal.SIGTERM)
        output, errors = worker.communicate(timeout=PATIENCE_S)
        assert worker.returncode == 0
    assert output == ""
    said = [json.loads(line) for line in [*lines, *errors.splitlines()]]
    assert {"aiokafka", None} <= {line.get("logger") for line in said}
    assert all(line["event"] and line["level"] and line["timestamp"] for line in said)


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


def test_importing_the_app_has_no_effect_and_asking_for_it_makes_it(tmp_path: Path) -> None:
    code = """
import gc, logging, sys
before = gc.get_threshold(), gc.get_freeze_count(), len(logging.getLogger().handlers)
from alpha_pulse.processors import app as module
assert before == (gc.get_threshold(), gc.get_freeze_count(), len(logging.getLogger().handlers))
assert "uvloop" not in sys.modules and "alpha_pulse.processors.compiled.trades" not in sys.modules
from mode.utils.imports import symbol_by_name
found = symbol_by_name("alpha_pulse.processors.app:app")  # as `faust -A` does
assert isinstance(found, module.ProcessorApp) and found is module.app
assert gc.get_freeze_count() and "uvloop" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, "ALPHA_PULSE_DATA_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
