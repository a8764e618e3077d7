"""What comes out of a kernel: records per topic, in order, each with the revision of its cause."""

from collections.abc import Callable, Iterable

import msgspec

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, Ids, StreamStatus
from alpha_pulse.contracts.topics import (
    AUDIT_CANDLES,
    CANDLES,
    EXCHANGE_CANDLES,
    GAPS,
    IDS,
    STATUS,
    Topic,
)
from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.wire.audit_candle import AUDITED, Side, audit_value
from alpha_pulse.processors.wire.records import RecordsWriter

BATCH_BYTES_MAX = 900_000


class Outputs:
    """The records of each topic since they were last drained.

    audits: candles are to be audited.
    """

    def __init__(self, *, audits: bool = True) -> None:
        self.audits = audits
        self._writers: dict[str, RecordsWriter] = {}
        self._shared: frozenset[str] = frozenset()
        self._deliver: Callable[[], None] = _nothing

    def share(self, topics: Iterable[Topic], deliver: Callable[[], None]) -> None:
        """Let somebody else write to topics too.

        Args:
            topics: to which he adds by `open_writer`.
            deliver: adds what he still holds back; called before anybody else adds to one of them,
                so that each topic keeps the order of the log.
        """
        self._shared, self._deliver = frozenset(topic.name for topic in topics), deliver

    def writer(self, topic: Topic) -> RecordsWriter:
        """Return what writes the records of a topic, which holds all that comes before."""
        if topic.name in self._shared:
            self._deliver()
        return self.open_writer(topic)

    def open_writer(self, topic: Topic) -> RecordsWriter:
        """Return what writes the records of a topic, as it is."""
        writer = self._writers.get(topic.name)
        if writer is None:
            writer = self._writers[topic.name] = RecordsWriter(BATCH_BYTES_MAX)
        return writer

    def drain(self) -> dict[str, RecordsWriter]:
        """Return the records by topic, and begin with none."""
        self._deliver()
        drained, self._writers = self._writers, {}
        return drained


def _nothing() -> None:
    return None


class Emitter:
    """Puts what one record causes into the outputs, with that record's revision."""

    __slots__ = ("_key", "_outputs", "revision")

    def __init__(self, outputs: Outputs, key: bytes, revision: int) -> None:
        self._outputs = outputs
        self._key = key
        self.revision = revision

    def __call__(self, event: Candle | Gap) -> None:
        """Publish a candle or a gap of a stream."""
        if isinstance(event, Candle):
            self._to_audit(event, "ours", self.put(CANDLES[event.timeframe], event))
        else:
            self.put(GAPS, msgspec.structs.replace(event, revision=self.revision))

    def exchange_candle(self, candle: Candle) -> None:
        """Publish the exchange's own candle."""
        candle = msgspec.structs.replace(candle, revision=self.revision)
        self._to_audit(candle, "exchange", self.put(EXCHANGE_CANDLES, candle))

    def ids(self, ids: Ids) -> None:
        """Publish which ids belong to no trade."""
        self.put(IDS, ids)

    def status(self, heartbeat: Heartbeat, live: Stream) -> None:
        """Publish what a heartbeat says, and where the stream stands."""
        status = StreamStatus(
            exchange=heartbeat.exchange,
            symbol=heartbeat.symbol,
            state=heartbeat.state,
            complete_until_us=heartbeat.complete_until_us,
            last_trade_time_us=live.order.last_trade_us or None,
            last_trade_id=live.order.newest_trade_id,
            revision=self.revision,
        )
        self.put(STATUS, status)

    def _to_audit(self, candle: Candle, side: Side, value: bytes) -> None:
        if candle.job is None and candle.timeframe == AUDITED and self._outputs.audits:
            self._outputs.writer(AUDIT_CANDLES).append((self._key, audit_value(side, value)))

    def put(self, topic: Topic, event: msgspec.Struct) -> bytes:
        """Publish an event in a topic as it stands; return its bytes."""
        value = encode(event)
        self._outputs.writer(topic).append((self._key, value))
        return value
