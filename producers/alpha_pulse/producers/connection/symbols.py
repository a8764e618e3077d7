"""Which symbols this producer follows, and what the exchange calls them."""

import zlib
from collections.abc import Iterable
from typing import Any

from alpha_pulse.producers.exchanges.registry import exchange_of


class SymbolTable:
    """The followed symbols by the ids that frames carry.

    One table per websocket address, since an exchange may use one id for two markets.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._exchange = exchange_of(client.id)
        self._markets: dict[str, Any] = {}
        self._tables: dict[str, dict[str, str]] = {}

    def add(self, symbol: str) -> None:
        """Follow a symbol.

        Args:
            symbol: the unified symbol, one that was not refused.
        """
        self._markets[symbol] = self._client.market(symbol)
        for url, table in self._tables.items():
            self._fill(url, table)

    def remove(self, symbol: str) -> None:
        """Stop following a symbol; its ids stay known, since frames may still be on their way.

        Args:
            symbol: the unified symbol.
        """
        self._markets.pop(symbol, None)

    def at(self, url: str) -> dict[str, str]:
        """Return the table (id in frames -> symbol) of a websocket address; it follows changes.

        Args:
            url: the address.
        """
        table = self._tables.get(url)
        if table is None:
            table = self._tables[url] = {}
            self._fill(url, table)
        return table

    def _fill(self, url: str, table: dict[str, str]) -> None:
        for symbol, market in self._markets.items():
            if self._exchange.carries(url, market):
                table[self._exchange.frame_name(symbol, market)] = symbol


def shard_of(symbols: Iterable[str], index: int, count: int) -> list[str]:
    """Return part `index` of `count` of the symbols: the same for everybody, in any order.

    A symbol's part depends on its name alone, so that one more symbol moves no other.

    Args:
        symbols: in any order; doubles are dropped.
        index: of the part, from 0.
        count: how many parts there are.
    """
    return [s for s in dict.fromkeys(symbols) if zlib.crc32(s.encode()) % count == index]
