"""What a producer counts."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from alpha_pulse.contracts.roles.metrics.metric import Metric, Readings, Values, histogram
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed

if TYPE_CHECKING:  # both count by this file
    from alpha_pulse.contracts.roles.publisher import Publisher
    from alpha_pulse.producers.live import LiveProducer

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


class FeedTotals:
    """The counters of all feeds that there were, so that one that is removed takes none away."""

    def __init__(self) -> None:
        self.trades = 0
        self.duplicates = 0
        self.gaps: Counter[str] = Counter()
        self.gap_us: Counter[str] = Counter()

    def add(self, feed: SymbolFeed) -> "FeedTotals":
        """Count a feed in; returns itself."""
        self.trades += feed.trades
        self.duplicates += feed.tracker.duplicates
        self.gaps.update(feed.gaps)
        self.gap_us.update(feed.gap_us)
        return self

    def plus(self, feeds: Mapping[str, SymbolFeed]) -> "FeedTotals":
        """Return these totals and those of feeds that there are."""
        both = FeedTotals()
        both.trades, both.duplicates = self.trades, self.duplicates
        both.gaps, both.gap_us = self.gaps.copy(), self.gap_us.copy()
        for feed in feeds.values():
            both.add(feed)
        return both


class ProducerMetrics:
    """Reads a producer when somebody asks; `delay` alone is told of each batch."""

    def __init__(self, registry: CollectorRegistry, exchange: str) -> None:
        self.exchange = exchange
        self.publisher: Publisher | None = None
        self.producer: LiveProducer | None = None
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
        if self.producer is None or not self.producer.listing.is_loaded:
            return f"waiting for the markets of {self.exchange}"
        feeds = self.producer.feeds.values()
        if feeds and not any(feed.state == "live" for feed in feeds):
            return f"none of {len(feeds)} symbols is live"
        return ""

    def _reading_problem(self) -> str:
        if self.producer is not None and not self.producer.gate_is_open:
            return "paused: Kafka is behind, or a hole is being filled"
        return ""

    def _read(self) -> Mapping[Metric, Values]:
        found: dict[Metric, Values] = {}
        one = (self.exchange,)
        if self.publisher is not None:
            found[PUBLISHED] = {one: self.publisher.acknowledged}
            found[PUBLISH_RETRIES] = {one: self.publisher.retries}
            found[PENDING_BYTES] = {one: self.publisher.pending_bytes}
        if self.producer is not None:
            found |= _read_producer(self.producer, self.exchange)
        return found


def _read_producer(producer: "LiveProducer", exchange: str) -> dict[Metric, Values]:
    one = (exchange,)
    totals = producer.gone.plus(producer.feeds)
    feeds = producer.feeds.values()
    states: Counter[str] = Counter(feed.state or "starting" for feed in feeds)
    states["quarantined"] = len(producer.quarantined)
    newest_us = max((feed.tracker.last_time_us for feed in feeds), default=0)
    found: dict[Metric, Values] = {
        FRAMES: {one: producer.intake.frames},
        TRADES: {one: totals.trades},
        DUPLICATES: {one: totals.duplicates},
        REJECTED: {
            (exchange, reason): count
            for reason, count in producer.intake.dead_letters.reasons.items()
        },
        RECONNECTS: {one: producer.reconnects},
        GAPS: {(exchange, status): count for status, count in totals.gaps.items()},
        GAP_SECONDS: {(exchange, status): us / 1e6 for status, us in totals.gap_us.items()},
        LIMITED: {one: producer.limiter.limited},
        REST_CALLS: {one: producer.limiter.calls},
        SYMBOLS: {(exchange, state): states[state] for state in STATES},
        HELD_BACK: {one: sum(feed.tracker.held for feed in feeds)},
        PAUSED: {one: not producer.gate_is_open},
    }
    if newest_us:
        found[LAST_TRADE_TIME] = {one: newest_us / 1e6}
    return found
