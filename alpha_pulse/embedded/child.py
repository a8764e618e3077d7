"""A server as a child process: started under the guard, watched, stopped, its log at hand."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from alpha_pulse.embedded.errors import ChildDiedError

GUARD = Path(__file__).with_name("guard.py")
LOG_TAIL_LINES = 8
# Variables that would change a Java or Python child behind our back.
_FOREIGN_VARIABLES = {"CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}


class Child:
    """One running server process.

    It has a session of its own, so that Ctrl-C reaches only the parent, which then stops its
    servers in order; it stops when the parent is gone in any other way.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], logs: list[Path]) -> None:
        self.name = name
        self.logs = logs
        self._process = process

    @property
    def log(self) -> Path:
        """Where it says most."""
        return self.logs[-1]

    @classmethod
    def start(
        cls,
        name: str,
        command: list[str],
        *,
        log: Path,
        more_logs: Iterable[Path] = (),
        keep_fds: Iterable[int] = (),
        grace_s: float,
        environment: Mapping[str, str] | None = None,
    ) -> "Child":
        """Start a command whose output goes to `log`.

        more_logs: files that it writes by itself.
        keep_fds: file descriptors that the command inherits, such as the data directory's lock.
        grace_s: seconds between SIGTERM and SIGKILL when it is stopped.
        environment: variables on top of this process's own.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        variables = {k: v for k, v in os.environ.items() if k not in _FOREIGN_VARIABLES}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), str(grace_s), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**variables, **(environment or {})},
                pass_fds=tuple(keep_fds),
                start_new_session=True,
            )
        return cls(name, process, [log, *more_logs])

    @property
    def pid(self) -> int:
        """Process id of the guard; the server is its only child."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def log_text(self) -> str:
        """Return all that this run wrote."""
        text = ""
        for log in self.logs:
            with contextlib.suppress(OSError):
                text += log.read_text(errors="replace") + "\n"
        return text

    def log_tail(self) -> str:
        """Return the last lines that this run wrote."""
        lines = [line[:500] for line in self.log_text().splitlines() if line.strip()]
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def death(self) -> ChildDiedError:
        """Return the error that says how it ended."""
        code = self._process.poll()
        how = (
            f"signal {-code if code < 0 else code - 128}"
            if code and (code < 0 or code > 128)
            else f"exit code {code}"
        )
        return ChildDiedError(
            f"expected {self.name} to run, found it ended by {how}; its log is {self.log}, start "
            f"again when its last lines are dealt with:\n{self.log_tail()}"
        )

    async def wait(self) -> int:
        """Return its exit code once it has ended."""
        # Polled, not watched by the event loop: a runtime outlives the loop that started it.
        while (code := self._process.poll()) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return code

    async def stop(self, timeout_s: float) -> int:
        """End it in order; `timeout_s` after that it is killed. Returns its exit code."""
        return await asyncio.to_thread(self.stop_blocking, timeout_s)

    def stop_blocking(self, timeout_s: float) -> int:
        """Do what `stop` does, where no event loop runs."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    async def kill(self) -> None:
        """End the server as `kill -9` does, and wait until it is gone."""
        self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                self._process.kill()
            await asyncio.sleep(0.01)
