"""Waiting ends with the event, the work or the time, whichever comes first."""

import asyncio

import pytest

from alpha_pulse.contracts.roles.waiting import set_within, unless
from tests.patience import PATIENCE_S


async def test_waiting_ends_with_the_work_or_with_the_word_to_stop() -> None:
    stop = asyncio.Event()

    async def work() -> int:
        return 7

    assert await unless(stop, work()) == 7
    stop.set()
    forever = asyncio.Event()
    assert await unless(stop, forever.wait()) is None


async def test_work_that_is_cut_is_cancelled_and_what_it_raises_is_raised() -> None:
    stop, begun = asyncio.Event(), asyncio.Event()
    ended = False

    async def work() -> int:
        nonlocal ended
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended = True
        return 7

    waiting = asyncio.create_task(unless(stop, work()))
    await begun.wait()
    stop.set()
    assert await asyncio.wait_for(waiting, PATIENCE_S) is None
    assert ended

    async def fail() -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        await unless(asyncio.Event(), fail())


async def test_an_event_is_waited_for_so_long() -> None:
    event = asyncio.Event()
    assert await set_within(0.001, event) is False
    asyncio.get_running_loop().call_soon(event.set)
    assert await set_within(PATIENCE_S, event) is True
    assert await set_within(0.0, event) is True
