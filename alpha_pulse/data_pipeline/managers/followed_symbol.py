"""What a live manager holds of one symbol; pure: time is an argument."""

from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, StreamState, Trade
from alpha_pulse.contracts.kinds import IngestEvent
from alpha_pulse.data_pipeline.core.models import MarketSnapshot, MarketUpdate


class FollowedSymbol:
    """The newest of one symbol, with our monotonic time, and what is still to be told of it."""

    def __init__(self) -> None:
        self.state: StreamState | None = None
        self.told_state: StreamState | None = None
        self.trade: Trade | None = None
        self.trade_at_s = 0.0
        self.candle: Candle | None = None
        self.candle_at_s = 0.0
        self.trades: list[Trade] = []
        self.candles: list[Candle] = []
        self.gaps: list[Gap] = []

    @property
    def has_news(self) -> bool:
        """Whether there is anything that was not told yet."""
        changed = self.state != self.told_state
        return bool(changed or self.trades or self.candles or self.gaps)

    def take(self, event: IngestEvent, now_s: float) -> bool:
        """Take an event in; return whether it is one that is stored."""
        match event:
            case Trade():
                self.trade, self.trade_at_s = event, now_s
                if self.state is None:
                    # The heartbeat that says so may follow only with the minute's end.
                    self.state = "live"
                self.trades.append(event)
                return True
            case Candle():
                if self.candle is None or event.open_time_us >= self.candle.open_time_us:
                    self.candle, self.candle_at_s = event, now_s
                self.candles.append(event)
                return True
            case Gap():
                self.gaps.append(event)
                return False
            case Heartbeat():
                self.state = event.state
                return False
            case _:
                return False  # a kind that managers show nothing of, such as a history marker

    def take_update(self, exchange: str, symbol: str) -> MarketUpdate:
        """Return what was not told yet; from now on it counts as told."""
        update = MarketUpdate(
            exchange,
            symbol,
            self.state,
            tuple(self.trades),
            tuple(self.candles),
            tuple(self.gaps),
        )
        self.trades, self.candles, self.gaps = [], [], []
        self.told_state = self.state
        return update

    def snapshot(self, exchange: str, symbol: str, since_s: float) -> MarketSnapshot:
        """Return the newest, without what came before a monotonic time."""
        return MarketSnapshot(
            exchange,
            symbol,
            self.state,
            self.trade if self.trade_at_s > since_s else None,
            self.candle if self.candle_at_s > since_s else None,
        )
