"""Work in the background: the first failure is kept, and all of it ends on request."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from alpha_pulse.contracts.roles.closing import cancel_within

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
        await cancel_within(within_s, self._running)

    def _finished(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None and self.failure is None:
            self.failure = task.exception()
