"""Raw frames of the exchanges to ticks: one decoder per exchange."""

from collections.abc import Callable

from alpha_pulse.producers.frames import binance
from alpha_pulse.producers.frames.frame import FrameDecoder, SymbolOf

# ccxt's exchange id -> its decoder, made for (exchange name in events, market id -> symbol).
DECODERS: dict[str, Callable[[str, SymbolOf], FrameDecoder]] = {
    "binance": binance.BinanceDecoder,
    "binanceusdm": binance.BinanceDecoder,
}
