"""Every topic, by the name that code uses: those of the kinds, the ingest log, and internal ones.

Names are `kind.noun.vN`, dots and dashes only (Kafka's metrics confuse `.` and `_`). A namespace is
put before them, so that runs do not meet. Keys are `exchange:symbol`; the default murmur2
partitioner decides the partition, and outputs stay in the partition of their input.
"""

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.events import (
    Audit,
    Candle,
    DeadLetter,
    Gap,
    Ids,
    StreamStatus,
    Trade,
)
from alpha_pulse.contracts.kinds import DAY_MS, INGEST_TYPES, KINDS, IngestEvent
from alpha_pulse.contracts.kinds import Topic as Topic
from alpha_pulse.contracts.kinds import TopicOf as TopicOf

INGEST: TopicOf[IngestEvent] = TopicOf(
    "ingest.events.v1",
    INGEST_TYPES,
    "One ordered log per symbol: trades, the exchange's own closed candles, heartbeats, gaps, "
    "ids without a trade, history markers.",
)
TRADES: TopicOf[Trade] = kinds.TRADE.topics[""]
CANDLES: dict[str, TopicOf[Candle]] = kinds.CANDLE.topics
EXCHANGE_CANDLES: TopicOf[Candle] = kinds.EXCHANGE_CANDLE.topics[""]
OPEN_CANDLES: TopicOf[Candle] = kinds.OPEN_CANDLE.topics[""]
GAPS: TopicOf[Gap] = kinds.GAP.topics[""]
IDS: TopicOf[Ids] = kinds.IDS.topics[""]
STATUS: TopicOf[StreamStatus] = kinds.STATUS.topics[""]
AUDITS: TopicOf[Audit] = kinds.AUDIT.topics[""]
DEAD_LETTERS: TopicOf[DeadLetter] = kinds.DEAD_LETTER.topics[""]
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
    *(topic for kind in KINDS for topic in kind.topics.values()),
    PROCESSOR_STATE,
    AUDIT_CANDLES,
)
# What sinks store.
STORED_TOPICS: tuple[Topic, ...] = tuple(
    topic for kind in KINDS if kind.log is not None for topic in kind.topics.values()
)
