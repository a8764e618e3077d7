"""One dialect per exchange: its REST paths, subscriptions and frames."""

from collections.abc import Mapping

from alpha_pulse.replay.dialects.base import Dialect
from alpha_pulse.replay.dialects.binance import Binance

DIALECTS: Mapping[str, type[Dialect]] = {dialect.name: dialect for dialect in (Binance,)}

__all__ = ["DIALECTS", "Dialect"]
