"""What an exchange's dialect must answer; the engine knows nothing of any exchange."""

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar

import orjson

from alpha_pulse.replay.dialects.rules import NO_RULES, Breach, SocketRules
from alpha_pulse.replay.dialects.sockets import Channel, ClientSocket
from alpha_pulse.replay.markets.candles import ExchangeCandle
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import Instrument, TradeRow, spot_symbol


@dataclass(frozen=True, slots=True)
class Options:
    """How strict the exchange is.

    keyless_history: trades by id are served without an API key; else they are refused.
    refused: symbols that are listed and yet refused by the websocket, as delisted ones are.
    weight_per_minute_max: REST weight before 429, None for no limit.
    throttled_subscribes: how many subscribes, the first ones, are answered that they are too many.
    system_status: what it says of a maintenance of all, Kraken one of its words; "": there is none.
    limits_scale: of the windows in which a dialect's websocket rules count, for tests that must
    not take minutes; None: nothing is refused.
    """

    keyless_history: bool = True
    refused: frozenset[str] = frozenset()
    weight_per_minute_max: int | None = None
    throttled_subscribes: int = 0
    system_status: str = ""
    limits_scale: float | None = 1.0


@dataclass(frozen=True, slots=True)
class RestRequest:
    """One REST request: the parameters of its query, path and JSON body together."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    def integer(self, name: str, default: int) -> int:
        """Return a parameter as a number.

        Raises: ValueError when it is not one.
        """
        return int(self.query[name]) if self.query.get(name) else default


@dataclass(frozen=True, slots=True)
class RestReply:
    """A REST answer: any value that becomes JSON."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class RestRefusal(Exception):
    """The exchange refuses a request with this answer."""

    def __init__(self, reply: RestReply) -> None:
        super().__init__(str(reply.body))
        self.reply = reply


@dataclass(slots=True)
class Reply:
    """What a client's message brings: frames to send, channels to open and to close."""

    frames: list[bytes] = field(default_factory=list)
    subscribe: list[Channel] = field(default_factory=list)
    unsubscribe: list[Channel] = field(default_factory=list)


RestHandler = Callable[[RestRequest], RestReply | Awaitable[RestReply]]


class Dialect:
    """One exchange's own protocol over the feeds; subclasses fill in the tables.

    frame_trades_max: how many trades of one instant the exchange puts in one frame.
    has_candle_channel: whether ccxt can watch the exchange's own candles.
    snapshot_trades: how many past trades a new subscription receives.
    mixes_symbols: whether one frame may hold trades of several symbols.
    refuses_symbols: whether subscribing to a symbol that is not listed is answered with an error.
    time_precision_us: the step in which the exchange tells a trade's time.
    rules: what the websockets of one address may do.
    """

    name: ClassVar[str]
    hosts: ClassVar[tuple[str, ...]]
    # (pattern of host and path, name of the method that answers)
    routes: ClassVar[tuple[tuple[str, str], ...]]
    # Patterns of the paths that serve trades and candles: faults of market data meet these.
    trade_paths: ClassVar[str] = r"[tT]rades"
    candle_paths: ClassVar[str] = r"candles|klines"
    # (pattern of a path, weight of a request); 1 where none matches
    weights: ClassVar[tuple[tuple[str, int], ...]] = ()
    frame_trades_max: ClassVar[int] = 1
    has_candle_channel: ClassVar[bool] = True
    time_precision_us: ClassVar[int] = 1_000
    snapshot_trades: ClassVar[int] = 0
    mixes_symbols: ClassVar[bool] = False
    refuses_symbols: ClassVar[bool] = True
    ping_interval_s: ClassVar[float] = 20.0
    rules: ClassVar[SocketRules] = NO_RULES

    def __init__(self, feeds: Sequence[Feed], options: Options) -> None:
        self.feeds = feeds
        self.options = options
        self._throttled = 0
        self.by_id = {self.market_id(feed.instrument): feed for feed in feeds}
        self.by_symbol = {feed.symbol: feed for feed in feeds}
        self._routes: list[tuple[re.Pattern[str], RestHandler]] = [
            (re.compile(pattern), getattr(self, method)) for pattern, method in self.routes
        ]

    # Names

    def feed_of(self, name: object) -> Feed | None:
        """Return the feed with the exchange's own name, unless it is not listed."""
        feed = self.by_id.get(name) if isinstance(name, str) else None
        return feed if feed is not None and feed.listed else None

    def feed_to_watch(self, name: object) -> Feed | None:
        """Return the feed to subscribe to; None where the websocket refuses the symbol."""
        feed = self.feed_of(name)
        return None if feed is None or feed.symbol in self.options.refused else feed

    @classmethod
    def unified_symbol(cls, symbol: str) -> str:
        """Return what ccxt calls a recorded symbol on this exchange."""
        return spot_symbol(symbol)

    def market_id(self, instrument: Instrument) -> str:
        """Return the exchange's own name of a symbol."""
        return instrument.base + instrument.quote

    def trade_id(self, feed: Feed, row: TradeRow) -> str:
        """Return the exchange's own id of a trade."""
        return str(row.trade_id)

    def wire_symbol(self, feed: Feed) -> str:
        """Return what a trade frame calls a symbol."""
        return self.market_id(feed.instrument)

    # REST

    def address(self, path: str, query: Mapping[str, str]) -> str:
        """Return what `routes`, `weights` and the patterns of paths are matched with.

        The path, unless the exchange has one path for all and says the rest in a parameter.

        Args:
            path: host and path.
            query: the parameters of query and body.
        """
        del query
        return path

    @property
    def now_us(self) -> int:
        """Return the exchange's clock: event time."""
        return max((feed.now_us for feed in self.feeds), default=time.time_ns() // 1_000)

    @property
    def now_ms(self) -> int:
        """Return the exchange's clock in milliseconds, rounded up: nothing earlier is to come."""
        return -(-self.now_us // 1_000)

    async def rest(self, request: RestRequest) -> RestReply | None:
        """Answer a REST request; None when this exchange has no such path."""
        for pattern, handler in self._routes:
            match = pattern.search(request.path)
            if match:
                if match.groupdict():
                    query = {**request.query, **match.groupdict()}
                    request = RestRequest(request.path, query, request.headers)
                try:
                    reply = handler(request)
                    return reply if isinstance(reply, RestReply) else await reply
                except RestRefusal as refusal:
                    return refusal.reply
        return None

    def banned(self, until_ms: int) -> RestReply:
        """Return the refusal of an address that asked too much: 429 and Retry-After (RFC 6585)."""
        wait_s = max(1, round(until_ms / 1000 - time.time()))
        return RestReply({"error": "Too many requests"}, 429, {"Retry-After": str(wait_s)})

    def restricted(self) -> RestReply:
        """Return the refusal of a place that may not be served: 451 (RFC 7725)."""
        return RestReply({"error": "Unavailable For Legal Reasons"}, 451)

    # Websocket

    def greet(self, socket: ClientSocket) -> Iterable[bytes]:
        """Return the frames that a new connection receives unasked."""
        return ()

    def channels_of_url(self, path: str, query: Mapping[str, str]) -> Sequence[Channel]:
        """Return the channels that a websocket's address names."""
        return ()

    def answer(self, socket: ClientSocket, text: str) -> Reply:
        """Answer a client's message, or say that it is one too many."""
        if self._throttled < self.options.throttled_subscribes:
            frames = self.throttled_frames(parse_object(text) or {})
            if frames:
                self._throttled += 1
                return Reply(frames)
        return self.on_text(socket, text)

    def on_text(self, socket: ClientSocket, text: str) -> Reply:
        """Answer a client's message."""
        raise NotImplementedError

    def throttled_frames(self, message: Mapping[str, Any]) -> list[bytes]:
        """Return the answer to a subscribe that is one too many.

        None to any other message, and where the exchange has no such answer.
        """
        return []

    def is_request(self, text: str) -> bool:
        """Return whether a message is a subscribe, unsubscribe or login."""
        return "subscribe" in text.lower()

    def breach(self, socket: ClientSocket, reply: Reply) -> Breach | None:
        """Return the rule that the subscriptions of a message would break."""
        opened = socket.channels | dict.fromkeys(reply.subscribe)
        if self.rules.streams and len(opened) > self.rules.streams:
            return "streams"
        length = self.rules.topic_chars and sum(len(channel.name) + 3 for channel in opened)
        if length and self.rules.topic_chars and length > self.rules.topic_chars:
            return "topics"
        return None

    def on_breach(self, breach: Breach, text: str) -> list[bytes] | None:
        """Return the frames that refuse a message; None: the connection is closed."""
        return None if self.rules.closes else self.throttled_frames(parse_object(text) or {})

    def trade_frames(
        self, socket: ClientSocket, channel: Channel, rows: Sequence[TradeRow]
    ) -> list[bytes]:
        """Return the frames for trades of one symbol, in order, split as the exchange does."""
        raise NotImplementedError

    def mixed_trade_frames(
        self, socket: ClientSocket, parts: Sequence[tuple[Channel, Sequence[TradeRow]]]
    ) -> list[bytes]:
        """Return the frames for trades of several symbols, in order."""
        frames: list[bytes] = []
        for channel, rows in parts:
            frames += self.trade_frames(socket, channel, rows)
        return frames

    def candle_frames(
        self,
        socket: ClientSocket,
        channel: Channel,
        candle: ExchangeCandle,
        *,
        closed: bool,
        event_time_us: int,
    ) -> list[bytes]:
        """Return the frames for a candle; none where the exchange would send none."""
        raise NotImplementedError

    def snapshot_frames(self, socket: ClientSocket, channel: Channel) -> list[bytes]:
        """Return what a new subscription receives at once."""
        return []

    def beat_frames(self, socket: ClientSocket) -> list[bytes]:
        """Return what the exchange sends from time to time whether anything happens or not."""
        return []


def dumps(value: object) -> bytes:
    """Return compact JSON."""
    return orjson.dumps(value)


def parse_object(text: str) -> dict[str, Any] | None:
    """Return a JSON object, None when the text is anything else."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def text_list(value: object) -> list[str] | None:
    """Return a list of texts, None when the value is anything else."""
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return value
    return None


def iso_time(time_us: int) -> str:
    """Return a time as exchanges write it, with six fraction digits."""
    seconds, fraction_us = divmod(time_us, 1_000_000)
    return f"{_iso_second(seconds)}.{fraction_us:06d}Z"


@lru_cache(maxsize=1024)
def _iso_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def tick(digits: int) -> str:
    """Return the smallest step of a number with so many fraction digits: 0.01 for 2."""
    return f"{Decimal(1).scaleb(-digits):f}"


def instants(rows: Sequence[TradeRow], most: int) -> list[Sequence[TradeRow]]:
    """Return runs of trades of one instant and side, as one order's executions are sent."""
    runs: list[Sequence[TradeRow]] = []
    first = 0
    for place in range(1, len(rows) + 1):
        same = (
            place < len(rows)
            and place - first < most
            and rows[place].trade_time_us == rows[first].trade_time_us
            and rows[place].side == rows[first].side
        )
        if not same:
            runs.append(rows[first:place])
            first = place
    return runs
