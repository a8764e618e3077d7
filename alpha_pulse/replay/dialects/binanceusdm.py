"""Binance USDⓈ-M futures: perpetuals such as BTC/USDT:USDT.

As spot, under fapi, with other limits and one more field:
{"e":"trade","E":1723161255343,"T":1723161255342,"s":"BTCUSDT","t":5248193810,"p":"61837.60",
 "q":"0.020","X":"MARKET","m":true}

Since 2026-04-23 `trade` comes on the address /public alone, `kline` and `aggTrade` on /market. On
another one, and on the old /ws and /stream, they are acknowledged and nothing comes. Source:
Binance's change log of USDⓈ-M futures.

Where `X` is something else there was no trade in the order book, and only the trade stream shows
the id: `NA` with price and amount 0 (seen in recordings), fills of the insurance fund and of
auto-deleveraging at prices far off. Source: Binance's USD-M reference, "Recent Trades List" and
"Old Trades Lookup" ("market trades means trades filled in the order book. Only market trades will
be returned"), "Aggregate Trade Streams" ("insurance fund trades and ADL trades won't be
aggregated").
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from alpha_pulse.replay.dialects.base import Reply, RestReply, RestRequest
from alpha_pulse.replay.dialects.binance import Binance
from alpha_pulse.replay.dialects.rules import Rate
from alpha_pulse.replay.dialects.sockets import Channel, ClientSocket
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import TradeRow, perpetual_symbol
from alpha_pulse.replay.markets.no_trades import KnowsNoTrades


class BinanceUsdm(Binance):
    """Binance USDⓈ-M futures: fapi.binance.com and fstream.binance.com."""

    name = "binanceusdm"
    hosts = (
        "fapi.binance.com",
        "api.binance.com",
        "dapi.binance.com",
        "fstream.binance.com",
    )
    routes: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"/fapi/v1/exchangeInfo$", "exchange_info"),
        (r"/dapi/v1/exchangeInfo$", "no_symbols"),
        (r"/api/v3/exchangeInfo$", "no_symbols"),
        (r"/sapi/v1/system/status$", "status"),
        (r"/fapi/v1/ping$", "empty"),
        (r"/fapi/v1/time$", "time"),
        (r"/fapi/v1/klines$", "klines"),
        (r"/fapi/v1/trades$", "trades"),
        (r"/fapi/v1/historicalTrades$", "historical_trades"),
        (r"/fapi/v1/aggTrades$", "aggregate_trades"),
    )
    # Source: Binance, "USDⓈ-M Futures", "Websocket Market Streams"; dials are spot's.
    rules = replace(Binance.rules, messages=Rate(10, 1.0))
    klines_max = 1_500
    history_max = 500

    @classmethod
    def unified_symbol(cls, symbol: str) -> str:
        """Return the perpetual of a recorded symbol: BTC/USDT:USDT."""
        return perpetual_symbol(symbol)

    def channels_of_url(self, path: str, query: Mapping[str, str]) -> Sequence[Channel]:
        """Return the streams that an address names and serves."""
        return [c for c in super().channels_of_url(path, query) if _serves(path, c)]

    def on_text(self, socket: ClientSocket, text: str) -> Reply:
        """Answer as spot does; what the address does not serve is acknowledged and stays mute."""
        reply = super().on_text(socket, text)
        reply.subscribe = [c for c in reply.subscribe if _serves(socket.path, c)]
        return reply

    def no_symbols(self, request: RestRequest) -> RestReply:
        """List nothing: the other markets of the same company."""
        return RestReply({"serverTime": self.now_ms, "rateLimits": [], "symbols": []})

    def symbol_info(self, name: str, feed: Feed) -> dict[str, Any]:
        """Return one symbol's entry of exchangeInfo."""
        instrument = feed.instrument
        return {
            "symbol": name,
            "pair": name,
            "contractType": "PERPETUAL",
            "deliveryDate": 4_133_404_800_000,
            "onboardDate": 1_569_398_400_000,
            "status": feed.status or "TRADING",
            "baseAsset": instrument.base,
            "quoteAsset": instrument.quote,
            "marginAsset": instrument.quote,
            "pricePrecision": instrument.price_digits,
            "quantityPrecision": instrument.amount_digits,
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "underlyingType": "COIN",
            "orderTypes": ["LIMIT", "MARKET"],
            "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
            "filters": self.filters(feed),
        }

    def trade_frames(
        self, socket: ClientSocket, channel: Channel, rows: Sequence[TradeRow]
    ) -> list[bytes]:
        """Return one frame per trade."""
        if channel.name.endswith("@aggTrade"):
            return super().trade_frames(socket, channel, rows)
        feed = self.by_symbol[channel.symbol]
        market = feed.market
        ids = market if isinstance(market, KnowsNoTrades) else None
        frames = []
        for row in rows:
            if ids is not None:
                before = ids.no_trades_before(row.trade_id)
                first = row.trade_id - before
                frames += [self._no_trade(feed, row, first + n) for n in range(before)]
            frames.append(self._frame(feed, row))
            if ids is not None:
                after = ids.no_trades_after(row.trade_id)
                first = row.trade_id + 1
                frames += [self._no_trade(feed, row, first + n) for n in range(after)]
        return self.combined(socket, channel, frames)

    def _no_trade(self, feed: Feed, beside: TradeRow, trade_id: int) -> bytes:
        # Most have neither price nor amount; the others have prices far off.
        flag = _FLAGS[trade_id % len(_FLAGS)]
        price, amount = ("0", "0") if flag == "NA" else (f"9{beside.price}", beside.amount)
        row = beside._replace(trade_id=trade_id, price=price, amount=amount)
        return self._frame(feed, row, flag)

    def _frame(self, feed: Feed, row: TradeRow, flag: str = "MARKET") -> bytes:
        ms = row.trade_time_us // 1_000
        feed.event_ms = max(feed.event_ms, ms)
        name = self.market_id(feed.instrument)
        maker = "true" if row.side == "sell" else "false"
        return (
            f'{{"e":"trade","E":{feed.event_ms},"T":{ms},"s":"{name}","t":{row.trade_id},'
            f'"p":"{row.price}","q":"{row.amount}","X":"{flag}","m":{maker}}}'
        ).encode()


_FLAGS = ("NA", "INSURANCE_FUND", "NA", "ADL", "NA")


def _serves(path: str, channel: Channel) -> bool:
    kind = "public" if channel.name.endswith("@trade") else "market"
    return path.startswith(f"/{kind}/")


DIALECT = BinanceUsdm
