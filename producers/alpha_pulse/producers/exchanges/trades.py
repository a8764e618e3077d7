"""Trades over REST: which are wanted, and what a room needs to ask for them."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alpha_pulse.contracts.errors import DataFetchError
from alpha_pulse.contracts.events import Side, Trade
from alpha_pulse.producers.exchanges.numbers import positive_text, time_us
from alpha_pulse.producers.exchanges.rows import RefusedRow, read_rows

TRADES_PAGE = 1_000  # what most exchanges answer with at most
REFUSED_MAX = 1_000


class KeyNeededError(DataFetchError):
    """The exchange serves old trades only with an API key; its last trades it still shows."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Trades wanted of a symbol: ids `first_id` to `last_id` (None: as far as there are any).

    since_us, until_us: when the trades before and after them happened (Unix µs; None: unknown), for
    exchanges that page by time.
    """

    symbol: str
    first_id: int
    last_id: int | None
    since_us: int
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A trade's place: its id, and its time in Unix µs."""

    trade_id: int
    time_us: int


@dataclass(frozen=True, slots=True)
class RestClient:
    """An exchange's REST side as a room uses it.

    name: that events carry. client: a ccxt.pro exchange with its markets loaded. refused: the last
    rows that were no trades (`read`).
    """

    name: str
    client: Any
    refused: deque[RefusedRow] = field(default_factory=lambda: deque(maxlen=REFUSED_MAX))

    async def get(self, url: str, headers: dict[str, str] | None = None) -> Any:
        """Return the JSON of a raw public request, which ccxt itself would refuse or reshape.

        Args:
            url: the whole address; ccxt's throttle does not count it.
            headers: to send beside ccxt's.

        Raises:
            ccxt.BaseError: the exchange can't be reached or refuses.
        """
        self.client.open()
        return await self.client.fetch(url, "GET", headers)

    def read(self, symbol: str, rows: Any, kind: Any, make: Callable[[Any], Trade]) -> list[Trade]:
        """Return an answer's rows as trades; those that are none are kept in `refused`.

        Args:
            symbol: the unified symbol.
            rows: the answer's list, as JSON is decoded.
            kind: what a row looks like.
            make: returns a row's trade, or raises FrameError.

        Raises:
            ValidationError: the answer is no list of rows at all.
        """
        refused: list[RefusedRow] = []
        trades = read_rows(rows, kind, make, refused)
        for row in refused:
            row.error.symbol = symbol
        self.refused.extend(refused)
        return trades

    def trade(
        self, symbol: str, trade_id: str, price: str, amount: str, side: Side, at_us: int
    ) -> Trade:
        """Return a row as a trade, received now.

        Args:
            symbol: the unified symbol.
            trade_id: the exchange's own.
            price: in the quote currency, the exchange's digits.
            amount: in the base currency, the exchange's digits.
            side: the taker's.
            at_us: when it happened by the exchange's clock, Unix µs.

        Raises:
            FrameError: the row is no trade.
        """
        return Trade(
            exchange=self.name,
            symbol=symbol,
            trade_id=trade_id,
            price=positive_text(price),
            amount=positive_text(amount),
            side=side,
            trade_time_us=time_us(at_us),
            receive_time_us=time.time_ns() // 1000,
        )
