"""One dialect per exchange: its REST paths, subscriptions and frames."""

from collections.abc import Mapping

from alpha_pulse.replay.dialects.base import Dialect
from alpha_pulse.replay.dialects.binance import Binance
from alpha_pulse.replay.dialects.binanceusdm import BinanceUsdm
from alpha_pulse.replay.dialects.bybit import Bybit
from alpha_pulse.replay.dialects.coinbase import Coinbase
from alpha_pulse.replay.dialects.kraken import Kraken
from alpha_pulse.replay.dialects.okx import Okx

DIALECTS: Mapping[str, type[Dialect]] = {
    dialect.name: dialect for dialect in (Binance, BinanceUsdm, Kraken, Okx, Bybit, Coinbase)
}

__all__ = ["DIALECTS", "Dialect"]
