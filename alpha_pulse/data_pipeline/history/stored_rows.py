"""Rows of the pipeline's tables as the events that they were made from. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alpha_pulse.contracts.decimals import plain_text, shortest_text
from alpha_pulse.contracts.events import Candle, Gap, Trade
from alpha_pulse.contracts.market import Timeframe

CANDLE_FIELDS = (
    "toUnixTimestamp64Micro(open_time), open, high, low, close, volume, quote_volume, buy_volume, "
    "trade_count, first_trade_id, last_trade_id, revision, toString(source), toString(coverage), "
    "job"
)


@dataclass(frozen=True, slots=True)
class Market:
    """One symbol of one exchange, as its events name them."""

    exchange: str
    symbol: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The query parameters that choose it."""
        return {"exchange": self.exchange, "symbol": self.symbol}


def trade_of(market: Market, row: Sequence[Any]) -> Trade:
    """Return a trade of a market: id, price, amount, side, its time, time of receipt, job."""
    return Trade(
        exchange=market.exchange,
        symbol=market.symbol,
        trade_id=row[0],
        price=_text(row[1]),
        amount=_text(row[2]),
        side=row[3],
        trade_time_us=row[4],
        receive_time_us=row[5],
        job=row[6] or None,
    )


def gap_of(row: Sequence[Any]) -> Gap:
    """Return a gap of any market, its fields in their order."""
    return Gap(
        exchange=row[0],
        symbol=row[1],
        first_trade_id=row[2],
        last_trade_id=row[3],
        start_time_us=row[4],
        end_time_us=row[5],
        status=row[6],
        reason=row[7],
        revision=row[8],
        job=row[9] or None,
    )


def _text(number: Any) -> str:
    # Decimal(38,12) brings twelve digits; what is published has the shortest plain text.
    return shortest_text(plain_text(number))


def candle_of(market: Market, timeframe: Timeframe, row: Sequence[Any]) -> Candle:
    """Return a candle of a market: `CANDLE_FIELDS`."""

    def maybe(number: Any) -> str | None:
        return None if number is None else _text(number)

    return Candle(
        exchange=market.exchange,
        symbol=market.symbol,
        timeframe=timeframe.name,
        open_time_us=row[0],
        open=_text(row[1]),
        high=_text(row[2]),
        low=_text(row[3]),
        close=_text(row[4]),
        volume=_text(row[5]),
        quote_volume=maybe(row[6]),
        buy_volume=maybe(row[7]),
        trade_count=row[8],
        first_trade_id=row[9],
        last_trade_id=row[10],
        revision=row[11],
        source=row[12],
        coverage=row[13],
        job=row[14] or None,
    )
