"""Kraken spot: REST and websocket v2.

A real frame of the trade channel; numbers are JSON numbers, small ones with an exponent:
{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":105944.20,
 "qty":0.00027625,"ord_type":"limit","trade_id":10218208,
 "timestamp":"2023-10-06T17:35:55.440295Z"}]}
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar

from alpha_pulse.replay.dialects.base import (
    Dialect,
    Reply,
    RestRefusal,
    RestReply,
    RestRequest,
    dumps,
    instants,
    iso_time,
    parse_object,
    text_list,
    tick,
)
from alpha_pulse.replay.dialects.rules import Rate, SocketRules
from alpha_pulse.replay.dialects.sockets import Channel, ClientSocket
from alpha_pulse.replay.markets.candles import TIMEFRAMES_US, ExchangeCandle
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import Instrument, TradeRow

TRADES_MAX = 1_000
CANDLES_MAX = 720
SNAPSHOT_CANDLES = 10
FOREVER_US = 1 << 61
# Kraken's names of what ccxt calls otherwise. Source: Kraken's "Get asset info", and ccxt's table.
_ASSETS = {
    "BTC": "XBT",
    "DOGE": "XDG",
    "LUNC": "LUNA",
    "LUNA": "LUNA2",
    "REPV1": "REP",
    "REP": "REPV2",
    "USTC": "UST",
}
# Websocket v2 has these names instead. Source: Kraken's "Spot WebSocket v2", differences from v1.
_READABLE = {"XBT": "BTC", "XDG": "DOGE"}
_INTERVALS = {
    TIMEFRAMES_US[name] // 60_000_000: name
    for name in ("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w")
}


class Kraken(Dialect):
    """Kraken spot: api.kraken.com and ws.kraken.com/v2."""

    name = "kraken"
    time_precision_us: ClassVar[int] = 1
    hosts = ("api.kraken.com", "ws.kraken.com")
    routes = (
        (r"/0/public/Assets$", "assets"),
        (r"/0/public/AssetPairs$", "pairs"),
        (r"/0/public/Time$", "time"),
        (r"/0/public/SystemStatus$", "status"),
        (r"/0/public/OHLC$", "candles"),
        (r"/0/public/Trades$", "trades"),
    )
    candle_paths = r"OHLC"
    frame_trades_max: ClassVar[int] = 100
    # Source: Kraken, "Spot WebSockets", introduction: the proxy bans for 10 minutes. How many
    # messages are too many is not documented; 50 a second is a guess.
    rules = SocketRules(dials=Rate(150, 600.0), dial_ban_s=600.0, messages=Rate(50, 1.0))
    snapshot_trades = 50

    def market_id(self, instrument: Instrument) -> str:
        """Return Kraken's name of a pair: XBTUSDT."""
        return _asset(instrument.base) + _asset(instrument.quote)

    def wire_symbol(self, feed: Feed) -> str:
        """Return what a trade frame calls a pair: BTC/USDT, and LUNA2/USD for ccxt's LUNA/USD."""
        assets = (_asset(currency) for currency in (feed.instrument.base, feed.instrument.quote))
        return "/".join(_READABLE.get(asset, asset) for asset in assets)

    # REST

    def assets(self, request: RestRequest) -> RestReply:
        """List the currencies."""
        names = {_asset(c) for f in self.feeds for c in (f.instrument.base, f.instrument.quote)}
        return _result(
            {
                name: {
                    "aclass": "currency",
                    "altname": name,
                    "decimals": 10,
                    "display_decimals": 5,
                    "status": "enabled",
                }
                for name in sorted(names)
            }
        )

    def pairs(self, request: RestRequest) -> RestReply:
        """List the pairs."""
        listed = {name: feed for name, feed in self.by_id.items() if feed.listed}
        return _result({name: _pair(name, feed) for name, feed in listed.items()})

    def time(self, request: RestRequest) -> RestReply:
        """Return the exchange's clock."""
        return _result({"unixtime": self.now_us // 1_000_000})

    def status(self, request: RestRequest) -> RestReply:
        """Return whether the system runs."""
        status = self.options.system_status or "online"
        return _result({"status": status, "timestamp": iso_time(self.now_us)})

    async def candles(self, request: RestRequest) -> RestReply:
        """Return the newest candles, 720 at most whatever is asked for, the last unfinished."""
        feed = self._feed(request)
        timeframe = _INTERVALS.get(_integer(request, "interval", 1))
        if timeframe is None:
            raise _refusal("EGeneral:Invalid arguments")
        since_us = _integer(request, "since", 0) * 1_000_000
        newest = await feed.page_of_candles(timeframe, 0, FOREVER_US, CANDLES_MAX, newest=True)
        rows = [_candle_row(candle) for candle in newest if candle.open_time_us > since_us]
        last = rows[-2][0] if len(rows) > 1 else 0
        return _result({request.query["pair"]: rows, "last": last})

    def trades(self, request: RestRequest) -> RestReply:
        """Return the first trades after `since` (seconds, or nanoseconds as in `last`)."""
        feed = self._feed(request)
        count = min(max(_integer(request, "count", TRADES_MAX), 1), TRADES_MAX)
        since = request.query.get("since")
        rows = _rows_since(feed, since, count) if since else feed.last_trades(count)
        listed = [
            [
                row.price,
                row.amount,
                row.trade_time_us / 1e6,
                "s" if row.side == "sell" else "b",
                "m",
                "",
                row.trade_id,
            ]
            for row in rows
        ]
        last = _nanosecond(feed, rows[-1]) if rows else since or "0"
        return _result({request.query["pair"]: listed, "last": str(last)})

    def _feed(self, request: RestRequest) -> Feed:
        feed = self.feed_of(request.query.get("pair", ""))
        if feed is None:
            raise _refusal("EQuery:Unknown asset pair")
        return feed

    # Websocket

    def greet(self, socket: ClientSocket) -> Iterable[bytes]:
        """Return the status that a new connection receives."""
        status = {
            "version": "2.0.10",
            "system": self.options.system_status or "online",
            "api_version": "v2",
            "connection_id": socket.number,
        }
        return [dumps({"channel": "status", "type": "update", "data": [status]})]

    def on_text(self, socket: ClientSocket, text: str) -> Reply:
        """Answer ping, subscribe and unsubscribe."""
        message = parse_object(text)
        if message is None:
            return Reply([dumps({"error": "Malformed request", "success": False})])
        number, method = message.get("req_id"), message.get("method")
        at = {"time_in": iso_time(self.now_us), "time_out": iso_time(self.now_us)}
        if method == "ping":
            return Reply([dumps({"method": "pong", "req_id": number, **at})])
        given = message.get("params")
        parameters: dict[str, Any] = given if isinstance(given, dict) else {}
        symbols = text_list(parameters.get("symbol"))
        if method not in ("subscribe", "unsubscribe") or symbols is None:
            error = {"error": "Malformed request", "method": method, "success": False}
            return Reply([dumps({**error, "req_id": number, **at})])
        reply = Reply()
        opened = reply.subscribe if method == "subscribe" else reply.unsubscribe
        for symbol in symbols:
            channel = self._channel(parameters, symbol)
            refusal = f"Currency pair not supported {symbol}" if channel is None else ""
            if channel in socket.channels and method == "subscribe":
                refusal = "Already subscribed"
            if channel is None or refusal:
                error = {"error": refusal, "method": method, "success": False, "symbol": symbol}
                reply.frames.append(dumps({**error, "req_id": number, **at}))
                continue
            result: dict[str, Any] = {"channel": parameters["channel"], "symbol": symbol}
            if channel.timeframe:
                result["interval"] = parameters.get("interval", 1)
            if method == "subscribe":
                result["snapshot"] = parameters.get("snapshot", True)
            ack = {"method": method, "result": result, "success": True}
            reply.frames.append(dumps({**ack, "req_id": number, **at}))
            opened.append(channel)
        return reply

    def throttled_frames(self, message: Mapping[str, Any]) -> list[bytes]:
        """Return an error for each symbol of a subscribe."""
        if message.get("method") != "subscribe":
            return []
        error = {"error": "Exceeded msg rate", "method": "subscribe", "success": False}
        at = {"time_in": iso_time(self.now_us), "time_out": iso_time(self.now_us)}
        symbols = message["params"]["symbol"]
        return [dumps({**error, "symbol": symbol, **at}) for symbol in symbols]

    def snapshot_frames(self, socket: ClientSocket, channel: Channel) -> list[bytes]:
        """Return the last trades, or the last candles."""
        feed = self.by_symbol[channel.symbol]
        name = self.wire_symbol(feed)
        if channel.kind == "trades":
            rows = feed.last_trades(self.snapshot_trades)
            return [_trade_frame("snapshot", name, rows)] if rows else []
        first_us = feed.newest_from_us(channel.timeframe, FOREVER_US, SNAPSHOT_CANDLES)
        candles = feed.first_candles(channel.timeframe, first_us, FOREVER_US, SNAPSHOT_CANDLES)
        if not candles:
            return []
        return [_candle_frame("snapshot", name, candles, self.now_us)]

    def trade_frames(
        self, socket: ClientSocket, channel: Channel, rows: Sequence[TradeRow]
    ) -> list[bytes]:
        """Return one frame per instant, with all its trades."""
        name = self.wire_symbol(self.by_symbol[channel.symbol])
        return [_trade_frame("update", name, run) for run in instants(rows, self.frame_trades_max)]

    def candle_frames(
        self,
        socket: ClientSocket,
        channel: Channel,
        candle: ExchangeCandle,
        *,
        closed: bool,
        event_time_us: int,
    ) -> list[bytes]:
        """Return the candle; Kraken never says that one is final, and is silent about empty ones.

        The last frame before the next candle's first one holds the final values.
        """
        if not candle.trade_count and closed:
            return []
        name = self.wire_symbol(self.by_symbol[channel.symbol])
        return [_candle_frame("update", name, [candle], event_time_us)]

    def beat_frames(self, socket: ClientSocket) -> list[bytes]:
        """Return the heartbeat of a subscribed connection."""
        return [b'{"channel":"heartbeat"}'] if socket.channels else []

    def _channel(self, parameters: dict[str, Any], symbol: str) -> Channel | None:
        feed = next((feed for feed in self.feeds if self.wire_symbol(feed) == symbol), None)
        if feed is None or not feed.listed or feed.symbol in self.options.refused:
            return None
        if parameters.get("channel") == "trade":
            return Channel("trades", feed.symbol, f"trade:{symbol}")
        interval = parameters.get("interval", 1)
        timeframe = _INTERVALS.get(interval) if isinstance(interval, int) else None
        if parameters.get("channel") == "ohlc" and timeframe:
            return Channel("candles", feed.symbol, f"ohlc-{timeframe}:{symbol}", timeframe)
        return None


def _trade_frame(kind: str, symbol: str, rows: Sequence[TradeRow]) -> bytes:
    trades = ",".join(
        f'{{"symbol":"{symbol}","side":"{row.side}","price":{_number(row.price)},'
        f'"qty":{_number(row.amount)},"ord_type":"market","trade_id":{row.trade_id},'
        f'"timestamp":"{iso_time(row.trade_time_us)}"}}'
        for row in rows
    )
    return f'{{"channel":"trade","type":"{kind}","data":[{trades}]}}'.encode()


def _candle_frame(
    kind: str, symbol: str, candles: Sequence[ExchangeCandle], event_time_us: int
) -> bytes:
    parts = []
    for candle in candles:
        volume = Decimal(candle.volume)
        average = f"{candle.quote_volume / volume:.8f}" if volume else candle.close
        parts.append(
            f'{{"symbol":"{symbol}","open":{candle.open},"high":{candle.high},'
            f'"low":{candle.low},"close":{candle.close},"trades":{candle.trade_count},'
            f'"volume":{_number(candle.volume)},"vwap":{average},'
            f'"interval_begin":"{iso_time(candle.open_time_us)}",'
            f'"interval":{candle.timeframe_us // 60_000_000},'
            f'"timestamp":"{iso_time(candle.close_time_us)}"}}'
        )
    return (
        f'{{"channel":"ohlc","type":"{kind}","timestamp":"{iso_time(event_time_us)}",'
        f'"data":[{",".join(parts)}]}}'
    ).encode()


def _number(text: str) -> str:
    # As a float is printed: 0.00000009 is sent as 9e-08.
    if text.startswith("0.000000") and text.strip("0."):
        digits = Decimal(text).normalize()
        mantissa, _, exponent = f"{digits:e}".partition("e")
        return f"{mantissa}e-{abs(int(exponent)):02d}"
    return text


def _rows_since(feed: Feed, since: str, count: int) -> Sequence[TradeRow]:
    if not since.replace(".", "", 1).isdecimal() or not since.isascii():
        raise _refusal("EGeneral:Invalid arguments:since")
    if len(since) < 15:
        return feed.trades_from_time(int(Decimal(since) * 1_000_000), FOREVER_US, count)
    after, rank = divmod(int(since), 1_000)
    # Several trades may share a microsecond: `last` counts them in its nanoseconds.
    rows = feed.trades_from_time(after, FOREVER_US, count + 1_000)
    place = 0
    while place < len(rows) and place <= rank and rows[place].trade_time_us == after:
        place += 1
    return rows[place : place + count]


def _nanosecond(feed: Feed, row: TradeRow) -> int:
    first = feed.market.position_at(row.trade_time_us)
    rank = feed.market.position_of(row.trade_id) - first
    return row.trade_time_us * 1_000 + min(max(rank, 0), 999)


def _candle_row(candle: ExchangeCandle) -> list[Any]:
    volume = Decimal(candle.volume)
    average = f"{candle.quote_volume / volume:.8f}" if volume else "0"
    return [
        candle.open_time_us // 1_000_000,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        average,
        candle.volume,
        candle.trade_count,
    ]


def _pair(name: str, feed: Feed) -> dict[str, Any]:
    instrument = feed.instrument
    return {
        "altname": name,
        "wsname": f"{_asset(instrument.base)}/{_asset(instrument.quote)}",
        "aclass_base": "currency",
        "base": _asset(instrument.base),
        "aclass_quote": "currency",
        "quote": _asset(instrument.quote),
        "lot": "unit",
        "pair_decimals": instrument.price_digits,
        "cost_decimals": 8,
        "lot_decimals": 8,
        "lot_multiplier": 1,
        "leverage_buy": [],
        "leverage_sell": [],
        "fees": [[0, 0.4]],
        "fees_maker": [[0, 0.25]],
        "fee_volume_currency": "ZUSD",
        "ordermin": "0.00005",
        "costmin": "0.5",
        "tick_size": tick(instrument.price_digits),
        "status": feed.status or "online",
    }


def _asset(currency: str) -> str:
    return _ASSETS.get(currency, currency)


def _integer(request: RestRequest, name: str, default: int) -> int:
    try:
        return request.integer(name, default)
    except ValueError as e:
        raise _refusal(f"EGeneral:Invalid arguments:{name}") from e


def _result(result: object) -> RestReply:
    return RestReply({"error": [], "result": result})


def _refusal(error: str) -> RestRefusal:
    return RestRefusal(RestReply({"error": [error]}))


DIALECT = Kraken
