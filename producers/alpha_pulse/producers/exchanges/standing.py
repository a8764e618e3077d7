"""Where a market stands by the exchange's list: it trades, will trade, or never will again."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any


class Standing(Enum):
    """What is done with a symbol whose market the exchange lists so."""

    TRADING = "followed"
    HALTED = "followed, its state `halted` until a trade comes"
    PRE_LAUNCH = "as HALTED: its first trade finds an open subscription"
    ENDED = "quarantined: looked up in the list again after `quarantine_s`"


# The words of `ccxt_status`. Of a market that ccxt calls inactive nobody knows why.
CCXT_STANDINGS: Mapping[str, Standing] = {
    "active": Standing.TRADING,
    "inactive": Standing.ENDED,
}


def ccxt_status(market: Mapping[str, Any]) -> str:
    """Return `active` or `inactive`, as ccxt judges a market.

    Args:
        market: ccxt's market.
    """
    return "inactive" if market.get("active") is False else "active"


def own_word(*names: str) -> Callable[[Mapping[str, Any]], str]:
    """Return what reads the exchange's own word out of ccxt's market.

    Args:
        names: of the fields of the exchange's row that may hold it; the first one found counts.
    """

    def read(market: Mapping[str, Any]) -> str:
        row = market.get("info") or {}
        return next((str(row[name]) for name in names if row.get(name)), ccxt_status(market))

    return read
