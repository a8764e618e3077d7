"""History jobs: events of the past between two markers, into the ingest log.

A job is narrow: it covers only what it brings, so that whatever the processors publish for its
windows is whole. Each has an id of its own, by which its rows are recognized in ClickHouse.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from alpha_pulse.contracts.codec import encode, encode_for_job
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.dead_letters import dead_letter_of_frame
from alpha_pulse.contracts.errors import StorageError
from alpha_pulse.contracts.events import Candle, Gap, HistoryMarker, Ids, Trade
from alpha_pulse.contracts.kinds import IngestEvent
from alpha_pulse.contracts.market import (
    PUBLISHED_TIMEFRAMES,
    TIMEFRAMES,
    Timeframe,
    message_key,
)
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.topics import DEAD_LETTERS, INGEST
from alpha_pulse.data_pipeline.history.stored import StoredMarket, reason_text
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.rows import RefusedRow
from alpha_pulse.producers.history.missing import Reason, Window

# What was published shows up in ClickHouse within seconds; standing still for so long is a fault.
STILL_S_MAX = 60.0
# As long as anything is stored, a sink works its way through what came before, for so long.
BEHIND_S_MAX = 1_800.0
POLL_S = 0.1
IDS_AT_ONCE_MAX = 5_000
POLL_S_MAX = 2.0
LONG_POLL_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """One history job of one symbol. timeframe: of its candles; None: it brings trades."""

    name: str
    market: Market
    timeframe: Timeframe | None
    start_us: int
    end_us: int


class JobWriter:
    """Publishes jobs. One instance serves all symbols; a symbol's jobs come one after another."""

    def __init__(self, config: Config, publisher: Publisher) -> None:
        self._topic = INGEST.full_name(config.namespace)
        self._dead_letters = DEAD_LETTERS.full_name(config.namespace)
        self._publisher = publisher

    async def begin(
        self, market: Market, timeframe: Timeframe | None, start_us: int, end_us: int,
        kind: str = "backfill",
    ) -> Job:  # fmt: skip
        """Open a job over `[start_us, end_us)`. kind: the beginning of its id."""
        job = Job(f"{kind}-{uuid.uuid4().hex[:16]}", market, timeframe, start_us, end_us)
        await self._mark(job, "start")
        return job

    async def put(self, job: Job, events: Sequence[Candle | Trade | Ids]) -> None:
        """Publish events of the job, in their order; waits while too much is on its way."""
        await self._publish(job, encode_for_job(events, job.name))

    async def explain(self, job: Job, window: Window, reason: Reason) -> None:
        """Publish that there is nothing in a window, and why."""
        gap = Gap(
            exchange=job.market.exchange,
            symbol=job.market.symbol,
            first_trade_id=None,
            last_trade_id=None,
            start_time_us=window.start_us,
            end_time_us=window.end_us,
            status="unfillable",
            reason=reason_text(reason),
            job=job.name,
        )
        await self._publish(job, [encode(gap)])

    async def end(self, job: Job) -> None:
        """Close the job and wait until Kafka has acknowledged everything."""
        await self._mark(job, "end")
        await self._publisher.flush()

    async def publish(self, market: Market, event: IngestEvent) -> None:
        """Publish one event outside of jobs, such as a gap that was filled."""
        key = message_key(market.exchange, market.symbol)
        await self._publisher.publish(self._topic, key, [encode(event)])

    async def refuse(self, market: Market, rows: Iterable[RefusedRow]) -> None:
        """Publish the dead letters of rows that the exchange answered with."""
        for row in rows:
            letter = dead_letter_of_frame(
                row.payload,
                market.exchange,
                market.symbol,
                reason=row.error.reason,
                error=str(row.error),
                time_us=time.time_ns() // 1000,
            )
            key = letter.identity.encode()
            await self._publisher.publish(self._dead_letters, key, [encode(letter)])

    async def flush(self) -> None:
        """Wait until Kafka has acknowledged everything."""
        await self._publisher.flush()

    async def _mark(self, job: Job, edge: str) -> None:
        marker = HistoryMarker(
            exchange=job.market.exchange,
            symbol=job.market.symbol,
            job=job.name,
            edge="start" if edge == "start" else "end",
            timeframe=None if job.timeframe is None else job.timeframe.name,
            start_time_us=job.start_us,
            end_time_us=job.end_us,
            ids_are_consecutive=exchange_of(job.market.exchange).ids_are_consecutive,
        )
        await self._publish(job, [encode(marker)])

    async def _publish(self, job: Job, values: list[bytes]) -> None:
        key = message_key(job.market.exchange, job.market.symbol)
        await self._publisher.publish(self._topic, key, values)


async def wait_for_candles(stored: StoredMarket, job: Job, open_times_us: Iterable[int]) -> None:
    """Return once the job's candles, and the longer ones made of them, are in ClickHouse.

    open_times_us: of the candles that it brought, or that its trades make.
    Raises: StorageError when nothing more arrives although it was published.
    """

    count = expected_windows(job, open_times_us)

    async def arrived() -> int:
        return await stored.count_of_job(job.market, job.start_us, job.end_us, job.name, count)

    await wait_for(stored, arrived, count, f"candles of the job {job.name}")


def expected_windows(job: Job, open_times_us: Iterable[int]) -> int:
    """Return how many windows the processors publish of a job, of all timeframes."""
    opens = set(open_times_us)
    shortest = TIMEFRAMES["1m"] if job.timeframe is None else job.timeframe
    count = len(opens)
    for name in PUBLISHED_TIMEFRAMES:
        longer = TIMEFRAMES[name]
        if longer.duration_us > shortest.duration_us:
            opens = {longer.open_time_us(open_us) for open_us in opens}
            count += sum(
                job.start_us <= open_us and open_us + longer.duration_us <= job.end_us
                for open_us in opens
            )
    return count


async def wait_for_trades(stored: StoredMarket, job: Job, count: int) -> None:
    """Return once so many trades of the job's window are in ClickHouse; raises as above."""

    async def arrived() -> int:
        return await stored.count_trades(job.market, job.start_us, job.end_us)

    await wait_for(stored, arrived, count, f"trades of the job {job.name}")


async def wait_for_no_trades(stored: StoredMarket, job: Job, count: int) -> None:
    """Return once so many runs of ids of no trade of the job are in ClickHouse; raises as above."""
    if not count:
        return

    async def arrived() -> int:
        return await stored.count_no_trades(job.market, job.start_us, job.end_us, job.name)

    await wait_for(stored, arrived, count, f"runs of ids of no trade of the job {job.name}")


async def wait_for_ids(
    stored: StoredMarket, market: Market, ids: Sequence[str], start_us: int, end_us: int
) -> None:
    """Return once trades with these ids, of that window, are in ClickHouse; raises as above."""
    for first in range(0, len(ids), IDS_AT_ONCE_MAX):
        wanted = list(ids[first : first + IDS_AT_ONCE_MAX])

        async def arrived(wanted: list[str] = wanted) -> int:
            return await stored.count_ids(market, wanted, start_us, end_us)

        await wait_for(stored, arrived, len(wanted), f"trades of {market.symbol}")


async def wait_for(
    stored: StoredMarket, arrived: Callable[[], Awaitable[int]], count: int, what: str
) -> None:
    """Return once so many have arrived; what: they are, for the error.

    Raises: StorageError when no more arrive and nothing else is stored either.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    best, moved_s, wait_s = -1, began_s, POLL_S
    rows, stored_s = -1, began_s  # of everybody
    while True:
        asked_s = loop.time()
        found = await arrived()
        if found >= count:
            return
        # Counting costs more the more there is: a long job is asked about less often.
        wait_s = max(wait_s, min(LONG_POLL_SHARE * (asked_s - began_s), POLL_S_MAX))
        if found > best:
            best, moved_s = found, loop.time()
        elif (rows_now := await stored.count_rows()) != rows:
            rows, stored_s = rows_now, loop.time()
        still_s, idle_s = loop.time() - moved_s, loop.time() - max(moved_s, stored_s)
        if idle_s > STILL_S_MAX or still_s > BEHIND_S_MAX:
            raise StorageError(
                f"expected {count} {what} in ClickHouse, found {found} and nothing new for "
                f"{still_s:.0f} s; they are in Kafka: look whether processor and sink run"
            )
        await asyncio.sleep(wait_s)
