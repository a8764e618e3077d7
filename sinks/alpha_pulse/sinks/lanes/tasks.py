"""Work in the background: the first failure is kept, and all of it ends on request."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(__name__)

# A task that was cancelled and still runs is cancelled again. Once may not be enough: where a
# time-out of the library below fires in the same moment, it takes the one for the other.
_CANCEL_AGAIN_S = 0.5

ResultT = TypeVar("ResultT")


class Tasks:
    """The tasks that somebody started and did not wait for."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self.failure: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, ResultT]) -> "asyncio.Task[ResultT]":
        """Run in the background until it returns or `end` is called."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    def raise_failure(self) -> None:
        """Raise what the first task failed with, if one did."""
        if self.failure is not None:
            raise self.failure

    async def end(self, within_s: float) -> None:
        """Cancel all; return when all have ended, or when the time is over."""
        await cancelled(self._running, within_s)

    def _finished(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None and self.failure is None:
            self.failure = task.exception()


async def cancelled(tasks: "set[asyncio.Task[Any]]", within_s: float) -> bool:
    """Cancel tasks and wait for their end; return whether all ended in time."""
    end_s = time.monotonic() + within_s
    left = {task for task in tasks if not task.done()}
    while left and time.monotonic() < end_s:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=min(_CANCEL_AGAIN_S, within_s))
    if left:
        log.warning("tasks.left", tasks=sorted(task.get_name() for task in left))
    return not left


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """Return what the work returns, or None (the work cancelled) when `stop` is set before."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
