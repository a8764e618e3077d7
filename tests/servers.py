"""Servers for tests: those that all processes of a run share, and a test's own.

xdist's controller owns the shared ones. It starts them when the first worker asks, and ends them
when all workers have. They meet in a folder: `asked` is a worker's question, `addresses` the
controller's answer.
"""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alpha_pulse.embedded.runtime import Runtime
from tests.patience import PATIENCE_S

LOOK_INTERVAL_S = 0.05
GIVEN = {
    "kafka": os.environ.get("ALPHA_PULSE_KAFKA"),
    "clickhouse": os.environ.get("ALPHA_PULSE_CLICKHOUSE"),
}


@contextlib.contextmanager
def started(folder: Path, **arguments: Any) -> Iterator[Runtime]:
    """Run embedded servers on free ports; the arguments are those of `Runtime.start`."""
    with asyncio.Runner() as runner:
        start = Runtime.start(folder, kafka_port=0, clickhouse_port=0, **arguments)
        runtime = runner.run(start.__aenter__())
        try:
            yield runtime
        finally:
            runner.run(start.__aexit__(None, None, None))


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[Runtime]:
    """Ask the controller for its servers."""
    (folder / "asked").touch()
    answer = folder / "addresses"
    end_s = time.monotonic() + PATIENCE_S
    while not answer.exists():
        assert time.monotonic() < end_s, f"expected servers from the controller, found no {answer}"
        time.sleep(LOOK_INTERVAL_S)
    addresses = json.loads(answer.read_text())
    assert "failed" not in addresses, addresses["failed"]
    yield Runtime(folder, addresses["kafka"], addresses["clickhouse"])


class Owner:
    """The controller's thread: waits for the question, starts servers, keeps them until `end`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="servers")
        self._thread.start()

    def end(self) -> None:
        """Stop the servers, if any were started."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not (self.folder / "asked").exists():
            if self._ended.wait(LOOK_INTERVAL_S):
                return
        try:
            with started(self.folder / "servers", **GIVEN) as runtime:
                self._answer(kafka=runtime.kafka, clickhouse=runtime.clickhouse)
                self._ended.wait()
        except Exception as error:
            self._answer(failed=repr(error))
            raise

    def _answer(self, **found: str) -> None:
        written = self.folder / "addresses.new"
        written.write_text(json.dumps(found))
        written.rename(self.folder / "addresses")
