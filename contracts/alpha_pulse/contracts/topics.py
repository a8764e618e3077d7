"""Every topic: what travels in it, its key, retention and how it is kept.

Names are `kind.noun.vN`, dots and dashes only (Kafka's metrics confuse `.` and `_`). A namespace is
put before them, so that runs do not meet. Keys are `exchange:symbol`; the default murmur2
partitioner decides the partition, and outputs stay in the partition of their input.
"""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, Union

import msgspec

from alpha_pulse.contracts.events import (
    Audit,
    Candle,
    DeadLetter,
    Gap,
    Heartbeat,
    HistoryMarker,
    IngestEvent,
    StreamStatus,
    Trade,
)
from alpha_pulse.contracts.market import PUBLISHED_TIMEFRAMES

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


EventT_co = TypeVar("EventT_co", covariant=True)


@dataclass(frozen=True)
class TopicOf(Generic[EventT_co]):
    """One topic of the pipeline, without its namespace, and the type of what is read from it."""

    name: str
    events: tuple[type[msgspec.Struct], ...]
    description: str
    key: str = "exchange:symbol"
    retention_ms: int = 7 * DAY_MS
    cleanup: Literal["delete", "compact"] = "delete"
    internal: bool = False

    def full_name(self, namespace: str = "") -> str:
        """Return the topic's name in Kafka."""
        return f"{namespace}.{self.name}" if namespace else self.name

    @property
    def event_type(self) -> Any:
        """What a decoder of this topic's values is made for: a Struct, or a union of several."""
        return Union[self.events]  # noqa: UP007  - of a tuple that is known at run time only


# For code to which it does not matter what travels in a topic.
Topic = TopicOf[Any]

INGEST: TopicOf[IngestEvent] = TopicOf(
    "ingest.events.v1",
    (Trade, Candle, Heartbeat, Gap, HistoryMarker),
    "One ordered log per symbol: trades, the exchange's own closed candles, heartbeats, gaps, "
    "history markers.",
)
TRADES: TopicOf[Trade] = TopicOf(
    "market.trades.v1", (Trade,), "Valid trades, once each, in id order per symbol."
)
# 1s is published only when asked for; it has its topic all the same.
CANDLES: dict[str, TopicOf[Candle]] = {
    timeframe: TopicOf(
        f"market.candles.{timeframe}.v1",
        (Candle,),
        f"Closed {timeframe} candles; a later revision of a window replaces the earlier one.",
        retention_ms=30 * DAY_MS,
    )
    for timeframe in ("1s", *PUBLISHED_TIMEFRAMES)
}
EXCHANGE_CANDLES: TopicOf[Candle] = TopicOf(
    "market.exchange-candles.v1",
    (Candle,),
    "The exchange's own closed candles, as it published them.",
    retention_ms=30 * DAY_MS,
)
OPEN_CANDLES: TopicOf[Candle] = TopicOf(
    "market.open-candles.v1",
    (Candle,),
    "The 1m candle that is still open, for live charts; in no history table.",
    retention_ms=HOUR_MS,
)
GAPS: TopicOf[Gap] = TopicOf(
    "market.gaps.v1", (Gap,), "Missing trades: open, filled, unfillable.", retention_ms=30 * DAY_MS
)
STATUS: TopicOf[StreamStatus] = TopicOf(
    "market.status.v1", (StreamStatus,), "Live, disconnected or halted, per symbol."
)
AUDITS: TopicOf[Audit] = TopicOf(
    "market.audits.v1",
    (Audit,),
    "Each closed candle against the exchange's own, field by field.",
    retention_ms=30 * DAY_MS,
)
DEAD_LETTERS: TopicOf[DeadLetter] = TopicOf(
    "market.deadletters.v1",
    (DeadLetter,),
    "What could not be accepted, with its bytes and the reason.",
    key="identity",
    retention_ms=30 * DAY_MS,
)
PROCESSOR_STATE = Topic(
    "processor.state.v1",
    (),
    "State of the trade path, per partition; written and read by the processors only.",
    key="partition or symbol",
    cleanup="compact",
    internal=True,
)
AUDIT_CANDLES = Topic(
    "processor.audit-candles.v1",
    (),
    "Live 1m candles, ours and the exchange's own, on their way to the audit. History is not among "
    "them: `verify` holds that against the exchange.",
    retention_ms=DAY_MS,
    internal=True,
)

TOPICS: tuple[Topic, ...] = (
    INGEST,
    TRADES,
    *CANDLES.values(),
    EXCHANGE_CANDLES,
    OPEN_CANDLES,
    GAPS,
    STATUS,
    AUDITS,
    DEAD_LETTERS,
    PROCESSOR_STATE,
    AUDIT_CANDLES,
)
# What sinks store: everything under market.* but the open candles.
STORED_TOPICS: tuple[Topic, ...] = tuple(
    topic for topic in TOPICS if topic.name.startswith("market.") and topic is not OPEN_CANDLES
)
