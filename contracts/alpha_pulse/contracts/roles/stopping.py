"""The order to end, SIGTERM or SIGINT: heard from the first line of a process to its last.

A role calls `end_at_once_when_told` before its heavy imports, when there is nothing to drain, and
`stop_when_told` once its loop runs. What lies before the first line, the interpreter's own start,
no process can cover; whoever replaces itself by a role calls `hold_for_exec` and covers that too,
for a blocked signal outlives `exec`.
"""

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its import takes longer than the start of the interpreter
    import asyncio

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# After a role has drained, or given that up, its clients have so long to close.
CLOSE_S_MAX = 1.5


def end_at_once_when_told() -> None:
    """End the process with 0 on SIGTERM or SIGINT, also one that came before and was held."""
    for number in SIGNALS:
        signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def end_within(seconds: float, code: int = 0) -> None:
    """End this process after so many seconds, whatever still runs by then.

    A client whose server is away may take for ever to close. All that counts is in Kafka or in the
    tables, so that this is as safe as kill -9.
    """

    def end() -> None:
        import structlog

        structlog.get_logger().error("ending.cut_short", after_s=seconds, exit_code=code)
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def stop_when_told(stop: "asyncio.Event", drain_s_max: float | None = None) -> None:
    """From now on set the event of the running loop on SIGTERM or SIGINT.

    drain_s_max: how long a role may drain; its process ends CLOSE_S_MAX later at the latest. None:
    when it likes. Stays in force when the loop is closed: an order that is repeated never cuts the
    end short.
    """
    from asyncio import get_running_loop

    loop = get_running_loop()

    def begin_to_end() -> None:
        if drain_s_max is not None and not stop.is_set():
            end_within(drain_s_max + CLOSE_S_MAX)
        stop.set()

    def told(number: int, frame: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            loop.call_soon_threadsafe(begin_to_end)

    # Not loop.add_signal_handler: a loop that closes puts the default back, which kills.
    for number in SIGNALS:
        signal.signal(number, told)


def hold_for_exec() -> None:
    """Keep the signals waiting until the role that replaces this process can hear them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _end(number: int, frame: object) -> None:
    # SystemExit could be swallowed by an import in progress.
    os._exit(0)
