"""Binance USD-M perpetuals: the frames and rows of `binance`, under fapi.

A trade says more than spot's: `X` is MARKET where it was filled in the order book:
    {"e":"trade","E":1723161255343,"T":1723161255342,"s":"BTCUSDT","t":5248193810,
     "p":"61837.60","q":"0.020","X":"MARKET","m":true}

With any other flag there was no trade. `NA`, with price and amount 0, are 0.2 to 0.4 % of the
frames of a busy perpetual (seen in recordings):
    {"e":"trade","E":1785780000002,"T":1785780000001,"s":"BTCUSDT","t":7950000001,"p":"0","q":"0",
     "X":"NA","m":true,"st":1}

`INSURANCE_FUND` and `ADL` are fills of the liquidation engine, at prices that may lie far off.
Their ids stand in the chain; REST, aggregates, klines and the public archive leave them out, so an
id that is absent inside a REST answer is such a one. Source: Binance's USD-M reference, "Aggregate
Trade Streams" ("only market trades will be aggregated, which means the insurance fund trades and
ADL trades won't be aggregated"), "Recent Trades List" and "Old Trades Lookup" ("market trades means
trades filled in the order book. Only market trades will be returned").

Each address serves some kinds of streams: `trade` comes on /public, `kline` on /market; elsewhere
each is acknowledged and nothing comes. ccxt asks for both where they are, so that there are two
sockets. Source: Binance's change log of USD-M futures, 2026-04-23.

Up to 499 rows of `klines` weigh 2 and 1,000 weigh 5: pages of 499 bring most rows for the weight.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from alpha_pulse.contracts.events import NO_TRADE, Ids
from alpha_pulse.producers.exchanges.adapter import CandleSource, Exchange, TradeSource
from alpha_pulse.producers.exchanges.binance import (
    KLINE_NAMES,
    LIMITS,
    SYMBOLS_PER_SUBSCRIBE,
    BinanceDecoder,
    BinanceRest,
    OneStream,
    maintenance,
)
from alpha_pulse.producers.exchanges.decoder import TradeRow
from alpha_pulse.producers.exchanges.limits import Rate
from alpha_pulse.producers.exchanges.standing import Standing, own_word
from alpha_pulse.producers.exchanges.tick import AHEAD_US_MAX, Numbered, known_symbol

# `status` of a contract. Source: Binance's "Common definition", contract status.
STANDINGS = {
    "TRADING": Standing.TRADING,
    "PENDING_TRADING": Standing.PRE_LAUNCH,
    "PRE_SETTLE": Standing.HALTED,
    "SETTLING": Standing.HALTED,
    "PRE_DELIVERING": Standing.HALTED,
    "DELIVERING": Standing.HALTED,
    "DELIVERED": Standing.ENDED,
    "CLOSE": Standing.ENDED,
}

# The one flag of a trade.
_MARKET = "MARKET"


class UsdmDecoder(BinanceDecoder):
    """Decodes frames as spot's; a fill with another flag than MARKET is no trade."""

    def numbered(self, rows: Sequence[TradeRow], receive_time_us: int) -> list[Numbered] | None:
        """Return many rows as trades, and ids of none; see `FrameDecoder`."""
        frames = cast(Sequence[Any], rows)
        flagged = [place for place, row in enumerate(frames) if row.X != _MARKET]
        if not flagged:
            return super().numbered(rows, receive_time_us)
        found = super().numbered([row for row in frames if row.X == _MARKET], receive_time_us)
        if found is None:
            return None
        for place in flagged:
            ids = self._no_trade(frames[place])
            if ids.time_us >= receive_time_us + AHEAD_US_MAX:
                return None
            found.insert(place, ids)
        return found

    def _trade(self, row: Any, receive_time_us: int) -> Numbered:
        return super()._trade(row, receive_time_us) if row.X == _MARKET else self._no_trade(row)

    def _no_trade(self, row: TradeRow) -> Ids:
        trade_id = self.ids.one(row.trade_id)
        return Ids(
            exchange=self._exchange,
            symbol=known_symbol(self._symbols, row.market),
            first_trade_id=trade_id,
            last_trade_id=trade_id,
            time_us=self.times.one(row.time),
            reason=NO_TRADE,
        )


_REST = BinanceRest("fapiPublic", history_page=500, klines_page=499)

EXCHANGE = Exchange(
    id="binanceusdm",
    decoder=UsdmDecoder,
    ids_are_consecutive=True,
    client_mixins=(OneStream,),
    symbols_per_subscribe=SYMBOLS_PER_SUBSCRIBE,
    # Source: Binance, "USDⓈ-M Futures", "Websocket Market Streams": 10 messages a second, 1,024
    # streams. Dials are spot's: the page names none.
    limits=replace(LIMITS, messages=Rate(10, 1.0)),
    status=own_word("status", "contractStatus"),
    standings=STANDINGS,
    maintenance=maintenance,
    trades=TradeSource(
        by_id=_REST.trades_by_id,
        by_id_cost=20.0,
        recent=_REST.recent_trades,
        first_from=_REST.first_trade_from,
        absent_ids=NO_TRADE,
    ),
    candles=CandleSource(
        page_rows=_REST.klines_page,
        names=KLINE_NAMES,
        ask=_REST.candles,
        ask_recent=_REST.candles,
        listed_from_us=_REST.listed_from_us,
        empty_left_out=False,
    ),
)
