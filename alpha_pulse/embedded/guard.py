"""Run one command, and end it when the parent is gone: `python -I -S guard.py SECONDS COMMAND...`.

Standard input is a pipe that the parent holds open and never writes to. When it closes (the parent
ended, however: `kill -9` too) the command gets SIGTERM, and SIGKILL SECONDS later. The command also
dies with this guard. Started by file name, so only the standard library is seen here.
"""

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1


def main(grace_s: float, command: list[str]) -> int:
    """Return the command's exit code, 128 + signal where a signal ended it."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    child = _start(command)
    deadline: float | None = None
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if deadline is not None and time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
        watched = [wake_read] if deadline is not None else [wake_read, 0]
        readable, _, _ = select.select(watched, [], [], None if deadline is None else 0.2)
        signals = os.read(wake_read, 64) if wake_read in readable else b""
        if signal.SIGUSR1 in signals:  # the parent plays a crash
            os.kill(child, signal.SIGKILL)
        parent_gone = 0 in readable and not os.read(0, 4096)
        told = bool({signal.SIGTERM, signal.SIGINT, signal.SIGHUP} & set(signals))
        if (parent_gone or told) and deadline is None:
            os.kill(child, signal.SIGTERM)
            deadline = time.monotonic() + grace_s


def _start(command: list[str]) -> int:
    guard = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:  # the guard died between fork and prctl
                os._exit(1)
        os.execv(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error}", file=sys.stderr, flush=True)
    os._exit(127)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
