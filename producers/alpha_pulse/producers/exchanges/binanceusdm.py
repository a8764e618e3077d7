"""Binance USD-M perpetuals: the frames and rows of `binance`, under fapi.

A trade says more than spot's: `X` is MARKET, or a reason such as INSURANCE_FUND, ADL or NA:
    {"e":"trade","E":1723161255343,"T":1723161255342,"s":"BTCUSDT","t":5248193810,
     "p":"61837.60","q":"0.020","X":"MARKET","m":true}

Each address serves some kinds of streams: `trade` comes on /public, `kline` on /market; elsewhere
each is acknowledged and nothing comes. ccxt asks for both where they are, so that there are two
sockets. Source: Binance's change log of USD-M futures, 2026-04-23.

Up to 499 rows of `klines` weigh 2 and 1,000 weigh 5: pages of 499 bring most rows for the weight.
"""

from dataclasses import replace

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
from alpha_pulse.producers.exchanges.limits import Rate
from alpha_pulse.producers.exchanges.standing import Standing, own_word

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

_REST = BinanceRest("fapiPublic", history_page=500, klines_page=499)

EXCHANGE = Exchange(
    id="binanceusdm",
    decoder=BinanceDecoder,
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
