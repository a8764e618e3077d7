"""OKX spot, v5.

Channel trades merges the prints of one order at one price (`count`); trades-all, on the business
socket, sends each by itself:
{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT",
 "tradeId":"130639474","px":"42219.9","sz":"0.12060306","side":"buy","source":"0",
 "ts":"1630048897897"}]}
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from alpha_pulse.replay.dialects.base import (
    Dialect,
    Reply,
    RestRefusal,
    RestReply,
    RestRequest,
    dumps,
    instants,
    parse_object,
    tick,
)
from alpha_pulse.replay.dialects.rules import Rate, SocketRules
from alpha_pulse.replay.dialects.sockets import Channel, ClientSocket
from alpha_pulse.replay.markets.candles import ExchangeCandle, plain
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import Instrument, TradeRow

TRADES_MAX = 500
HISTORY_TRADES_MAX = 100
CANDLES_MAX = 300
FOREVER_US = 1 << 61
_BARS = {name: name for name in ("1m", "3m", "5m", "15m", "30m")} | {
    "1H": "1h",
    "2H": "2h",
    "4H": "4h",
    "6Hutc": "6h",
    "12Hutc": "12h",
    "1Dutc": "1d",
    "1Wutc": "1w",
}


class Okx(Dialect):
    """OKX spot: www.okx.com and ws.okx.com."""

    name = "okx"
    hosts = ("www.okx.com", "ws.okx.com:8443", "ws.okx.com:443", "ws.okx.com", "my.okx.com")
    routes = (
        (r"/api/v5/public/instruments$", "instruments"),
        (r"/api/v5/public/time$", "time"),
        (r"/api/v5/system/status$", "status"),
        (r"/api/v5/market/(history-)?candles$", "candles"),
        (r"/api/v5/market/trades$", "trades"),
        (r"/api/v5/market/history-trades$", "history_trades"),
    )
    # Source: OKX API v5, "WebSocket", "Connect".
    rules = SocketRules(dials=Rate(3, 1.0), requests=Rate(480, 3_600.0))

    def market_id(self, instrument: Instrument) -> str:
        """Return OKX's name of a pair: BTC-USDT."""
        return f"{instrument.base}-{instrument.quote}"

    # REST

    def instruments(self, request: RestRequest) -> RestReply:
        """List the spot pairs; no other kind is served."""
        if request.query.get("instType") != "SPOT":
            return _result([])
        return _result([_instrument(n, f) for n, f in self.by_id.items() if f.listed])

    def time(self, request: RestRequest) -> RestReply:
        """Return the exchange's clock."""
        return _result([{"ts": str(self.now_ms)}])

    def status(self, request: RestRequest) -> RestReply:
        """Return the maintenance that goes on, if any, beside one that concerns the demo alone."""
        word = self.options.system_status
        at = {"begin": str(self.now_ms), "end": str(self.now_ms + 3_600_000), "system": "unified"}
        status = {"state": "ongoing", "serviceType": "5", **at}
        demo = {"title": "Demo", **status, "env": "2"}
        return _result([demo, {"title": word, **status, "env": "1"}] if word else [demo])

    async def candles(self, request: RestRequest) -> RestReply:
        """Return candles older than `after` and newer than `before`, newest first."""
        feed = self._feed(request)
        timeframe = _BARS.get(request.query.get("bar", "1m"))
        if timeframe is None:
            raise _refusal("51000", "Parameter bar error")
        count = min(max(_integer(request, "limit", 100), 1), CANDLES_MAX)
        first_us = _integer(request, "before", -1) * 1_000 + 1
        last_us = _integer(request, "after", FOREVER_US // 1_000) * 1_000 - 1
        candles = await feed.page_of_candles(
            timeframe, max(first_us, 0), last_us, count, newest=True
        )
        return _result([self._candle_row(feed, candle) for candle in reversed(candles)])

    def trades(self, request: RestRequest) -> RestReply:
        """Return the newest trades, newest first: 500 at most."""
        feed = self._feed(request)
        count = min(max(_integer(request, "limit", 100), 1), TRADES_MAX)
        return self._trade_rows(feed, feed.last_trades(count))

    def history_trades(self, request: RestRequest) -> RestReply:
        """Return trades by id or time, newest first: 100 at most.

        `after` pages back and `before` forward; both exclude their own id.
        """
        feed = self._feed(request)
        count = min(max(_integer(request, "limit", HISTORY_TRADES_MAX), 1), HISTORY_TRADES_MAX)
        after = _integer(request, "after", 0)
        before = _integer(request, "before", 0)
        rows: Sequence[TradeRow]
        if request.query.get("type") == "2":
            end_us = after * 1_000 if after else FOREVER_US
            rows = feed.trades_before_time((before + 1) * 1_000 if before else 0, end_us, count)
        elif after:
            rows = feed.trades_before_id(after, count)
            rows = [row for row in rows if row.trade_id > before]
        elif before:
            rows = [row for row in feed.last_trades(count) if row.trade_id > before]
        else:
            rows = feed.last_trades(count)
        return self._trade_rows(feed, rows)

    def _trade_rows(self, feed: Feed, rows: Sequence[TradeRow]) -> RestReply:
        name = self.market_id(feed.instrument)
        return _result(
            [
                {
                    "instId": name,
                    "side": row.side,
                    "sz": row.amount,
                    "px": row.price,
                    "source": "0",
                    "tradeId": str(row.trade_id),
                    "ts": str(row.trade_time_us // 1_000),
                }
                for row in reversed(rows)
            ]
        )

    def _candle_row(self, feed: Feed, candle: ExchangeCandle) -> list[str]:
        closed = feed.candles.is_closed(candle.close_time_us, feed.now_us)
        return _candle_row(candle, closed=closed)

    def _feed(self, request: RestRequest) -> Feed:
        feed = self.feed_of(request.query.get("instId", ""))
        if feed is None:
            raise _refusal("51001", "Instrument ID does not exist")
        return feed

    # Websocket

    def is_request(self, text: str) -> bool:
        """Return whether a message is a subscribe, unsubscribe or login."""
        return "subscribe" in text or '"login"' in text

    def on_text(self, socket: ClientSocket, text: str) -> Reply:
        """Answer the text `ping`, subscribe and unsubscribe."""
        if text == "ping":
            return Reply([b"pong"])
        message = parse_object(text)
        operation = message.get("op") if message else None
        arguments = message.get("args") if message else None
        connection = f"{socket.number:08x}"
        if operation == "login":
            # ccxt logs in before trades-all; any key will do.
            ack = {"event": "login", "code": "0", "msg": "", "connId": connection}
            return Reply([dumps(ack)])
        if operation not in ("subscribe", "unsubscribe") or not isinstance(arguments, list):
            what = f"Illegal request: {text[:200]}"
            return Reply([dumps({"event": "error", "code": "60012", "msg": what})])
        reply = Reply()
        opened = reply.subscribe if operation == "subscribe" else reply.unsubscribe
        for argument in arguments:
            channel = self._channel(socket.path, argument)
            if channel is None:
                what = (
                    f"Wrong URL or channel:{_text(argument, 'channel')},"
                    f"instId:{_text(argument, 'instId')} doesn't exist. Please use the correct "
                    "URL, channel and parameters referring to API document."
                )
                error = {"event": "error", "code": "60018", "msg": what, "connId": connection}
                reply.frames.append(dumps(error))
                continue
            ack = {"event": operation, "arg": argument, "connId": connection}
            reply.frames.append(dumps(ack))
            opened.append(channel)
        return reply

    def throttled_frames(self, message: Mapping[str, Any]) -> list[bytes]:
        """Return the error of too many subscribes, which names none of them."""
        if message.get("op") != "subscribe":
            return []
        error = {"event": "error", "code": "60014", "msg": "Requests too frequent"}
        return [dumps({**error, "connId": "a4d3ae55"})]

    def trade_frames(
        self, socket: ClientSocket, channel: Channel, rows: Sequence[TradeRow]
    ) -> list[bytes]:
        """Return one frame per trade, or per merged print on the channel that merges."""
        name = self.market_id(self.by_symbol[channel.symbol].instrument)
        if channel.name.startswith("trades-all"):
            return [
                (
                    f'{{"arg":{{"channel":"trades-all","instId":"{name}"}},"data":[{{"instId":'
                    f'"{name}","tradeId":"{trade_id}","px":"{price}","sz":"{amount}",'
                    f'"side":"{side}","source":"0","ts":"{time_us // 1_000}"}}]}}'
                ).encode()
                for trade_id, time_us, price, amount, side in rows
            ]
        frames = []
        for run in instants(rows, 1_000):
            for prints in _same_price(run):
                amount = f"{sum(Decimal(row.amount) for row in prints):f}"
                last = prints[-1]
                frames.append(
                    (
                        f'{{"arg":{{"channel":"trades","instId":"{name}"}},"data":[{{"instId":'
                        f'"{name}","tradeId":"{last.trade_id}","px":"{last.price}",'
                        f'"sz":"{amount}","side":"{last.side}",'
                        f'"ts":"{last.trade_time_us // 1_000}","count":"{len(prints)}"}}]}}'
                    ).encode()
                )
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
        """Return the candle; its last field says whether it is final. No time is sent."""
        name = self.market_id(self.by_symbol[channel.symbol].instrument)
        argument = {"channel": channel.name.partition(":")[0], "instId": name}
        return [dumps({"arg": argument, "data": [_candle_row(candle, closed=closed)]})]

    def _channel(self, path: str, argument: object) -> Channel | None:
        feed = self.feed_to_watch(_text(argument, "instId"))
        if feed is None:
            return None
        name = _text(argument, "channel")
        key = f"{name}:{feed.symbol}"
        # trades lives on the public socket, trades-all and candles on the business one.
        if name == "trades" and path.endswith("/public"):
            return Channel("trades", feed.symbol, key)
        if name == "trades-all" and path.endswith("/business"):
            return Channel("trades", feed.symbol, key)
        timeframe = _BARS.get(name.removeprefix("candle"))
        if name.startswith("candle") and timeframe and path.endswith("/business"):
            return Channel("candles", feed.symbol, key, timeframe)
        return None


def _same_price(rows: Sequence[TradeRow]) -> list[list[TradeRow]]:
    runs: list[list[TradeRow]] = []
    for row in rows:
        if runs and runs[-1][0].price == row.price:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def _candle_row(candle: ExchangeCandle, *, closed: bool) -> list[str]:
    cost = plain(candle.quote_volume)
    return [
        str(candle.open_time_us // 1_000),
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        cost,
        cost,
        "1" if closed else "0",
    ]


def _instrument(name: str, feed: Feed) -> dict[str, Any]:
    instrument = feed.instrument
    empty = ("settleCcy", "ctVal", "ctMult", "ctValCcy", "optType", "stk", "expTime", "lever")
    return {
        **dict.fromkeys(empty, ""),
        "instType": "SPOT",
        "instId": name,
        "uly": "",
        "instFamily": "",
        "baseCcy": instrument.base,
        "quoteCcy": instrument.quote,
        "listTime": "1548133413000",
        "tickSz": tick(instrument.price_digits),
        "lotSz": tick(instrument.amount_digits),
        "minSz": "0.00001",
        "ctType": "",
        "alias": "",
        "state": feed.status or "live",
        "maxLmtSz": "9999999999",
        "maxMktSz": "1000000",
    }


def _text(argument: object, name: str) -> str:
    value = argument.get(name) if isinstance(argument, dict) else None
    return value if isinstance(value, str) else ""


def _integer(request: RestRequest, name: str, default: int) -> int:
    try:
        return request.integer(name, default)
    except ValueError as e:
        raise _refusal("51000", f"Parameter {name} error") from e


def _result(rows: list[Any]) -> RestReply:
    return RestReply({"code": "0", "msg": "", "data": rows})


def _refusal(code: str, message: str) -> RestRefusal:
    return RestRefusal(RestReply({"code": code, "msg": message, "data": []}, status=400))


DIALECT = Okx
