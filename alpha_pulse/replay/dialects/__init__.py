"""One dialect per exchange: its REST paths, subscriptions and frames.

Each module bears the name of the exchange's room in the producers, and names its class `DIALECT`.
"""

from collections.abc import Mapping
from importlib import import_module

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.producers.exchanges.registry import ExchangeType
from alpha_pulse.replay.dialects.base import Dialect

DIALECTS: Mapping[str, type[Dialect]] = {
    exchange.value: import_module(f"{__name__}.{exchange.value}").DIALECT
    for exchange in ExchangeType
}
# Of a market that nobody recorded: what producers follow unless they are told otherwise.
DIALECT_DEFAULT = ProducerConfig.exchange

__all__ = ["DIALECTS", "DIALECT_DEFAULT", "Dialect"]
