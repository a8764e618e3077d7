"""What a connection has shown, and that no heartbeat claims more."""

from types import SimpleNamespace

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.events import Trade
from alpha_pulse.producers.connection.limiter import Limiter
from alpha_pulse.producers.connection.tap import Socket
from alpha_pulse.producers.feed.continuity import ConsecutiveIds
from alpha_pulse.producers.feed.pump import Gate, Pump
from alpha_pulse.producers.feed.state import Event
from alpha_pulse.producers.feed.symbol_feed import SymbolFeed
from alpha_pulse.producers.healing.healer import Healer
from alpha_pulse.producers.liveness.heard import ANSWER_US_MAX, Heard
from alpha_pulse.producers.liveness.heartbeat import SETTLE_US, ExchangeClock
from alpha_pulse.producers.streams import Streams
from alpha_pulse.producers.watchdog import TICK_S, Watchdog
from tests.producers.conftest import MemoryPublisher

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
TICK_US = int(TICK_S * SECOND_US)
GRACE_US = 2 * SECOND_US
BEGIN_US = 1_700_000_040_000_000  # on a minute
NOW_US = 5_000_000_000  # our monotonic clock then


def trade(trade_id: int, time_us: int, symbol: str = "BTC/USDT") -> Trade:
    return Trade(
        exchange="binance",
        symbol=symbol,
        trade_id=str(trade_id),
        price="1.5",
        amount="2",
        side="buy",
        trade_time_us=time_us,
        receive_time_us=time_us,
    )


class Watched:
    """One symbol on one connection under a watchdog whose time a test moves. REST is away."""

    def __init__(self) -> None:
        self.feed = SymbolFeed("binance", "BTC/USDT", ConsecutiveIds(), grace_us=GRACE_US)
        self.now_us = NOW_US
        self.pings: list[bytes] = []
        self.socket = Socket("wss://exchange", lambda frame: None, self.pings.append)
        self.socket.connected_at_us = NOW_US
        self.clock = ExchangeClock()
        config, gate, sockets = ProducerConfig(), Gate("binance"), {"wss://exchange": self.socket}
        pump = Pump(
            MemoryPublisher(),
            gate,
            topic="ingest",
            dead_letter_topic="letters",
            pending_bytes_max=1,
        )
        streams = Streams(
            config,
            "binance",
            Healer("binance", SimpleNamespace(id="binance"), Limiter("binance")),
            clock=self.clock,
            sockets=sockets,
            gate=gate,
            pump=pump,
            quarantine=lambda symbol: None,
            throttle=lambda symbols: None,
        )
        streams.feeds["BTC/USDT"] = self.feed
        self.watchdog = Watchdog(None, config, self.clock, sockets, gate, streams)
        self.probes = 0
        self.rest_answers = False
        self.watchdog._probe = self.probe  # type: ignore[method-assign]
        self.trades = 0

    def probe(self, feed: SymbolFeed) -> None:
        self.probes += 1
        if self.rest_answers:
            feed.checked_at_us = self.now_us

    @property
    def time_us(self) -> int:
        """The exchange's time now."""
        return BEGIN_US + self.now_us - NOW_US

    def trade(self, late_by_us: int = 0) -> None:
        self.trades += 1
        time_us = self.time_us - late_by_us
        self.socket.heard.frames += 1
        self.socket.heard.observe(time_us, self.now_us)
        self.feed.add_trade(trade(self.trades, time_us), self.now_us)
        self.clock.observe(time_us, self.now_us)
        self.feed.step(Event.TRADE)
        self.feed.emit_state("live", time_us)

    def others(self) -> None:
        """Let another symbol trade on the same connection."""
        self.socket.heard.frames += 1
        self.socket.heard.observe(self.time_us, self.now_us)
        self.clock.observe(self.time_us, self.now_us)

    def tick(
        self, seconds: float, *, trades: int = 0, others: int = 0, answers: bool = True
    ) -> None:
        """Let time pass, with so many trades in each tick of the watchdog."""
        for _ in range(int(seconds / TICK_S)):
            self.now_us += TICK_US
            for _ in range(trades):
                self.trade()
            for _ in range(others):
                self.others()
            self.watchdog._check(self.now_us)
            if answers and self.pings:
                self.socket.heard.answer(self.pings.pop())

    def claimed_us(self) -> int:
        return self.feed.published_until_us


def test_a_stalled_stream_that_answers_pings_closes_no_minute_before_its_trades_came() -> None:
    watched = Watched()
    watched.tick(57, trades=15)
    newest_us = watched.time_us
    # Seven seconds across the minute's end, in which trades happen that wait at the exchange.
    watched.tick(7)
    assert watched.claimed_us() == newest_us
    watched.trade(late_by_us=6 * SECOND_US)
    assert watched.claimed_us() < BEGIN_US + MINUTE_US, "late trades of the minute are to come"
    watched.tick(1)
    assert watched.claimed_us() < BEGIN_US + MINUTE_US
    watched.tick(1, trades=15)
    assert watched.claimed_us() == watched.time_us


def test_a_stalled_connection_is_known_by_its_busy_symbols_for_the_quiet_ones_too() -> None:
    watched = Watched()
    watched.trade()
    watched.tick(57, others=15)
    watched.tick(30)
    assert watched.claimed_us() == BEGIN_US + GRACE_US, "the minute before, closed in time"
    watched.tick(1, others=15)
    assert watched.claimed_us() == BEGIN_US + MINUTE_US + GRACE_US


def test_a_busy_symbol_that_falls_silent_alone_is_not_taken_for_quiet() -> None:
    watched = Watched()
    watched.tick(57, trades=15, others=15)
    newest_us = watched.time_us
    watched.tick(7, others=15)
    assert watched.claimed_us() == newest_us


def test_a_quiet_connection_is_asked_and_closes_the_minute_at_once() -> None:
    watched = Watched()
    watched.trade()
    watched.tick(60 + 2)
    assert watched.claimed_us() < BEGIN_US + MINUTE_US
    # Due at grace and settling time: the ping is sent then, its answer believed a tick later.
    watched.tick(3 * TICK_S + SETTLE_US / SECOND_US)
    assert watched.claimed_us() == BEGIN_US + MINUTE_US + GRACE_US


def test_a_half_open_connection_claims_nothing_more() -> None:
    watched = Watched()
    watched.trade()
    watched.tick(200, answers=False)
    assert watched.claimed_us() == BEGIN_US
    # One ping at a time, until it is given up.
    assert 60 < len(watched.pings) < 200 * SECOND_US / ANSWER_US_MAX


def test_a_lost_connection_is_no_witness() -> None:
    watched = Watched()
    watched.trade()
    watched.socket.lost = True
    watched.tick(100)
    assert watched.claimed_us() == BEGIN_US


def test_a_busy_symbol_whose_market_stopped_is_proven_quiet_by_rest() -> None:
    watched = Watched()
    watched.rest_answers = True
    watched.tick(57, trades=15)
    watched.tick(7)
    assert watched.claimed_us() == BEGIN_US + MINUTE_US + GRACE_US
    watched.tick(60)
    assert watched.claimed_us() == BEGIN_US + 2 * MINUTE_US + GRACE_US


def test_rest_that_does_not_answer_either_is_asked_every_few_seconds_and_proves_nothing() -> None:
    watched = Watched()
    watched.tick(57, trades=15)
    newest_us = watched.time_us
    watched.tick(33)
    assert watched.claimed_us() == newest_us
    assert 4 <= watched.probes <= 10


def test_frames_that_lag_are_believed_more_than_a_pong() -> None:
    heard = Heard()
    payload = heard.ask(BEGIN_US, NOW_US)
    assert payload is not None
    heard.answer(payload)
    assert heard.until_us(NOW_US + 1) == BEGIN_US
    # Read after the ping was sent, and yet seven seconds old.
    heard.observe(BEGIN_US - 7 * SECOND_US, NOW_US + 2)
    assert heard.until_us(NOW_US + 3) == BEGIN_US - 7 * SECOND_US


def test_only_the_answer_to_our_own_ping_counts() -> None:
    heard = Heard()
    assert heard.ask(BEGIN_US, NOW_US) is not None
    assert heard.ask(BEGIN_US, NOW_US + 1) is None
    heard.answer(b"")
    heard.answer(b"1")
    assert heard.until_us(NOW_US + 1) == 0
