"""What comes out of a kernel: records per topic, in order, each with the revision of its cause."""

import msgspec

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, StreamStatus
from alpha_pulse.contracts.topics import CANDLES, EXCHANGE_CANDLES, GAPS, STATUS, Topic
from alpha_pulse.processors.stream import Stream
from alpha_pulse.processors.wire import RecordsWriter

BATCH_BYTES_MAX = 900_000


class Outputs:
    """The records of each topic since they were last taken."""

    def __init__(self) -> None:
        self._writers: dict[str, RecordsWriter] = {}

    def writer(self, topic: Topic) -> RecordsWriter:
        """Return what writes the records of a topic."""
        writer = self._writers.get(topic.name)
        if writer is None:
            writer = self._writers[topic.name] = RecordsWriter(BATCH_BYTES_MAX)
        return writer

    def take(self) -> dict[str, RecordsWriter]:
        """Return the records by topic, and begin anew."""
        taken, self._writers = self._writers, {}
        return taken


class Publisher:
    """Puts what one record causes into the outputs, with that record's revision."""

    __slots__ = ("_key", "_outputs", "revision")

    def __init__(self, outputs: Outputs, key: bytes, revision: int) -> None:
        self._outputs = outputs
        self._key = key
        self.revision = revision

    def __call__(self, event: Candle | Gap) -> None:
        """Publish a candle or a gap of a stream."""
        if isinstance(event, Candle):
            self._put(CANDLES[event.timeframe], event)
        else:
            self._put(GAPS, msgspec.structs.replace(event, revision=self.revision))

    def exchange_candle(self, candle: Candle) -> None:
        """Publish the exchange's own candle."""
        self._put(EXCHANGE_CANDLES, msgspec.structs.replace(candle, revision=self.revision))

    def status(self, heartbeat: Heartbeat, live: Stream) -> None:
        """Publish what a heartbeat says, and where the stream stands."""
        status = StreamStatus(
            exchange=heartbeat.exchange,
            symbol=heartbeat.symbol,
            state=heartbeat.state,
            complete_until_us=heartbeat.complete_until_us,
            last_trade_time_us=live.last_trade_us or None,
            last_trade_id=live.newest_trade_id,
            revision=self.revision,
        )
        self._put(STATUS, status)

    def _put(self, topic: Topic, event: msgspec.Struct) -> None:
        self._outputs.writer(topic).append((self._key, encode(event)))
