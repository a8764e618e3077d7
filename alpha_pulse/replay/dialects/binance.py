"""Binance spot and USDⓈ-M futures.

A real frame of the trade stream:
{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000",
 "q":"0.02000000","T":1723161255342,"m":true,"M":true}
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar

from alpha_pulse.replay.dialects.base import (
    Dialect,
    Reply,
    RestReply,
    RestRequest,
    dumps,
    parse_object,
    text_list,
)
from alpha_pulse.replay.dialects.binance_rest import (
    AGGREGATE_ID_SHIFT,
    aggregate_row,
    banned,
    integer,
    invalid_symbol,
    kline_row,
    limit,
    refusal,
    required,
    restricted,
    trade_row,
)
from alpha_pulse.replay.dialects.rules import Rate, SocketRules
from alpha_pulse.replay.dialects.sockets import Channel, ClientSocket
from alpha_pulse.replay.markets.candles import TIMEFRAMES_US, ExchangeCandle, plain
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import TradeRow

ROWS_MAX = 1_000
FOREVER_MS = 1 << 50


class Binance(Dialect):
    """Binance spot: api.binance.com and stream.binance.com."""

    name = "binance"
    hosts: ClassVar[tuple[str, ...]] = (
        "api.binance.com",
        "api1.binance.com",
        "api2.binance.com",
        "api3.binance.com",
        "data-api.binance.vision",
        "fapi.binance.com",
        "dapi.binance.com",
        "eapi.binance.com",
        "stream.binance.com:9443",
        "stream.binance.com",
        "data-stream.binance.vision",
        "testnet.binance.vision",
        "stream.testnet.binance.vision",
    )
    routes: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^([^/]*api\d?\.binance\.\w+|testnet[^/]+)/api/v3/exchangeInfo$", "exchange_info"),
        (r"/[fd]api/v1/exchangeInfo$", "no_symbols"),
        (r"/api/v3/ping$", "empty"),
        (r"/api/v3/time$", "time"),
        (r"/sapi/v1/system/status$", "status"),
        (r"/api/v3/klines$", "klines"),
        (r"/api/v3/trades$", "trades"),
        (r"/api/v3/historicalTrades$", "historical_trades"),
        (r"/api/v3/aggTrades$", "aggregate_trades"),
    )

    weights: ClassVar[tuple[tuple[str, int], ...]] = (
        (r"exchangeInfo$", 20),
        (r"klines$", 2),
        (r"aggTrades$", 4),
        (r"[tT]rades$", 25),
    )
    refuses_symbols = False
    # Source: Binance, "WebSocket Streams", "General WSS information". A connection that breaks a
    # rule is closed; the status of a handshake too many is not documented.
    rules = SocketRules(dials=Rate(300, 300.0), messages=Rate(5, 1.0), streams=1_024, closes=True)
    klines_max: ClassVar[int] = ROWS_MAX
    history_max: ClassVar[int] = ROWS_MAX

    # REST

    def exchange_info(self, request: RestRequest) -> RestReply:
        """List the symbols with their ticks."""
        wanted = request.query.get("symbol")
        if wanted and wanted not in self.by_id:
            raise invalid_symbol()
        symbols = [
            self.symbol_info(name, feed)
            for name, feed in self.by_id.items()
            if feed.listed and wanted in (None, "", name)
        ]
        return RestReply(
            {
                "timezone": "UTC",
                "serverTime": self.now_ms,
                "rateLimits": [
                    {
                        "rateLimitType": "REQUEST_WEIGHT",
                        "interval": "MINUTE",
                        "intervalNum": 1,
                        "limit": 6000,
                    }
                ],
                "exchangeFilters": [],
                "symbols": symbols,
            }
        )

    def symbol_info(self, name: str, feed: Feed) -> dict[str, Any]:
        """Return one symbol's entry of exchangeInfo."""
        instrument = feed.instrument
        return {
            "symbol": name,
            "status": feed.status or "TRADING",
            "baseAsset": instrument.base,
            "baseAssetPrecision": 8,
            "quoteAsset": instrument.quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "MARKET"],
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "permissions": ["SPOT"],
            "permissionSets": [["SPOT"]],
            "filters": self.filters(feed),
        }

    def filters(self, feed: Feed) -> list[dict[str, str]]:
        """Return the symbol's price and amount steps."""
        tick = plain(Decimal(1).scaleb(-feed.instrument.price_digits))
        lot = plain(Decimal(1).scaleb(-feed.instrument.amount_digits))
        return [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": tick,
                "maxPrice": "1000000.00000000",
                "tickSize": tick,
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": lot,
                "maxQty": "9000.00000000",
                "stepSize": lot,
            },
        ]

    def no_symbols(self, request: RestRequest) -> RestReply:
        """List nothing: the other markets of the same company."""
        return RestReply({"serverTime": self.now_ms, "rateLimits": [], "symbols": []})

    def empty(self, request: RestRequest) -> RestReply:
        """Answer a ping."""
        return RestReply({})

    def time(self, request: RestRequest) -> RestReply:
        """Return the exchange's clock."""
        return RestReply({"serverTime": self.now_ms})

    def status(self, request: RestRequest) -> RestReply:
        """Return whether the system runs."""
        word = self.options.system_status
        return RestReply({"status": 1 if word else 0, "msg": word or "normal"})

    def banned(self, until_ms: int) -> RestReply:
        """Return the ban of an address, dated by its body alone."""
        return banned(until_ms)

    def restricted(self) -> RestReply:
        """Return the refusal of a place."""
        return restricted()

    async def klines(self, request: RestRequest) -> RestReply:
        """Return candles by open time: from startTime the first, else the newest."""
        feed = self._feed(request)
        interval = required(request, "interval")
        if interval not in TIMEFRAMES_US:
            raise refusal(-1120, "Invalid interval.")
        count = limit(request, self.klines_max)
        first_us = integer(request, "startTime", 0) * 1_000
        last_us = integer(request, "endTime", FOREVER_MS) * 1_000
        newest = "startTime" not in request.query
        candles = await feed.page_of_candles(interval, first_us, last_us, count, newest=newest)
        return RestReply([kline_row(candle) for candle in candles])

    def trades(self, request: RestRequest) -> RestReply:
        """Return the newest trades: 1,000 at most."""
        rows = self._feed(request).last_trades(limit(request, ROWS_MAX))
        return RestReply([trade_row(row) for row in rows])

    def historical_trades(self, request: RestRequest) -> RestReply:
        """Return trades from an id on, else the newest; may want an API key."""
        if not self.options.keyless_history and not request.headers.get("X-MBX-APIKEY"):
            raise refusal(-2014, "API-key format invalid.", status=401)
        feed, count = self._feed(request), limit(request, self.history_max)
        if request.query.get("fromId"):
            rows = feed.trades_from_id(integer(request, "fromId", 0), count)
        else:
            rows = feed.last_trades(count)
        return RestReply([trade_row(row) for row in rows])

    def aggregate_trades(self, request: RestRequest) -> RestReply:
        """Return aggregates by id or by time, else the newest."""
        feed, count = self._feed(request), limit(request, ROWS_MAX)
        if request.query.get("fromId"):
            from_id = integer(request, "fromId", 0) - AGGREGATE_ID_SHIFT
            rows = feed.trades_from_id(from_id, count)
        else:
            first_us = integer(request, "startTime", 0) * 1_000
            end_us = (integer(request, "endTime", FOREVER_MS) + 1) * 1_000
            if "startTime" in request.query:
                rows = feed.trades_from_time(first_us, end_us, count)
            else:
                rows = feed.trades_before_time(first_us, end_us, count)
        return RestReply([aggregate_row(row) for row in rows])

    def _feed(self, request: RestRequest) -> Feed:
        feed = self.by_id.get(required(request, "symbol"))
        if feed is None or not feed.listed:
            raise invalid_symbol()
        return feed

    # Websocket

    def channels_of_url(self, path: str, query: Mapping[str, str]) -> Sequence[Channel]:
        """Return the streams of /ws/btcusdt@trade and /stream?streams=a/b."""
        names = query.get("streams", "").split("/")
        if "/ws/" in path:
            names += path.split("/ws/", 1)[1].split("/")
        return [channel for channel in map(self._channel, names) if channel]

    def on_text(self, socket: ClientSocket, text: str) -> Reply:
        """Answer SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS."""
        message = parse_object(text)
        if message is None:
            return Reply([_error(3, "Invalid JSON: expected value at line 1 column 1")])
        number, method = message.get("id"), message.get("method")
        if method == "LIST_SUBSCRIPTIONS":
            names = [channel.name for channel in socket.channels]
            return Reply([dumps({"result": names, "id": number})])
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            known = "SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY, GET_PROPERTY"
            what = f"Invalid request: unknown variant `{method}`, expected one of {known}"
            return Reply([_error(2, what, number)])
        names_given = text_list(message.get("params"))
        if not names_given:
            what = "Invalid request: missing or invalid field `params`"
            return Reply([_error(2, what, number)])
        # An unknown stream is acknowledged, and nothing ever comes.
        channels = [channel for channel in map(self._channel, names_given) if channel]
        ack = [dumps({"result": None, "id": number})]
        if method == "SUBSCRIBE":
            return Reply(ack, subscribe=channels)
        return Reply(ack, unsubscribe=channels)

    def trade_frames(
        self, socket: ClientSocket, channel: Channel, rows: Sequence[TradeRow]
    ) -> list[bytes]:
        """Return one frame per trade; E is the exchange's clock, which never steps back."""
        feed = self.by_symbol[channel.symbol]
        name = self.market_id(feed.instrument)
        aggregate = channel.name.endswith("@aggTrade")
        kind, number = ("aggTrade", "a") if aggregate else ("trade", "t")
        shift = AGGREGATE_ID_SHIFT if aggregate else 0
        event_ms = feed.event_ms
        frames = []
        for trade_id, time_us, price, amount, side in rows:
            ms = time_us // 1_000
            if ms > event_ms:
                event_ms = ms
            raw_ids = f'"f":{trade_id},"l":{trade_id},' if aggregate else ""
            frames.append(
                (
                    f'{{"e":"{kind}","E":{event_ms},"s":"{name}","{number}":{trade_id + shift},'
                    f'"p":"{price}","q":"{amount}",{raw_ids}"T":{ms},"m":{_MAKER[side]},"M":true}}'
                ).encode()
            )
        feed.event_ms = event_ms
        return self.combined(socket, channel, frames)

    def candle_frames(
        self,
        socket: ClientSocket,
        channel: Channel,
        candle: ExchangeCandle,
        *,
        closed: bool,
        event_time_us: int,
    ) -> list[bytes]:
        """Return one kline frame; x says whether it is final."""
        name = self.market_id(self.by_symbol[channel.symbol].instrument)
        frame = dumps(
            {
                "e": "kline",
                "E": -(-event_time_us // 1_000),
                "s": name,
                "k": {
                    "t": candle.open_time_us // 1_000,
                    "T": candle.close_time_us // 1_000 - 1,
                    "s": name,
                    "i": channel.timeframe,
                    "f": -1 if candle.first_trade_id is None else candle.first_trade_id,
                    "L": -1 if candle.last_trade_id is None else candle.last_trade_id,
                    "o": candle.open,
                    "c": candle.close,
                    "h": candle.high,
                    "l": candle.low,
                    "v": candle.volume,
                    "n": candle.trade_count,
                    "x": closed,
                    "q": plain(candle.quote_volume),
                    "V": plain(candle.buy_volume),
                    "Q": plain(candle.buy_quote_volume),
                    "B": "0",
                },
            }
        )
        return self.combined(socket, channel, [frame])

    def combined(self, socket: ClientSocket, channel: Channel, frames: list[bytes]) -> list[bytes]:
        """Return the frames as the socket's address wants them: /stream wraps each."""
        if "/stream" not in socket.path.partition("?")[0]:
            return frames
        return [b'{"stream":"%b","data":%b}' % (channel.name.encode(), f) for f in frames]

    def _channel(self, name: str) -> Channel | None:
        market, _, stream = name.partition("@")
        feed = self.by_id.get(market.upper())
        if feed is None or market != market.lower() or feed.symbol in self.options.refused:
            return None
        if stream in ("trade", "aggTrade"):
            return Channel("trades", feed.symbol, name)
        timeframe = stream.removeprefix("kline_")
        if stream.startswith("kline_") and timeframe in TIMEFRAMES_US:
            return Channel("candles", feed.symbol, name, timeframe)
        return None


_MAKER = {"sell": "true", "buy": "false"}


def _error(code: int, message: str, number: object = None) -> bytes:
    return dumps({"error": {"code": code, "msg": message}, "id": number})


DIALECT = Binance
