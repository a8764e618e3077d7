"""The candle that tests of tables, pages and dashboards store."""

from typing import Any

import msgspec

from alpha_pulse.contracts.events import Candle

SYMBOL = "BTC/USDT"


def candle(open_time_us: int, close: str = "20", revision: int = 1, **changes: Any) -> Candle:
    """A closed minute of SYMBOL: open 10, high 30, low 5, volume 2.5."""
    event = Candle(
        exchange="binance",
        symbol=SYMBOL,
        timeframe="1m",
        open_time_us=open_time_us,
        open="10",
        high="30",
        low="5",
        close=close,
        volume="2.5",
        quote_volume="40",
        buy_volume="1",
        trade_count=4,
        first_trade_id="1",
        last_trade_id="4",
        revision=revision,
        source="trades",
        coverage="contiguous",
    )
    return msgspec.structs.replace(event, **changes)
