"""Bybit v5, spot and linear perpetuals. Trade ids are unique: UUIDs, on spot numbers.

{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1709891679005,"data":[{"T":1709891679000,
 "s":"BTCUSDT","S":"Buy","v":"0.010","p":"27451.00",
 "i":"9dc75fca-4bdd-4773-9f78-6f5d7ab2a110","BT":false}]}
"""

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

from alpha_pulse.replay.dialects.base import (
    Dialect,
    Reply,
    RestRefusal,
    RestReply,
    RestRequest,
    dumps,
    instants,
    parse_object,
    text_list,
    tick,
)
from alpha_pulse.replay.dialects.rules import Breach, Rate, SocketRules
from alpha_pulse.replay.dialects.sockets import Channel, ClientSocket
from alpha_pulse.replay.markets.candles import ExchangeCandle, plain
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import TradeRow

SPOT_TRADES_MAX = 60
SPOT_ARGUMENTS_MAX = 10
LINEAR_TRADES_MAX = 1_000
CANDLES_MAX = 1_000
SPOT_IDS_FROM = 2_290_000_000_000_000_000_000
FOREVER_US = 1 << 61
_INTERVALS = {
    "1": "1m",
    "3": "3m",
    "5": "5m",
    "15": "15m",
    "30": "30m",
    "60": "1h",
    "120": "2h",
    "240": "4h",
    "360": "6h",
    "720": "12h",
    "D": "1d",
    "W": "1w",
}


class Bybit(Dialect):
    """Bybit: api.bybit.com and stream.bybit.com."""

    name = "bybit"
    hosts = ("api.bybit.com", "stream.bybit.com")
    routes = (
        (r"/v5/market/instruments-info$", "instruments"),
        (r"/v5/market/time$", "time"),
        (r"/v5/system/status$", "status"),
        (r"/v5/market/kline$", "candles"),
        (r"/v5/market/recent-trade$", "trades"),
    )
    trade_paths = r"recent-trade"
    candle_paths = r"/kline"
    frame_trades_max: ClassVar[int] = 1_024
    # Sources: Bybit v5, "Rate Limit Rules" (websocket IP limit; 403 for what is too frequent) and
    # "Connect" (args of a public connection, and of one request of spot).
    rules = SocketRules(dials=Rate(500, 300.0), dial_status=403, topic_chars=21_000)

    @classmethod
    def unified_symbol(cls, symbol: str) -> str:
        """Return the symbol as recorded: BTC/USDT is spot and BTC/USDT:USDT linear."""
        return symbol

    def trade_id(self, feed: Feed, row: TradeRow) -> str:
        """Return a trade's own id: the recorded one, else one that follows from the number."""
        native = feed.market.native_id(row)
        if native is not None:
            return native
        if _category(feed) == "spot":
            # As 2290000000001190010741, one of 2026: rising, and not one by one.
            return str(SPOT_IDS_FROM + 7 * row.trade_id + row.trade_id % 3)
        digits = hashlib.md5(f"{feed.symbol}:{row.trade_id}".encode()).hexdigest()
        return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    # REST

    def instruments(self, request: RestRequest) -> RestReply:
        """List the symbols of a category."""
        category = request.query.get("category", "")
        prelaunch = request.query.get("status") == "PreLaunch"
        listed = [
            _instrument(name, feed, category)
            for name, feed in self.by_id.items()
            if feed.listed
            and _category(feed) == category
            and prelaunch is (feed.status == "PreLaunch")
        ]
        return self._result({"category": category, "nextPageCursor": "", "list": listed})

    def time(self, request: RestRequest) -> RestReply:
        """Return the exchange's clock."""
        seconds, nanos = str(self.now_us // 1_000_000), str(self.now_us * 1_000)
        return self._result({"timeSecond": seconds, "timeNano": nanos})

    def status(self, request: RestRequest) -> RestReply:
        """Return the maintenance that goes on, if any, beside one that concerns options alone."""
        word = self.options.system_status
        at = {"begin": str(self.now_ms), "end": str(self.now_ms + 3_600_000), "href": ""}
        status = {"state": "ongoing", **at, "serviceTypes": [1], "maintainType": 1, "env": 1}
        options = {"id": "1", "title": "Options", **status, "product": [3]}
        everything = {"id": "2", "title": word, **status, "product": [1, 2]}
        return self._result({"list": [options, everything] if word else [options]})

    def restricted(self) -> RestReply:
        """Return the refusal of a place: CloudFront's page as Bybit's addresses in the US get it.

        Source: Bybit v5, "Integration Guidance": 403, "request from the USA".
        """
        page = "The Amazon CloudFront distribution is configured to block access from your country."
        return RestReply(page, 403)

    async def candles(self, request: RestRequest) -> RestReply:
        """Return candles newest first: the first from `start` on, else the newest."""
        feed = self._feed(request)
        timeframe = _INTERVALS.get(request.query.get("interval", ""))
        if timeframe is None:
            raise self._refusal(10001, "Invalid period!")
        count = min(max(self._integer(request, "limit", 200), 1), CANDLES_MAX)
        first_us = self._integer(request, "start", 0) * 1_000
        last_us = self._integer(request, "end", FOREVER_US // 1_000) * 1_000
        newest = "start" not in request.query
        candles = await feed.page_of_candles(timeframe, first_us, last_us, count, newest=newest)
        rows = [
            [
                str(candle.open_time_us // 1_000),
                candle.open,
                candle.high,
                candle.low,
                candle.close,
                candle.volume,
                plain(candle.quote_volume),
            ]
            for candle in reversed(candles)
        ]
        name = request.query["symbol"]
        return self._result({"category": _category(feed), "symbol": name, "list": rows})

    def trades(self, request: RestRequest) -> RestReply:
        """Return the newest trades, newest first: 60 of spot, 1,000 of linear, and no more."""
        feed = self._feed(request)
        most = SPOT_TRADES_MAX if _category(feed) == "spot" else LINEAR_TRADES_MAX
        count = min(max(self._integer(request, "limit", min(most, 500)), 1), most)
        name = request.query["symbol"]
        rows = [
            {
                "execId": self.trade_id(feed, row),
                "symbol": name,
                "price": row.price,
                "size": row.amount,
                "side": row.side.capitalize(),
                "time": str(row.trade_time_us // 1_000),
                "isBlockTrade": False,
                "isRPITrade": False,
            }
            for row in reversed(feed.last_trades(count))
        ]
        return self._result({"category": _category(feed), "list": rows})

    def _feed(self, request: RestRequest) -> Feed:
        feed = self.feed_of(request.query.get("symbol", ""))
        if feed is None or request.query.get("category", "linear") != _category(feed):
            raise self._refusal(10001, "Not supported symbols")
        return feed

    def _integer(self, request: RestRequest, name: str, default: int) -> int:
        try:
            return request.integer(name, default)
        except ValueError as e:
            raise self._refusal(10001, f"params error: {name} invalid") from e

    def _result(self, result: dict[str, Any]) -> RestReply:
        return RestReply(
            {
                "retCode": 0,
                "retMsg": "OK",
                "result": result,
                "retExtInfo": {},
                "time": self.now_ms,
            }
        )

    def _refusal(self, code: int, message: str) -> RestRefusal:
        body = {"retCode": code, "retMsg": message, "result": {}, "retExtInfo": {}}
        return RestRefusal(RestReply({**body, "time": self.now_ms}))

    # Websocket

    def breach(self, socket: ClientSocket, reply: Reply) -> Breach | None:
        """Return the rule that a request breaks; spot alone counts the arguments."""
        if "/spot" in socket.path and len(reply.subscribe) > SPOT_ARGUMENTS_MAX:
            return "arguments"
        return super().breach(socket, reply)

    def on_breach(self, breach: Breach, text: str) -> list[bytes]:
        """Return a refusal; only the text for too many arguments of spot has been seen."""
        what = f"args size >{SPOT_ARGUMENTS_MAX}" if breach == "arguments" else "args too long"
        return [dumps({"success": False, "ret_msg": what, "conn_id": "replay", "op": "subscribe"})]

    def on_text(self, socket: ClientSocket, text: str) -> Reply:
        """Answer ping, subscribe and unsubscribe; one bad topic refuses the whole request.

        Spot and derivatives say it in other words. Source: Bybit's servers, 2026.
        """
        message = parse_object(text) or {}
        operation = message.get("op")
        frame = {
            "success": True,
            "ret_msg": "",
            "conn_id": f"replay-{socket.number}",
            "req_id": str(message.get("req_id", "")),
            "op": operation,
        }
        if operation == "ping":
            return Reply([dumps({**frame, "ret_msg": "pong"})])
        topics = text_list(message.get("args"))
        if operation not in ("subscribe", "unsubscribe") or topics is None:
            return Reply([dumps({**frame, "success": False, "ret_msg": "error:invalid op"})])
        channels = [(topic, self._channel(socket.path, topic)) for topic in topics]
        unknown = [topic for topic, channel in channels if channel is None]
        if unknown:
            what = f"error:handler not found,topic:{unknown[0]}"
            if socket.path.endswith("/spot"):
                what = f"Invalid symbol :[{unknown[0]}]"
            return Reply([dumps({**frame, "success": False, "ret_msg": what})])
        opened = [channel for _, channel in channels if channel is not None]
        if operation == "subscribe":
            again = [channel.name for channel in opened if channel in socket.channels]
            if again:
                what = f"error:already subscribed,topic:{again[0]}"
                return Reply([dumps({**frame, "success": False, "ret_msg": what})])
            return Reply([dumps(frame)], subscribe=opened)
        return Reply([dumps(frame)], unsubscribe=opened)

    def trade_frames(
        self, socket: ClientSocket, channel: Channel, rows: Sequence[TradeRow]
    ) -> list[bytes]:
        """Return one frame per instant, with all its trades."""
        feed = self.by_symbol[channel.symbol]
        name = self.market_id(feed.instrument)
        frames = []
        for run in instants(rows, self.frame_trades_max):
            ms = run[0].trade_time_us // 1_000
            trades = ",".join(
                f'{{"i":"{self.trade_id(feed, row)}","T":{row.trade_time_us // 1_000},'
                f'"p":"{row.price}","v":"{row.amount}","S":"{row.side.capitalize()}",'
                f'"s":"{name}","BT":false,"RPI":false}}'
                for row in run
            )
            frames.append(
                (
                    f'{{"topic":"publicTrade.{name}","ts":{ms},"type":"snapshot",'
                    f'"data":[{trades}]}}'
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
        """Return the candle; `confirm` says whether it is final."""
        ms = -(-event_time_us // 1_000)
        entry = {
            "start": candle.open_time_us // 1_000,
            "end": candle.close_time_us // 1_000 - 1,
            "interval": channel.name.split(".")[1],
            "open": candle.open,
            "close": candle.close,
            "high": candle.high,
            "low": candle.low,
            "volume": candle.volume,
            "turnover": plain(candle.quote_volume),
            "confirm": closed,
            "timestamp": ms,
        }
        frame = {"topic": channel.name, "data": [entry], "ts": ms, "type": "snapshot"}
        return [dumps(frame)]

    def _channel(self, path: str, topic: str) -> Channel | None:
        parts = topic.split(".")
        feed = self.feed_to_watch(parts[-1])
        if feed is None or not path.endswith(f"/{_category(feed)}"):
            return None
        if parts[0] == "publicTrade" and len(parts) == 2:
            return Channel("trades", feed.symbol, topic)
        if parts[0] == "kline" and len(parts) == 3 and parts[1] in _INTERVALS:
            return Channel("candles", feed.symbol, topic, _INTERVALS[parts[1]])
        return None


def _category(feed: Feed) -> str:
    return "linear" if ":" in feed.symbol else "spot"


def _instrument(name: str, feed: Feed, category: str) -> dict[str, Any]:
    instrument = feed.instrument
    price_step, lot = tick(instrument.price_digits), tick(instrument.amount_digits)
    common = {
        "symbol": name,
        "baseCoin": instrument.base,
        "quoteCoin": instrument.quote,
        "status": feed.status or "Trading",
    }
    if category == "spot":
        return {
            **common,
            "innovation": "0",
            "marginTrading": "none",
            "lotSizeFilter": {
                "basePrecision": lot,
                "quotePrecision": "0.00000001",
                "minOrderQty": lot,
                "maxOrderQty": "100",
                "minOrderAmt": "1",
                "maxOrderAmt": "2000000",
            },
            "priceFilter": {"tickSize": price_step},
        }
    return {
        **common,
        "contractType": "LinearPerpetual",
        "launchTime": "1584230400000",
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(instrument.price_digits),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": price_step, "maxPrice": "1999999", "tickSize": price_step},
        "lotSizeFilter": {
            "maxOrderQty": "1190.000",
            "minOrderQty": lot,
            "qtyStep": lot,
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "settleCoin": instrument.quote,
        "isPreListing": False,
    }


DIALECT = Bybit
