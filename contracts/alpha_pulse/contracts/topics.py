"""Every topic: what travels in it, its key, retention and how it is kept.

Names are `kind.noun.vN`, dots and dashes only (Kafka's metrics confuse `.` and `_`). A namespace is
put before them, so that runs do not meet. Keys are `exchange:symbol`; the default murmur2
partitioner decides the partition, and outputs stay in the partition of their input.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from alpha_pulse.contracts.events import (
    Audit,
    Candle,
    DeadLetter,
    Gap,
    Heartbeat,
    HistoryMarker,
    StreamStatus,
    Trade,
)
from alpha_pulse.contracts.market import PUBLISHED_TIMEFRAMES

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the pipeline, without its namespace."""

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


INGEST = Topic(
    "ingest.events.v1",
    (Trade, Candle, Heartbeat, Gap, HistoryMarker),
    "One ordered log per symbol: trades, the exchange's own closed candles, heartbeats, gaps, "
    "history markers.",
)
TRADES = Topic("market.trades.v1", (Trade,), "Valid trades, once each, in id order per symbol.")
# 1s is published only when asked for; it has its topic all the same.
CANDLES: dict[str, Topic] = {
    timeframe: Topic(
        f"market.candles.{timeframe}.v1",
        (Candle,),
        f"Closed {timeframe} candles; a later revision of a window replaces the earlier one.",
        retention_ms=30 * DAY_MS,
    )
    for timeframe in ("1s", *PUBLISHED_TIMEFRAMES)
}
EXCHANGE_CANDLES = Topic(
    "market.exchange-candles.v1",
    (Candle,),
    "The exchange's own closed candles, as it published them.",
    retention_ms=30 * DAY_MS,
)
OPEN_CANDLES = Topic(
    "market.open-candles.v1",
    (Candle,),
    "The 1m candle that is still open, for live charts; in no history table.",
    retention_ms=HOUR_MS,
)
GAPS = Topic(
    "market.gaps.v1", (Gap,), "Missing trades: open, filled, unfillable.", retention_ms=30 * DAY_MS
)
STATUS = Topic("market.status.v1", (StreamStatus,), "Live, disconnected or halted, per symbol.")
AUDITS = Topic(
    "market.audits.v1",
    (Audit,),
    "Each closed candle against the exchange's own, field by field.",
    retention_ms=30 * DAY_MS,
)
DEAD_LETTERS = Topic(
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
)
# What sinks store: everything under market.* but the open candles.
STORED_TOPICS: tuple[Topic, ...] = tuple(
    topic for topic in TOPICS if topic.name.startswith("market.") and topic is not OPEN_CANDLES
)
