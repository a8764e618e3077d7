"""SIGTERM and SIGINT: heard from the first line of a process to its last.

A role calls `exit_on_signal` before its heavy imports, when there is nothing to drain, and
`stop_on_signal` once its loop runs. The interpreter's own start lies before the first line, and no
process can cover it by itself: a process that replaces itself by a role calls
`hold_signals_for_exec`, since a blocked signal outlives `exec`.
"""

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its import takes longer than the start of the interpreter
    import asyncio

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How long the clients of a role may take to close, after it has drained or given that up.
CLOSE_S_MAX = 1.5


def exit_on_signal() -> None:
    """From now on end the process with 0 on SIGTERM or SIGINT, also on one that was held."""
    for number in SIGNALS:
        signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def exit_within(seconds: float, code: int = 0) -> None:
    """End this process after a time, whatever still runs by then.

    A client whose server is away may take for ever to close. All that counts is in Kafka or in the
    tables, so that this is as safe as kill -9.

    Args:
        seconds: from now.
        code: the exit code.
    """

    def end() -> None:
        import structlog

        structlog.get_logger().error("ending.cut_short", after_s=seconds, exit_code=code)
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def stop_on_signal(stop: "asyncio.Event", drain_s_max: float | None = None) -> None:
    """From now on set an event of the running loop on SIGTERM or SIGINT.

    This stays in force when the loop is closed: a second signal never cuts the end short.

    Args:
        stop: the event.
        drain_s_max: how long the role may drain; `CLOSE_S_MAX` later its process ends at the
            latest. None: it may take any time.
    """
    from asyncio import get_running_loop

    loop = get_running_loop()

    def begin_to_stop() -> None:
        if drain_s_max is not None and not stop.is_set():
            exit_within(drain_s_max + CLOSE_S_MAX)
        stop.set()

    def handle(number: int, frame: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            loop.call_soon_threadsafe(begin_to_stop)

    # Not loop.add_signal_handler: a loop that closes puts the default back, which kills.
    for number in SIGNALS:
        signal.signal(number, handle)


def hold_signals_for_exec() -> None:
    """Block both signals until the role that replaces this process handles them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _end(number: int, frame: object) -> None:
    # SystemExit could be swallowed by an import in progress.
    os._exit(0)
