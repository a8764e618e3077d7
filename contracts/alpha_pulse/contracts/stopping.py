"""The order to end, SIGTERM or SIGINT: heard from the first line of a process to its last.

A role calls `end_at_once_when_told` before its heavy imports, when there is nothing to drain, and
`stop_when_told` once its loop runs. What lies before the first line, the interpreter's own start,
no process can cover; whoever replaces itself by a role calls `hold_for_exec` and covers that too,
for a blocked signal outlives `exec`.
"""

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its import takes longer than the start of the interpreter
    import asyncio

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_at_once_when_told() -> None:
    """End the process with 0 on SIGTERM or SIGINT, also one that came before and was held."""
    for number in SIGNALS:
        signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def stop_when_told(stop: "asyncio.Event") -> None:
    """From now on set the event of the running loop on SIGTERM or SIGINT.

    Stays in force when the loop is closed: an order that is repeated never cuts the end short.
    """
    from asyncio import get_running_loop

    loop = get_running_loop()

    def told(number: int, frame: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is ending
            loop.call_soon_threadsafe(stop.set)

    # Not loop.add_signal_handler: a loop that closes puts the default back, which kills.
    for number in SIGNALS:
        signal.signal(number, told)


def hold_for_exec() -> None:
    """Keep the signals waiting until the role that replaces this process can hear them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _end(number: int, frame: object) -> None:
    # SystemExit could be swallowed by an import in progress.
    os._exit(0)
