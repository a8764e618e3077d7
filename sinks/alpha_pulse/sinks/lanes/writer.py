"""One batch into its table: retried for ever, months apart, refused rows found by splitting."""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable

import structlog

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.dead_letters import RefusalLimit, dead_letter_of_row
from alpha_pulse.contracts.errors import StorageError
from alpha_pulse.contracts.events import DeadLetter
from alpha_pulse.contracts.kinds import DEAD_LETTER
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.client import (
    ClickHouse,
    ManyMonths,
    PassingFault,
    RowsRefused,
    retries,
)
from alpha_pulse.sinks.clickhouse.tables import Table
from alpha_pulse.sinks.lanes.offsets import OffsetStore

log = structlog.get_logger(__name__)

REFUSED = "refused_by_clickhouse"

PublishDeadLetter = Callable[[bytes, bytes], Awaitable[None]]  # key, value; returns once stored


class TooManyRefused(StorageError):
    """So many rows were refused that the code or the schema is wrong, not the data."""


class Writer:
    """Stores batches. publish: puts a dead letter into Kafka, returns when it is there."""

    def __init__(
        self,
        clickhouse: ClickHouse,
        offsets: OffsetStore,
        database: str,
        publish: PublishDeadLetter,
        *,
        retry_wait_s_max: float,
        refused_run_max: int,
        refused_ratio_max: float,
    ) -> None:
        self._clickhouse = clickhouse
        self._offsets = offsets
        self._database = database
        self._publish = publish
        self._retry_wait_s_max = retry_wait_s_max
        self._limits: defaultdict[str, RefusalLimit] = defaultdict(
            lambda: RefusalLimit(refused_run_max, refused_ratio_max)
        )
        self.rows_stored = 0
        self.rows_refused = 0
        self.inserts = 0
        self.last_fault: str = ""
        self.faults = 0
        self.stored_by_table: Counter[str] = Counter()
        self.refused_by_table: Counter[str] = Counter()

    async def store(self, batch: Batch, table: Table, topic: str, generation: int) -> None:
        """Return once every row is stored, or refused for good and kept as a dead letter.

        Raises: TooManyRefused.
        """
        if batch.spans_months(table.time_field):
            await self._store_apart(batch, table, topic, generation)
            return
        try:
            await self._insert(batch, table, generation)
        except ManyMonths:
            await self._store_apart(batch, table, topic, generation)
        except RowsRefused as error:
            await self._find_refused(batch, table, topic, generation, error)

    async def _insert(self, batch: Batch, table: Table, generation: int) -> None:
        # The same bytes and the same token on each attempt: whichever of them arrived, the rows are
        # stored once.
        body = batch.body()
        settings = {"insert_deduplication_token": batch.token(generation)}
        async for attempt in retries(self._retry_wait_s_max):
            with attempt:
                try:
                    await self._clickhouse.insert(
                        f"{self._database}.{table.name}", table.insert_columns, body, settings
                    )
                except PassingFault as error:
                    self.last_fault = str(error)
                    self.faults += 1
                    raise
        self.last_fault = ""
        self.inserts += 1
        self.rows_stored += len(batch.offsets)
        self.stored_by_table[table.name] += len(batch.offsets)
        self._limits[batch.name].accept(len(batch.offsets))

    async def _store_apart(self, batch: Batch, table: Table, topic: str, generation: int) -> None:
        if len(batch.offsets) == 1:
            raise StorageError(
                f"expected a single row of {batch.name} to have one month, found more in "
                f"{batch.token(generation)}; is {table.name} partitioned by month?"
            )
        months = batch.by_month(table.time_field)
        parts = list(months.values()) if len(months) > 1 else list(batch.halves())
        for part in parts:
            await self.store(part, table, topic, generation)

    async def _find_refused(
        self, batch: Batch, table: Table, topic: str, generation: int, error: RowsRefused
    ) -> None:
        if len(batch.offsets) > 1:
            for half in batch.halves():
                await self.store(half, table, topic, generation)
            return
        try:
            # Once more: a body that a broken connection cut short is refused like bad data.
            await self._insert(batch, table, generation)
        except RowsRefused as confirmed:
            await self._refuse(batch, table, topic, confirmed)

    async def _refuse(self, batch: Batch, table: Table, topic: str, error: RowsRefused) -> None:
        offset, value = batch.offsets[0], batch.values[0]
        letter = dead_letter_of_row(
            topic, batch.partition, offset, value,
            reason=REFUSED, error=str(error), timestamp_ms=batch.timestamp_ms,
        )  # fmt: skip
        if table.kind is DEAD_LETTER and REFUSED.encode() in (value or b""):
            raise TooManyRefused(
                f"expected our own dead letter to be stored, found {letter.identity} refused: "
                f"{error}; the schema of dead_letters_log is not this version's"
            )
        await self._publish(letter.identity.encode(), encode(letter))
        async for attempt in retries(self._retry_wait_s_max):
            with attempt:
                await self._offsets.save_skipped(
                    batch.name, batch.partition, (offset, offset), "refused"
                )
        self.rows_refused += 1
        self.refused_by_table[table.name] += 1
        log.warning(
            "row.refused",
            topic=topic,
            partition=batch.partition,
            offset=offset,
            table=table.name,
            error=letter.error[:300],
        )
        self._check_limit(batch.name, letter)

    def _check_limit(self, name: str, letter: DeadLetter) -> None:
        limit = self._limits[name]
        limit.refuse()
        if limit.is_exceeded:
            raise TooManyRefused(
                f"expected few rows of {name} to be refused, found {limit.run} in a row and "
                f"{limit.refused} of the last {limit.window}, the last one {letter.identity}: "
                f"{letter.error}; does the schema fit this version? Nothing was lost: the rows are "
                "dead letters"
            )
