"""Ending tasks and closing clients within a time, whatever they wait for.

A client whose server is away may take for ever to close. All that counts is in Kafka or in the
tables, so that leaving it behind is as safe as kill -9.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Any

import structlog

log = structlog.get_logger(__name__)

CANCEL_S_MAX = 2.0
# A task that was cancelled and still runs is cancelled again. Once may not be enough: where a
# time-out of the library below fires in the same moment, it takes the one for the other.
_CANCEL_INTERVAL_S = 0.5


async def close_within(
    seconds: float,
    closing: Coroutine[Any, Any, object],
    *,
    expected: tuple[type[Exception], ...] = (),
) -> bool:
    """Wait until a client has closed, but only so long; then cancel that and go on without it.

    Args:
        seconds: how long it may take; cancelling takes at most `CANCEL_S_MAX` more.
        closing: what closes the client, such as `consumer.stop()`.
        expected: errors that only say that the server is away; they are logged at level debug.

    Returns:
        Whether it ended in time, closed or failed as expected.

    Raises:
        Exception: what closing failed with in time, unless it was expected.
    """
    task = asyncio.ensure_future(closing)
    try:
        await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not task.done():
        await cancel_within(CANCEL_S_MAX, [task])
        return False
    try:
        task.result()
    except expected as error:
        log.debug("close.failed", error=f"{type(error).__name__}: {error}")
    return True


async def cancel_within(seconds: float, tasks: Iterable["asyncio.Task[Any]"]) -> bool:
    """Cancel tasks and wait for their end, at most so long.

    Args:
        seconds: how long it may take. A task that still runs is cancelled again and again.
        tasks: those to end; what they fail with is ignored.

    Returns:
        Whether all ended in time.
    """
    end_s = time.monotonic() + seconds
    left = {task for task in tasks if not task.done()}
    while left and time.monotonic() < end_s:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=min(_CANCEL_INTERVAL_S, seconds))
        for task in ended:
            if not task.cancelled():
                task.exception()  # seen; else Python complains that nobody looked
    if left:
        log.warning("tasks.left", tasks=sorted(task.get_name() for task in left))
    return not left
