"""The sink killed, held up, cut off and refused: nothing lost, nothing twice.

A short run by default; `ALPHA_PULSE_FAULTS=full` kills 20 times at random and 5 times between
insert and acknowledgement, under 10,000 rows/s, and rebalances 20 times.
"""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from alpha_pulse.contracts.config import ClickHouseConfig, Config, KafkaConfig
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.lanes.consumer import Sink
from tests.faults.clickhouse_proxy import FullDisk, Proxy, clickhouse_error
from tests.faults.link import Link
from tests.patience import FULL, PATIENCE_S, check_promise

KILLS = 20 if FULL else 2
CUTS = 5 if FULL else 1
REBALANCES = 20 if FULL else 2
FAULTY_ROWS = 50_000 if FULL else 20_000
# What is waited for has limits of its own; twenty kills take their time on a busy machine.
pytestmark = pytest.mark.timeout(1_800 if FULL else 900)


async def test_killed_at_random_under_load_nothing_is_lost_or_stored_twice(
    config: Config, load: Any, stored: Any, new_sink: Callable[[Config], Any], seed: int
) -> None:
    chance = random.Random(seed)
    sink = new_sink(config)
    async with load.running():
        for _ in range(KILLS):
            await sink.start()
            await stored.grows()
            await asyncio.sleep(chance.uniform(0.0, 1.5))
            await sink.kill()
    await stored.completed_by(sink, load)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_killed_between_insert_and_acknowledgement_nothing_is_lost_or_stored_twice(
    side: str,
    load: Any,
    stored: Any,
    proxy: Proxy,
    through: Config,
    new_sink: Callable[[Config], Any],
    seed: int,
) -> None:
    # before: ClickHouse gets the rows although their sender is dead; after: they are stored and
    # nobody is left to hear of it.
    chance = random.Random(seed)
    sink = new_sink(through)
    async with load.running():
        for _ in range(CUTS):
            cut = asyncio.Event()
            wait = chance.randrange(1, 8)

            async def hook(token: str, cut: asyncio.Event = cut, wait: int = wait) -> None:
                if not cut.is_set() and proxy.inserts >= wait:
                    cut.set()
                    await sink.kill()

            proxy.inserts = 0
            setattr(proxy, side, hook)
            await sink.start()
            await sink.meets(cut)
            setattr(proxy, side, None)
    await stored.completed_by(sink, load)


async def test_an_insert_that_arrives_after_its_dead_senders_heir_stored_the_rows_adds_none(
    config: Config,
    load: Any,
    stored: Any,
    proxy: Proxy,
    through: Config,
    new_sink: Callable[[Config], Any],
) -> None:
    held, released, arrived = asyncio.Event(), asyncio.Event(), asyncio.Event()
    late: list[str] = []
    sink = new_sink(through)
    successor = new_sink(config)

    async def before(token: str) -> None:
        if not held.is_set():
            late.append(token)
            held.set()
            await sink.kill()
            await released.wait()

    async def after(token: str) -> None:
        if token in late:
            arrived.set()

    proxy.before, proxy.after = before, after
    await sink.start()
    try:
        async with asyncio.timeout(PATIENCE_S), load.running():
            await held.wait()
            await successor.start()
            await successor.resumed()
        await stored.reaches(load.sent)
        released.set()
        async with asyncio.timeout(PATIENCE_S):
            await arrived.wait()
    finally:
        released.set()
        assert await successor.terminate() == 0
    assert await stored.figures() == (load.sent, load.sent, load.sent)


@pytest.mark.skipif(not FULL, reason="long form: ALPHA_PULSE_FAULTS=full")
async def test_a_sink_that_stood_still_and_goes_on_after_it_was_replaced_stores_nothing_twice(
    config: Config, load: Any, stored: Any, new_sink: Callable[[Config], Any], seed: int
) -> None:
    chance = random.Random(seed)
    still, successor = new_sink(config), new_sink(config)
    await still.start()
    await still.resumed()
    try:
        async with load.running():
            for _ in range(CUTS):
                await stored.reaches(load.sent)
                await asyncio.sleep(chance.uniform(0.0, 0.5))
                still.process.send_signal(signal.SIGSTOP)
                await successor.start()
                await successor.resumed()
                await stored.reaches(load.sent)
                still.process.send_signal(signal.SIGCONT)
                await stored.reaches(load.sent + 5_000)
                assert await successor.terminate() == 0
        await stored.reaches(load.sent)
    finally:
        still.process.send_signal(signal.SIGCONT)
        assert await still.terminate() == 0
    assert await stored.figures() == (load.sent, load.sent, load.sent)


async def test_two_sinks_that_come_and_go_show_each_trade_once(
    config: Config, load: Any, stored: Any, new_sink: Callable[[Config], Any], seed: int
) -> None:
    chance = random.Random(seed)
    stays, comes = new_sink(config), new_sink(config)
    await stays.start()
    try:
        async with load.running():
            await stored.reaches(1)
            for _ in range(REBALANCES):
                await comes.start()
                await comes.resumed()
                await asyncio.sleep(chance.uniform(0.0, 1.0))
                assert await comes.terminate() == 0
        await stored.reaches(load.sent)
    finally:
        assert await stays.terminate() == 0
    rows, positions, identities = await stored.figures()
    assert (positions, identities) == (load.sent, load.sent)
    assert rows == positions
    shown = await stored.clickhouse.rows(f"SELECT count() FROM {config.database}.trades")
    assert shown == [(load.sent,)]


FAULTS = {
    "an overloaded server": (503, 202, "Too many simultaneous queries"),
    "a full disk": (500, 243, "Cannot reserve 1.00 MiB, not enough space"),
    "too many parts": (500, 252, "Too many parts (3000). Merges are processing slower"),
    "a read-only table": (500, 242, "Table is in readonly mode"),
    "a lost session": (500, 999, "Session expired"),
    "a memory limit": (500, 241, "Memory limit (total) exceeded"),
}


async def test_passing_faults_are_waited_out_and_no_row_goes_to_dead_letters(
    config: Config,
    load: Any,
    stored: Any,
    proxy: Proxy,
    through: Config,
    new_sink: Callable[[Config], Any],
    seed: int,
) -> None:
    chance = random.Random(seed)

    async def before(token: str) -> Any:
        kind = chance.randrange(len(FAULTS) + 4)
        if kind < len(FAULTS):
            return clickhouse_error(*list(FAULTS.values())[kind])
        if kind == len(FAULTS):
            raise ConnectionResetError("cut before the insert")
        return None

    async def after(token: str) -> Any:
        if chance.random() < 0.3:
            raise ConnectionResetError("cut after the commit")
        return None

    proxy.before, proxy.after = before, after
    sink = new_sink(through)
    await sink.start()
    try:
        async with load.running():
            await stored.reaches(FAULTY_ROWS)
        await stored.reaches(load.sent)
    finally:
        proxy.before = proxy.after = None
        assert await sink.terminate() == 0
    assert await stored.figures() == (load.sent, load.sent, load.sent)
    letters = await stored.clickhouse.rows(
        f"SELECT count() FROM {config.database}.dead_letters_log"
    )
    assert letters == [(0,)]


async def test_a_sink_told_to_stop_while_clickhouse_is_away_ends_with_0(
    load: Any,
    stored: Any,
    proxy: Proxy,
    through: Config,
    new_sink: Callable[[Config], Any],
) -> None:
    full = proxy.before = FullDisk()
    sink = new_sink(replace(through, sink=replace(through.sink, drain_s_max=1.0)))
    await sink.start()
    async with load.running():
        async with asyncio.timeout(PATIENCE_S):
            await full.met.wait()
    began_s = time.monotonic()
    assert await sink.terminate() == 0
    check_promise(time.monotonic() - began_s, 10)
    proxy.before = None
    await stored.completed_by(sink, load)


async def test_a_sink_that_cannot_record_where_it_begins_waits_idly_and_ends_when_it_is_told_to(
    config: Config,
    clickhouse: ClickHouse,
    proxy: Proxy,
    through: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused: asyncio.Queue[float] = asyncio.Queue()
    polls = 0
    fetch = Sink._fetch

    async def counted(sink: Sink, *arguments: Any) -> Any:
        nonlocal polls
        polls += 1
        return await fetch(sink, *arguments)

    async def before(token: str) -> Any:
        refused.put_nowait(time.monotonic())
        return clickhouse_error(500, 243, "not enough space")

    monkeypatch.setattr(Sink, "_fetch", counted)
    proxy.before_progress = before
    stop = asyncio.Event()
    running = asyncio.create_task(Sink(through).run(stop))
    async with asyncio.timeout(PATIENCE_S):
        first_s = await refused.get()
        polls = 0
        for _ in range(4):
            last_s = await refused.get()
    # Ten a second are meant; without a position the consumer fails a thousand times a second.
    assert polls <= 40 * (last_s - first_s) + 20
    stop.set()
    began_s = time.monotonic()
    await asyncio.wait_for(running, PATIENCE_S)
    # What may take its time is bounded: draining, then whatever does not end by itself.
    check_promise(time.monotonic() - began_s, config.sink.drain_s_max + 15)


async def test_a_sink_started_before_clickhouse_and_kafka_waits_for_them(
    config: Config, new_sink: Callable[[Config], Any]
) -> None:
    async with Link(0).serve() as kafka, Link(0).serve() as clickhouse:
        for link in (kafka, clickhouse):
            link.cut()
        nowhere = replace(
            config,
            kafka=KafkaConfig(bootstrap=f"127.0.0.1:{kafka.port}"),
            clickhouse=ClickHouseConfig(url=f"http://127.0.0.1:{clickhouse.port}"),
        )
        for absent, asked in (
            (nowhere, clickhouse),
            (replace(nowhere, clickhouse=config.clickhouse), kafka),
        ):
            sink = new_sink(absent)
            await sink.start()
            async with asyncio.timeout(PATIENCE_S):
                while asked.connections < 3:  # asked in vain, and asked again
                    assert sink.process.returncode is None
                    await asyncio.sleep(0.05)
            assert await sink.terminate() == 0
