"""Rows of the pipeline's views as the events that they were made from. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from alpha_pulse.contracts.decimals import plain_text, shortest_text
from alpha_pulse.contracts.fields import Field
from alpha_pulse.contracts.kinds import CANDLE, GAP, TRADE, Kind

EventT = TypeVar("EventT", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, order=True)
class Market:
    """One symbol of one exchange, as its events name them."""

    exchange: str
    symbol: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The query parameters that choose it."""
        return {"exchange": self.exchange, "symbol": self.symbol}


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """What is stored of a market: from the first candle or trade to the end of the last one.

    timeframe: the shortest that candles are stored of; None: only trades are.
    """

    market: Market
    start_us: int
    end_us: int
    timeframe: str | None


class Rows(Generic[EventT]):
    """What is read of a kind's view, and how a row becomes an event.

    Args:
        kind: whose view it is.
        given: fields that the query's condition fixes, which are not read.
    """

    def __init__(self, kind: Kind[EventT], given: Sequence[str] = ()) -> None:
        fields = [field for field in kind.fields if field.name not in given]
        self._event = kind.event
        self.names = [field.name for field in fields]
        self._decimals = [field.name for field in fields if field.decimal is not None]
        # A column of text has no null for what writers leave out.
        self._left_out = [f.name for f in fields if f.is_optional and f.is_nullable]
        self.columns = ", ".join(map(_expression, fields))

    def event(self, row: Sequence[Any], **given: str) -> EventT:
        """Return the event of a row.

        Args:
            row: values of `columns`.
            given: values of the fields that were not read.
        """
        values: dict[str, Any] = dict(zip(self.names, row, strict=True))
        for name in self._decimals:
            number = values[name]
            if number is not None:
                # Decimal(38,12) brings twelve digits; what is published has the shortest text.
                values[name] = shortest_text(plain_text(number))
        for name in self._left_out:
            values[name] = values[name] or None
        values.update(given)
        return self._event(**values)


def _expression(field: Field) -> str:
    if field.is_time:
        return f"toUnixTimestamp64Micro({field.column})"
    if isinstance(field.type, msgspec.inspect.LiteralType):
        return f"toString({field.column})"
    return field.column


CANDLES = Rows(CANDLE, given=("exchange", "symbol", "timeframe"))
TRADES = Rows(TRADE, given=("exchange", "symbol"))
GAPS = Rows(GAP)
