"""Clients and tasks end within a time, whatever they wait for."""

import asyncio

import pytest

from alpha_pulse.contracts.roles.closing import cancel_within, close_within
from tests.patience import PATIENCE_S


async def test_a_task_that_never_ends_holds_nobody_up() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert await cancel_within(0.05, [task]) is False
    ended.set()
    await task


async def test_a_client_that_closes_is_waited_for() -> None:
    closed = False

    async def close() -> None:
        nonlocal closed
        await asyncio.sleep(0)
        closed = True

    assert await close_within(PATIENCE_S, close()) is True
    assert closed


async def test_a_client_that_hangs_is_cancelled() -> None:
    was_cancelled = False

    async def close() -> None:
        nonlocal was_cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled = True
            raise

    assert await close_within(0.01, close()) is False
    assert was_cancelled


async def test_a_client_that_fails_while_it_is_cancelled_says_nothing_more() -> None:
    async def close() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("gone")

    assert await close_within(0.01, close()) is False


async def test_an_error_is_raised_unless_it_was_expected() -> None:
    async def close() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await close_within(PATIENCE_S, close())
    with pytest.raises(OSError, match="away"):
        await close_within(PATIENCE_S, close(), expected=(ValueError,))
    assert await close_within(PATIENCE_S, close(), expected=(OSError,)) is True


async def test_who_closes_may_be_cancelled_and_takes_the_closing_along() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def close() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    closing = asyncio.create_task(close_within(PATIENCE_S, close()))
    await begun.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await asyncio.wait_for(ended.wait(), PATIENCE_S)
