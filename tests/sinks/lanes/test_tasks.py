"""Work in the background: failures are kept, and all of it ends when it is told to."""

import asyncio

import pytest

from alpha_pulse.sinks.lanes.tasks import Tasks


async def test_the_first_failure_is_raised_to_who_asks() -> None:
    tasks = Tasks()

    async def fail(text: str) -> None:
        raise ValueError(text)

    await asyncio.wait([tasks.start(fail("first"))])
    await asyncio.wait([tasks.start(fail("second"))])
    with pytest.raises(ValueError, match="first"):
        tasks.raise_failure()


async def test_a_task_that_missed_its_cancellation_is_told_again() -> None:
    tasks = Tasks()
    missed = 0

    async def work() -> None:
        # As a time-out does that fires in the same moment: it takes the one for the other.
        nonlocal missed
        while missed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                missed += 1
        await asyncio.Event().wait()

    task = tasks.start(work())
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.end(30.0), 20.0)
    assert task.cancelled()
    assert missed == 2
    assert tasks.failure is None
