"""Which exchanges have a room: one line each. The room, and the replay dialect, bear the same name.

A room is imported when it is asked for, without ccxt, which takes two seconds to import.
"""

from enum import StrEnum
from functools import cache
from importlib import import_module

from alpha_pulse.contracts.market import TESTNET_SUFFIX
from alpha_pulse.producers.exchanges.adapter import Exchange


class ExchangeType(StrEnum):
    """Exchanges with a decoder of our own; any other ccxt.pro exchange goes the generic path."""

    BINANCE = "binance"
    BINANCEUSDM = "binanceusdm"
    KRAKEN = "kraken"
    OKX = "okx"
    BYBIT = "bybit"
    COINBASE = "coinbase"


def exchange_of(name: str) -> Exchange:
    """Return what an exchange does its own way.

    Args:
        name: ccxt's id, or the name that events carry (`binance-testnet`: the same room).

    Returns:
        The `EXCHANGE` of its room; the defaults for an exchange without one.
    """
    exchange_id = name.removesuffix(TESTNET_SUFFIX)
    return _room(exchange_id) if exchange_id in set(ExchangeType) else Exchange(id=exchange_id)


@cache
def _room(exchange_id: str) -> Exchange:
    module = import_module(f"{__name__.rpartition('.')[0]}.{exchange_id}")
    found = module.EXCHANGE
    assert isinstance(found, Exchange)
    return found
