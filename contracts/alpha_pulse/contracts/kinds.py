"""The table of kinds: every kind of event, with each fact about it that more than one room needs.

Topics, codecs, JSON Schemas, AsyncAPI, the tables of the docs, the log tables and their views, what
sinks store, retention, the typed reader and the library's SQL tables follow from this table. What
is special to one kind (a candle's revision, a gap's healing) is code in that kind's room.

A new kind is its Struct in `events`, its examples in `schema.examples`, and its entry here; then
the code of its own room (docs/contracts.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar, get_args

import msgspec

from alpha_pulse.contracts.events import (
    Audit,
    Candle,
    DeadLetter,
    Gap,
    Heartbeat,
    HistoryMarker,
    Ids,
    StreamStatus,
    Trade,
)
from alpha_pulse.contracts.fields import Field, decimal_fields, fields_of, time_fields
from alpha_pulse.contracts.market import PUBLISHED_TIMEFRAMES

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

EventT_co = TypeVar("EventT_co", bound=msgspec.Struct, covariant=True)


@dataclass(frozen=True)
class TopicOf(Generic[EventT_co]):
    """One topic of the pipeline, and the type of what is read from it.

    Attributes:
        name: without a namespace.
        events: the Structs that travel in it; none: it is no reader's concern what does.
        description: for people.
        key: what Kafka's key is made of.
        retention_ms: how long Kafka keeps a record.
        cleanup: `compact` keeps the newest record of each key for ever.
        internal: read by the role that writes it alone.
    """

    name: str
    events: tuple[type[msgspec.Struct], ...]
    description: str
    key: str = "exchange:symbol"
    retention_ms: int = 7 * DAY_MS
    cleanup: Literal["delete", "compact"] = "delete"
    internal: bool = False

    def full_name(self, namespace: str = "") -> str:
        """Return the topic's name in Kafka.

        Args:
            namespace: `Config.namespace`; "" where there is none.
        """
        return f"{namespace}.{self.name}" if namespace else self.name


def event_name(event_type: type[msgspec.Struct]) -> str:
    """Return what the field `event` holds in messages of a Struct, such as `trade`."""
    return str(event_type.__struct_config__.tag)


# For code to which it does not matter what travels in a topic.
Topic = TopicOf[Any]


@dataclass(frozen=True, kw_only=True)
class Log:
    """The append-only ClickHouse table that keeps a kind: one row per record of its topics.

    Its columns and most of its constraints follow from the types of the event's fields; the rest is
    said here, in ClickHouse's words and by column names.

    Attributes:
        table: its name.
        time: the field whose month decides the table's partition.
        order: the fields that sort the table.
        retention: the setting of `[clickhouse]` that says for how many days rows are kept.
        columns: definitions of the columns that do not follow from their field's type; nothing is
            checked of them.
        checks: constraints by name, beyond those that follow from the fields' types.
        projections: by name, beyond the one that counts offsets.
        settings: of the table, beyond those of every log table.
    """

    table: str
    time: str
    order: tuple[str, ...]
    retention: str = "events_retention_days"
    checks: Mapping[str, str] = field(default_factory=dict)
    projections: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind(Generic[EventT_co]):
    """One kind of event.

    Attributes:
        name: unique among the kinds; two kinds may share a Struct.
        event: its Struct.
        description: for people; of each of its topics.
        identity: the fields that say what an event speaks of; of several with the same identity
            the highest revision stands. Empty: it speaks of the log itself.
        topic: where readers find it; `{timeframe}` makes a topic of each of `timeframes`. None: it
            travels in the ingest log alone.
        timeframes: see `topic`.
        key: what Kafka's key is made of.
        retention_ms: how long Kafka keeps a record of its topics.
        ingest: whether it also travels in the ingest log.
        log: how ClickHouse keeps it; None: it is in no table.
    """

    name: str
    event: type[EventT_co]
    description: str
    identity: tuple[str, ...] = ()
    topic: str | None = None
    timeframes: tuple[str, ...] = ()
    key: str = "exchange:symbol"
    retention_ms: int = 7 * DAY_MS
    ingest: bool = False
    log: Log | None = None

    @property
    def tag(self) -> str:
        """What the field `event` of its messages holds."""
        return event_name(self.event)

    @property
    def is_revised(self) -> bool:
        """Whether an event may come corrected, with a higher `revision`."""
        return any(field.name == "revision" for field in self.fields)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of the event, in the order in which they travel."""
        return fields_of(self.event)

    @property
    def decimal_fields(self) -> tuple[str, ...]:
        """The fields of the event that hold decimal text, in its order."""
        return decimal_fields(self.event)

    @property
    def time_fields(self) -> tuple[str, ...]:
        """The fields of the event that hold a time in microseconds since 1970, in its order."""
        return time_fields(self.event)

    @cached_property
    def topics(self) -> dict[str, TopicOf[EventT_co]]:
        """The kind's topics by timeframe; by "" where it has one topic for all.

        The same objects each time, so that code may compare topics with `is`.
        """
        if self.topic is None:
            return {}
        return {
            timeframe: TopicOf(
                self.topic.format(timeframe=timeframe),
                (self.event,),
                self.description.format(timeframe=timeframe),
                key=self.key,
                retention_ms=self.retention_ms,
            )
            for timeframe in self.timeframes or ("",)
        }


_PRICES_ORDERED = (
    "high_dec >= greatest(open_dec, close_dec) AND low_dec <= least(open_dec, close_dec)"
)
_CANDLE_PROJECTIONS = {
    # The last candle of each symbol without reading the others.
    "p_latest": "SELECT exchange, symbol, timeframe, max(open_time), argMax((open_dec, high_dec, "
    "low_dec, close_dec, volume_dec, coverage, revision), (open_time, revision)) "
    "GROUP BY exchange, symbol, timeframe",
    # For candle_audit of many symbols at once: what it compares, in the order of time.
    "p_time": "SELECT exchange, symbol, timeframe, open_time, open_dec, high_dec, low_dec, "
    "close_dec, volume_dec, quote_volume_dec, trade_count, revision, source, coverage "
    "ORDER BY exchange, timeframe, open_time, symbol, bitNot(revision)",
}

TRADE = Kind(
    name="trade",
    event=Trade,
    description="Valid trades, once each, in id order per symbol.",
    identity=("exchange", "symbol", "trade_id"),
    topic="market.trades.v1",
    ingest=True,
    log=Log(
        table="trades_log",
        time="trade_time_us",
        order=("exchange", "symbol", "trade_time_us", "trade_id"),
        retention="trades_retention_days",
        # The last trade of each symbol without reading the others.
        projections={
            "p_latest": "SELECT exchange, symbol, max(trade_time), argMax((trade_id, price_dec, "
            "amount_dec, side), (trade_time, length(trade_id), trade_id)), max(receive_time) "
            "GROUP BY exchange, symbol",
        },
        # Live trades come in many small inserts, and projections were a third of their cost: they
        # are made when parts are merged. Until then a query reads the rows, which are few.
        settings={
            "materialize_projections_on_insert": "0",
            "materialize_projections_on_merge": "1",
        },
    ),
)
CANDLE = Kind(
    name="candle",
    event=Candle,
    description="Closed {timeframe} candles; a later revision of a window replaces the earlier "
    "one.",
    identity=("exchange", "symbol", "timeframe", "open_time_us"),
    topic="market.candles.{timeframe}.v1",
    # 1s is published only when asked for; it has its topic all the same.
    timeframes=("1s", *PUBLISHED_TIMEFRAMES),
    retention_ms=30 * DAY_MS,
    log=Log(
        table="candles_log",
        time="open_time_us",
        order=("exchange", "symbol", "timeframe", "open_time_us", "revision"),
        retention="candles_retention_days",
        checks={"prices_ordered": _PRICES_ORDERED, "revision_set": "revision > 0"},
        projections=_CANDLE_PROJECTIONS,
    ),
)
EXCHANGE_CANDLE = Kind(
    name="exchange_candle",
    event=Candle,
    description="The exchange's own closed candles, as it published them.",
    identity=("exchange", "symbol", "timeframe", "open_time_us"),
    topic="market.exchange-candles.v1",
    retention_ms=30 * DAY_MS,
    ingest=True,
    log=Log(
        table="exchange_candles_log",
        time="open_time_us",
        order=("exchange", "symbol", "timeframe", "open_time_us", "revision"),
        retention="candles_retention_days",
        checks={"prices_ordered": _PRICES_ORDERED},
        projections=_CANDLE_PROJECTIONS,
    ),
)
OPEN_CANDLE = Kind(
    name="open_candle",
    event=Candle,
    description="The 1m candle that is still open, for live charts; in no history table.",
    identity=("exchange", "symbol", "timeframe", "open_time_us"),
    topic="market.open-candles.v1",
    retention_ms=HOUR_MS,
)
GAP = Kind(
    name="gap",
    event=Gap,
    description="Missing trades: open, filled, unfillable.",
    identity=("exchange", "symbol", "first_trade_id", "start_time_us"),
    topic="market.gaps.v1",
    retention_ms=30 * DAY_MS,
    ingest=True,
    log=Log(
        table="gaps_log",
        time="start_time_us",
        order=("exchange", "symbol", "start_time_us", "revision"),
    ),
)
IDS = Kind(
    name="ids",
    event=Ids,
    description="Runs of trade ids that belong to no trade, and why: none of them is missing.",
    identity=("exchange", "symbol", "first_trade_id", "time_us"),
    topic="market.ids.v1",
    retention_ms=30 * DAY_MS,
    ingest=True,
    log=Log(
        table="ids_log",
        time="time_us",
        order=("exchange", "symbol", "time_us", "first_trade_id"),
        # What is missing is looked for among trades, for which these stand in.
        retention="trades_retention_days",
    ),
)
STATUS = Kind(
    name="status",
    event=StreamStatus,
    description="Live, disconnected or halted, per symbol.",
    identity=("exchange", "symbol"),
    topic="market.status.v1",
    log=Log(
        table="status_log",
        time="complete_until_us",
        order=("exchange", "symbol", "revision"),
    ),
)
AUDIT = Kind(
    name="audit",
    event=Audit,
    description="Each closed candle against the exchange's own, field by field.",
    identity=("exchange", "symbol", "timeframe", "open_time_us"),
    topic="market.audits.v1",
    retention_ms=30 * DAY_MS,
    log=Log(
        table="audits_log",
        time="open_time_us",
        order=("exchange", "symbol", "timeframe", "open_time_us", "revision"),
    ),
)
DEAD_LETTER = Kind(
    name="dead_letter",
    event=DeadLetter,
    description="What could not be accepted, with its bytes and the reason.",
    identity=("identity",),
    topic="market.deadletters.v1",
    key="identity",
    retention_ms=30 * DAY_MS,
    log=Log(
        table="dead_letters_log",
        time="time_us",
        order=("identity",),
        # A dead letter is kept whatever it lacks: a field that is missing is null.
        columns={
            "reason": "LowCardinality(String)",
            "exchange": "LowCardinality(Nullable(String)) DEFAULT NULL",
            "symbol": "LowCardinality(Nullable(String)) DEFAULT NULL",
            "topic": "LowCardinality(Nullable(String)) DEFAULT NULL",
            "partition": "Nullable(Int32) DEFAULT NULL CODEC(ZSTD(1))",
            "offset": "Nullable(Int64) DEFAULT NULL CODEC(ZSTD(1))",
        },
        checks={"reason_set": "reason != ''"},
    ),
)
HEARTBEAT = Kind(
    name="heartbeat",
    event=Heartbeat,
    description="How far the ingest log is complete for a symbol, and the state of its stream.",
    ingest=True,
)
HISTORY = Kind(
    name="history",
    event=HistoryMarker,
    description="Start or end of a history job in the ingest log.",
    ingest=True,
)

KINDS: tuple[Kind[Any], ...] = (
    TRADE,
    CANDLE,
    EXCHANGE_CANDLE,
    OPEN_CANDLE,
    HEARTBEAT,
    GAP,
    IDS,
    HISTORY,
    STATUS,
    AUDIT,
    DEAD_LETTER,
)

# The Structs of all kinds, and of those that travel in the ingest log, each once.
EVENT_TYPES: tuple[type[msgspec.Struct], ...] = tuple(dict.fromkeys(kind.event for kind in KINDS))
INGEST_TYPES: tuple[type[msgspec.Struct], ...] = tuple(
    dict.fromkeys(kind.event for kind in KINDS if kind.ingest)
)
# `INGEST_TYPES` for type checkers, which can't read the table: with it they find every `match`
# that forgets a kind.
UncommonIngestEvent = (
    Candle | Heartbeat | Gap | Ids | HistoryMarker
)  # trades have a path of their own
IngestEvent = Trade | UncommonIngestEvent
assert set(get_args(IngestEvent)) == set(INGEST_TYPES), "IngestEvent is what the table says"
