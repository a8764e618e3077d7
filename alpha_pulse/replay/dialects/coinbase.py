"""Coinbase Advanced Trade. A connection's frames are numbered; trades stand newest first, with
the maker's side.

{"channel":"market_trades","client_id":"","timestamp":"2026-04-07T14:30:02.789012Z",
 "sequence_num":5,"events":[{"type":"update","trades":[{"trade_id":"995098700",
 "product_id":"BTC-USD","price":"68900.50","size":"0.00150000","side":"BUY",
 "time":"2026-04-07T14:30:02.789012Z"}]}]}
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from alpha_pulse.replay.dialects.base import (
    Dialect,
    Reply,
    RestRefusal,
    RestReply,
    RestRequest,
    dumps,
    iso_time,
    parse_object,
    text_list,
    tick,
)
from alpha_pulse.replay.dialects.rules import Rate, SocketRules
from alpha_pulse.replay.dialects.sockets import Channel, ClientSocket
from alpha_pulse.replay.markets.candles import ExchangeCandle
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import Instrument, TradeRow

TRADES_MAX = 1_000
CANDLES_MAX = 350
# Updates are collected for so long and sent together. Source: Coinbase, "Market trades".
COLLECTED_US = 250_000
FRAME_TRADES_MAX = 100
FOREVER_S = 1 << 40
# Coinbase tells the maker's side; rows carry the taker's.
_MAKER_SIDES = {"buy": "SELL", "sell": "BUY"}
HEARTBEATS = Channel("heartbeats", "", "heartbeats")
_GRANULARITIES = {
    "ONE_MINUTE": "1m",
    "FIVE_MINUTE": "5m",
    "FIFTEEN_MINUTE": "15m",
    "THIRTY_MINUTE": "30m",
    "ONE_HOUR": "1h",
    "TWO_HOUR": "2h",
    "FOUR_HOUR": "4h",
    "SIX_HOUR": "6h",
    "ONE_DAY": "1d",
}


class Coinbase(Dialect):
    """Coinbase: api.coinbase.com and advanced-trade-ws.coinbase.com."""

    name = "coinbase"
    time_precision_us: ClassVar[int] = 1
    hosts = ("api.coinbase.com", "advanced-trade-ws.coinbase.com")
    routes = (
        (r"/v2/currencies(/crypto)?$", "currencies"),
        (r"/v2/exchange-rates$", "rates"),
        (r"/v2/time$", "time"),
        (r"/api/v3/brokerage/time$", "brokerage_time"),
        (r"/brokerage/market/products$", "products"),
        (r"/brokerage/market/products/(?P<product>[^/]+)/candles$", "candles"),
        (r"/brokerage/market/products/(?P<product>[^/]+)/ticker$", "trades"),
    )
    # There is a candle channel, of five minutes; ccxt has no way to watch it.
    trade_paths = r"/ticker"
    has_candle_channel = False
    snapshot_trades = 50
    mixes_symbols = True
    # Source: Coinbase, "Advanced Trade WebSocket Rate Limits": both of an address.
    rules = SocketRules(dials=Rate(8, 1.0), messages=Rate(8, 1.0), of_address=True)

    def market_id(self, instrument: Instrument) -> str:
        """Return Coinbase's name of a pair: BTC-USDT."""
        return f"{instrument.base}-{instrument.quote}"

    def wire_symbol(self, feed: Feed) -> str:
        """Return what a trade frame calls a pair: its book, which USD and USDC share."""
        return _book(self.market_id(feed.instrument))

    def feed_of(self, name: object) -> Feed | None:
        """Return the feed of a product's book where there is one, else the product's own."""
        feed = super().feed_of(name)
        return feed if feed is None else super().feed_of(self.wire_symbol(feed)) or feed

    # REST

    def currencies(self, request: RestRequest) -> RestReply:
        """List no currencies: the pairs name them."""
        return RestReply({"data": []})

    def rates(self, request: RestRequest) -> RestReply:
        """Return no exchange rates."""
        return RestReply({"data": {"currency": "USD", "rates": {}}})

    def time(self, request: RestRequest) -> RestReply:
        """Return the exchange's clock."""
        iso, seconds = iso_time(self.now_us), self.now_us // 1_000_000
        return RestReply({"data": {"iso": iso, "epoch": seconds}})

    def brokerage_time(self, request: RestRequest) -> RestReply:
        """Return the exchange's clock."""
        return RestReply(
            {
                "iso": iso_time(self.now_us),
                "epochSeconds": str(self.now_us // 1_000_000),
                "epochMillis": str(self.now_ms),
            }
        )

    def products(self, request: RestRequest) -> RestReply:
        """List the spot pairs; no other kind is served."""
        if request.query.get("product_type", "SPOT") != "SPOT":
            return RestReply({"products": [], "num_products": 0})
        listed = [_product(name, feed) for name, feed in self.by_id.items() if feed.listed]
        return RestReply({"products": listed, "num_products": len(listed)})

    async def candles(self, request: RestRequest) -> RestReply:
        """Return candles with start <= open time <= end, newest first; empty ones are left out."""
        feed = self._feed(request)
        timeframe = _GRANULARITIES.get(request.query.get("granularity", ""))
        first_s, last_s = _integer(request, "start", 0), _integer(request, "end", FOREVER_S)
        if timeframe is None:
            raise _refusal("INVALID_ARGUMENT", "invalid granularity")
        first_us, last_us = first_s * 1_000_000, last_s * 1_000_000
        candles = await feed.page_of_candles(timeframe, first_us, last_us, CANDLES_MAX, newest=True)
        rows = [
            {
                "start": str(candle.open_time_us // 1_000_000),
                "low": candle.low,
                "high": candle.high,
                "open": candle.open,
                "close": candle.close,
                "volume": candle.volume,
            }
            for candle in reversed(candles)
            if candle.trade_count
        ]
        return RestReply({"candles": rows})

    def trades(self, request: RestRequest) -> RestReply:
        """Return the newest trades from start up to end (seconds), newest first."""
        feed = self._feed(request)
        count = min(max(_integer(request, "limit", 100), 1), TRADES_MAX)
        first_us = _integer(request, "start", 0) * 1_000_000
        end_us = _integer(request, "end", FOREVER_S) * 1_000_000 + 1
        rows = feed.trades_before_time(first_us, end_us, count)
        name = self.market_id(feed.instrument)
        listed = [_trade(name, row) | {"bid": "", "ask": ""} for row in reversed(rows)]
        last = feed.last_trades(1)
        price = last[0].price if last else ""
        return RestReply({"trades": listed, "best_bid": price, "best_ask": price})

    def _feed(self, request: RestRequest) -> Feed:
        feed = self.feed_of(request.query.get("product", ""))
        if feed is None:
            raise _refusal("NOT_FOUND", "valid product_id is required", status=404)
        return feed

    # Websocket

    def on_text(self, socket: ClientSocket, text: str) -> Reply:
        """Answer subscribe and unsubscribe; a bad one gets an error frame."""
        message = parse_object(text) or {}
        kind, name = message.get("type"), message.get("channel")
        products = text_list(message.get("product_ids", []))
        if kind not in ("subscribe", "unsubscribe") or products is None:
            return Reply([dumps({"type": "error", "message": "failure to parse message"})])
        if name == "heartbeats":
            channels: list[Channel] = [HEARTBEATS]
        elif name == "market_trades":
            feeds = [(product, self.feed_to_watch(product)) for product in products]
            unknown = [product for product, feed in feeds if feed is None]
            if unknown:
                what = f"{unknown[0]} is not a valid product"
                return Reply([dumps({"type": "error", "message": what})])
            channels = [
                Channel("trades", feed.symbol, f"market_trades:{product}")
                for product, feed in feeds
                if feed is not None
            ]
        else:
            return Reply([dumps({"type": "error", "message": f"{name} is not a valid channel"})])
        reply = Reply()
        reply.frames.append(self._subscriptions(socket, channels, opening=kind == "subscribe"))
        (reply.subscribe if kind == "subscribe" else reply.unsubscribe).extend(channels)
        return reply

    def throttled_frames(self, message: Mapping[str, Any]) -> list[bytes]:
        """Return the error of too many messages, which names none of them."""
        if message.get("type") != "subscribe":
            return []
        return [dumps({"type": "error", "message": "rate limit exceeded"})]

    def snapshot_frames(self, socket: ClientSocket, channel: Channel) -> list[bytes]:
        """Return the last trades."""
        if channel.kind != "trades":
            return []
        rows = self.by_symbol[channel.symbol].last_trades(self.snapshot_trades)
        return [self._frame(socket, "snapshot", [(channel, rows)])] if rows else []

    def trade_frames(
        self, socket: ClientSocket, channel: Channel, rows: Sequence[TradeRow]
    ) -> list[bytes]:
        """Return one frame for what happened in 250 ms."""
        return self.mixed_trade_frames(socket, [(channel, rows)])

    def mixed_trade_frames(
        self, socket: ClientSocket, parts: Sequence[tuple[Channel, Sequence[TradeRow]]]
    ) -> list[bytes]:
        """Return one frame for what happened in 250 ms, whatever the product."""
        frames: list[bytes] = []
        runs: list[tuple[Channel, list[TradeRow]]] = []
        count, moment = 0, -1
        for channel, rows in parts:
            for row in rows:
                at = row.trade_time_us // COLLECTED_US
                if runs and (at != moment or count == FRAME_TRADES_MAX):
                    frames.append(self._frame(socket, "update", runs))
                    runs, count = [], 0
                if not runs or runs[-1][0] is not channel:
                    runs.append((channel, []))
                runs[-1][1].append(row)
                count, moment = count + 1, at
        if runs:
            frames.append(self._frame(socket, "update", runs))
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
        """Return nothing: no client subscribes to candles here."""
        return []

    def beat_frames(self, socket: ClientSocket) -> list[bytes]:
        """Return the heartbeat of a connection that asked for it: the exchange's clock."""
        if HEARTBEATS not in socket.channels:
            return []
        number = socket.next_sequence()
        beat = {"current_time": iso_time(self.now_us), "heartbeat_counter": number}
        return [dumps(self._envelope("heartbeats", number) | {"events": [beat]})]

    def _frame(
        self,
        socket: ClientSocket,
        kind: str,
        runs: Sequence[tuple[Channel, Sequence[TradeRow]]],
    ) -> bytes:
        listed = []
        for channel, rows in runs:
            name = self.wire_symbol(self.by_symbol[channel.symbol])
            listed += [
                f'{{"trade_id":"{row.trade_id}","product_id":"{name}","price":"{row.price}",'
                f'"size":"{row.amount}","side":"{_MAKER_SIDES[row.side]}",'
                f'"time":"{iso_time(row.trade_time_us)}"}}'
                for row in rows
            ]
        # Newest first.
        trades = ",".join(reversed(listed))
        latest_us = runs[-1][1][-1].trade_time_us
        return (
            f'{{"channel":"market_trades","client_id":"",'
            f'"timestamp":"{iso_time(latest_us)}",'
            f'"sequence_num":{socket.next_sequence()},'
            f'"events":[{{"type":"{kind}","trades":[{trades}]}}]}}'
        ).encode()

    def _subscriptions(
        self, socket: ClientSocket, channels: Sequence[Channel], *, opening: bool
    ) -> bytes:
        # The frame lists all that the connection has after the request.
        names = dict.fromkeys(channel.name for channel in socket.channels)
        for channel in channels:
            if opening:
                names[channel.name] = None
            else:
                names.pop(channel.name, None)
        grouped: dict[str, list[str]] = {}
        for name in names:
            kind, _, product = name.partition(":")
            grouped.setdefault(kind, []).append(product or "heartbeats")
        envelope = self._envelope("subscriptions", socket.next_sequence())
        return dumps(envelope | {"events": [{"subscriptions": grouped}]})

    def _envelope(self, channel: str, number: int) -> dict[str, Any]:
        return {
            "channel": channel,
            "client_id": "",
            "timestamp": iso_time(self.now_us),
            "sequence_num": number,
        }


def _book(product: str) -> str:
    return product.removesuffix("C") if product.endswith("-USDC") else product


def _trade(name: str, row: TradeRow) -> dict[str, str]:
    return {
        "trade_id": str(row.trade_id),
        "product_id": name,
        "price": row.price,
        "size": row.amount,
        "time": iso_time(row.trade_time_us),
        "side": _MAKER_SIDES[row.side],
    }


def _product(name: str, feed: Feed) -> dict[str, Any]:
    instrument = feed.instrument
    last = feed.market.rows(max(feed.published - 1, 0), max(feed.published, 1))
    flags = (
        "watched",
        "is_disabled",
        "new",
        "cancel_only",
        "limit_only",
        "post_only",
        "trading_disabled",
        "auction_mode",
        "view_only",
    )
    return {
        **{flag: flag == feed.status for flag in flags},
        "product_id": name,
        "alias": _book(name) if _book(name) != name else "",
        "alias_to": [],
        "price": last[0].price if last else "",
        "price_percentage_change_24h": "0",
        "volume_24h": "1",
        "base_increment": tick(instrument.amount_digits),
        "quote_increment": tick(instrument.price_digits),
        "price_increment": tick(instrument.price_digits),
        "quote_min_size": "1",
        "quote_max_size": "50000000",
        "base_min_size": tick(instrument.amount_digits),
        "base_max_size": "1300",
        "base_name": instrument.base,
        "quote_name": instrument.quote,
        "status": "online" if feed.status in flags else feed.status or "online",
        "product_type": "SPOT",
        "quote_currency_id": instrument.quote,
        "base_currency_id": instrument.base,
    }


def _integer(request: RestRequest, name: str, default: int) -> int:
    try:
        return request.integer(name, default)
    except ValueError as e:
        raise _refusal("INVALID_ARGUMENT", f"{name} is not a number") from e


def _refusal(error: str, message: str, status: int = 400) -> RestRefusal:
    return RestRefusal(RestReply({"error": error, "message": message}, status))


DIALECT = Coinbase
