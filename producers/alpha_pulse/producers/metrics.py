"""What a producer counts and measures: the names, and a reading as their values.

Nothing here knows a producer: it hands in a function that returns its reading.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from alpha_pulse.contracts.roles.metrics.metric import Metric, Readings, Values, histogram
from alpha_pulse.contracts.roles.publisher import Publisher

_BY_EXCHANGE = ("exchange",)


def _counter(name: str, meaning: str, labels: tuple[str, ...] = _BY_EXCHANGE) -> Metric:
    return Metric(f"alpha_pulse_producer_{name}_total", "counter", meaning, labels)


def _gauge(name: str, meaning: str, labels: tuple[str, ...] = _BY_EXCHANGE) -> Metric:
    return Metric(f"alpha_pulse_producer_{name}", "gauge", meaning, labels)


FRAMES = _counter("frames", "Websocket frames read.")
TRADES = _counter("trades", "Trades put into the log: once each, REST's included.")
DUPLICATES = _counter("duplicate_trades", "Trades that came again and were dropped.")
PUBLISHED = _counter("published_records", "Records that Kafka has acknowledged.")
PUBLISH_RETRIES = _counter("publish_retries", "Attempts to publish that Kafka did not take.")
REJECTED = _counter(
    "rejected_frames",
    "Frames that became dead letters, by the dead letter's reason.",
    ("exchange", "reason"),
)
RECONNECTS = _counter("reconnects", "Times that a subscription was lost and asked for again.")
GAPS = _counter(
    "gaps",
    "Gaps published, by status: open, filled, unfillable. An open one that is filled counts twice.",
    ("exchange", "status"),
)
GAP_SECONDS = _counter("gap_seconds", "Length of the gaps published.", ("exchange", "status"))
LIMITED = _counter("rate_limited", "Times that the exchange told us to wait (429, 418).")
REST_CALLS = _counter("rest_calls", "Calls over REST: markets, holes, candles.")
SYMBOLS = _gauge(
    "symbols",
    "Symbols by the state of their stream: live, disconnected, halted, starting, quarantined.",
    ("exchange", "state"),
)
HELD_BACK = _gauge("held_back_trades", "Trades that wait behind a hole.")
PAUSED = _gauge("reading_paused", "1 while the sockets are not read: Kafka or a hole is behind.")
PENDING_BYTES = _gauge("pending_bytes", "Bytes handed to Kafka and not acknowledged yet.")
LAST_TRADE_TIME = _gauge(
    "last_trade_time_seconds", "Newest trade, Unix time by the exchange's clock."
)
DELAY = Metric(
    "alpha_pulse_producer_delay_seconds",
    "histogram",
    "From the exchange's time of a trade to its handing over to Kafka; one sample a batch.",
    _BY_EXCHANGE,
)
METRICS = (
    FRAMES,
    TRADES,
    DUPLICATES,
    PUBLISHED,
    PUBLISH_RETRIES,
    REJECTED,
    RECONNECTS,
    GAPS,
    GAP_SECONDS,
    LIMITED,
    REST_CALLS,
    SYMBOLS,
    HELD_BACK,
    PAUSED,
    PENDING_BYTES,
    LAST_TRADE_TIME,
    DELAY,
)
STATES = ("live", "disconnected", "halted", "starting", "quarantined")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerReading:
    """A producer at one moment; counts are since it began.

    Args:
        is_listed: whether the exchange's list of markets has been read.
        is_reading: whether the sockets are read.
        symbols: how many are followed.
        states: symbols by what the log says of their stream, `starting` where it says nothing yet;
            and those that the exchange refuses or does not list, as `quarantined`.
        frames: websocket frames read.
        rejected: frames that became dead letters, by reason.
        reconnects: subscriptions that were lost.
        limited: how often the exchange said that we must wait.
        rest_calls: calls over REST.
        trades: trades put into the log.
        duplicates: trades that came again.
        gaps: gaps published, by status.
        gap_us: their length in µs, by status.
        held_back: trades that wait behind a hole.
        last_trade_us: time of the newest trade, Unix µs by the exchange's clock; 0: none yet.
    """

    is_listed: bool
    is_reading: bool
    symbols: int
    states: Mapping[str, int]
    frames: int
    rejected: Mapping[str, int]
    reconnects: int
    limited: int
    rest_calls: int
    trades: int
    duplicates: int
    gaps: Mapping[str, int]
    gap_us: Mapping[str, int]
    held_back: int
    last_trade_us: int


class ProducerMetrics:
    """Reads a producer when somebody asks; `delay` alone is observed with each batch.

    Args:
        registry: where the metrics are registered.
        exchange: the exchange's name in the log, a label of each.
    """

    def __init__(self, registry: CollectorRegistry, exchange: str) -> None:
        self.exchange = exchange
        self.publisher: Publisher | None = None
        self.read_producer: Callable[[], ProducerReading] | None = None
        self.delay = histogram(DELAY, registry).labels(exchange)
        registry.register(Readings([m for m in METRICS if m is not DELAY], self._read))

    @property
    def checks(self) -> Mapping[str, Callable[[], str]]:
        """What must hold for the producer to be ready, by name; "" when it does."""
        return {
            "kafka": lambda: "" if self.publisher is not None else "waiting for Kafka",
            "exchange": self._exchange_problem,
            "reading": self._reading_problem,
        }

    def _exchange_problem(self) -> str:
        reading = self._reading()
        if reading is None or not reading.is_listed:
            return f"waiting for the markets of {self.exchange}"
        if reading.symbols and not reading.states.get("live"):
            return f"none of {reading.symbols} symbols is live"
        return ""

    def _reading_problem(self) -> str:
        reading = self._reading()
        if reading is not None and not reading.is_reading:
            return "paused: Kafka is behind, or a hole is being filled"
        return ""

    def _reading(self) -> ProducerReading | None:
        return self.read_producer() if self.read_producer is not None else None

    def _read(self) -> Mapping[Metric, Values]:
        found: dict[Metric, Values] = {}
        one = (self.exchange,)
        if self.publisher is not None:
            found[PUBLISHED] = {one: self.publisher.acknowledged}
            found[PUBLISH_RETRIES] = {one: self.publisher.retries}
            found[PENDING_BYTES] = {one: self.publisher.pending_bytes}
        reading = self._reading()
        if reading is not None:
            found |= _values(reading, self.exchange)
        return found


def _values(reading: ProducerReading, exchange: str) -> dict[Metric, Values]:
    one = (exchange,)
    found: dict[Metric, Values] = {
        FRAMES: {one: reading.frames},
        TRADES: {one: reading.trades},
        DUPLICATES: {one: reading.duplicates},
        REJECTED: {(exchange, reason): count for reason, count in reading.rejected.items()},
        RECONNECTS: {one: reading.reconnects},
        GAPS: {(exchange, status): count for status, count in reading.gaps.items()},
        GAP_SECONDS: {(exchange, status): us / 1e6 for status, us in reading.gap_us.items()},
        LIMITED: {one: reading.limited},
        REST_CALLS: {one: reading.rest_calls},
        SYMBOLS: {(exchange, state): reading.states.get(state, 0) for state in STATES},
        HELD_BACK: {one: reading.held_back},
        PAUSED: {one: not reading.is_reading},
    }
    if reading.last_trade_us:
        found[LAST_TRADE_TIME] = {one: reading.last_trade_us / 1e6}
    return found
