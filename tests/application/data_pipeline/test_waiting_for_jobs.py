"""What a history job published is waited for as long as anything is stored, and not for ever."""

from types import SimpleNamespace
from typing import Any

import pytest

from alpha_pulse.contracts.errors import StorageError
from alpha_pulse.data_pipeline.history import jobs


class Sink:
    """A table that is filled: with others' rows first, then with the job's. Time goes by asking."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: int, of_others_max: int) -> None:
        self.asked, self.before, self.of_others_max = 0, before, of_others_max
        self.now_s = 0.0

        async def sleep(seconds: float) -> None:
            self.now_s += seconds

        class Loop:
            def time(_) -> float:
                return self.now_s

        clock = SimpleNamespace(sleep=sleep, get_running_loop=Loop)
        monkeypatch.setattr(jobs, "asyncio", clock)

    async def arrived(self) -> int:
        self.asked += 1
        return max(0, self.asked - self.before)

    async def count_rows(self) -> int:
        return min(self.asked, self.of_others_max)


async def wait(sink: Sink) -> None:
    found: Any = sink
    await jobs.wait_for(found, sink.arrived, 3, "candles")


async def test_a_job_behind_others_is_waited_for_while_they_are_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = Sink(monkeypatch, before=500, of_others_max=500)
    await wait(sink)
    assert sink.now_s > 10 * jobs.STILL_S_MAX


async def test_where_nothing_at_all_is_stored_the_wait_ends_after_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = Sink(monkeypatch, before=10**9, of_others_max=0)
    with pytest.raises(StorageError, match=r"found 0 and nothing new for 6\d s"):
        await wait(sink)
    assert jobs.STILL_S_MAX < sink.now_s < 2 * jobs.STILL_S_MAX


async def test_others_that_never_end_are_not_waited_for_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = Sink(monkeypatch, before=10**9, of_others_max=10**9)
    with pytest.raises(StorageError, match="found 0 and nothing new"):
        await wait(sink)
    assert sink.now_s > jobs.BEHIND_S_MAX
