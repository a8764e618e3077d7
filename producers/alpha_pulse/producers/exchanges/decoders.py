"""Raw frames of the exchanges to ticks: one decoder per exchange."""

from collections.abc import Callable

from alpha_pulse.producers.exchanges.binance import BinanceDecoder
from alpha_pulse.producers.exchanges.bybit import BybitDecoder
from alpha_pulse.producers.exchanges.coinbase import CoinbaseDecoder
from alpha_pulse.producers.exchanges.frame import FrameDecoder, SymbolOf
from alpha_pulse.producers.exchanges.kraken import KrakenDecoder
from alpha_pulse.producers.exchanges.okx import OkxDecoder

# ccxt's exchange id -> its decoder, made for (exchange name in events, market id -> symbol) once
# for each websocket address. Any other exchange goes the generic path.
DECODERS: dict[str, Callable[[str, SymbolOf], FrameDecoder]] = {
    "binance": BinanceDecoder,
    "binanceusdm": BinanceDecoder,
    "bybit": BybitDecoder,
    "coinbase": CoinbaseDecoder,
    "kraken": KrakenDecoder,
    "okx": OkxDecoder,
}
