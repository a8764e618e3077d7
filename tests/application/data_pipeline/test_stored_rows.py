"""Rows of the views become the events that they were made from."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from alpha_pulse.contracts.decimals import shortest_text
from alpha_pulse.contracts.events import Candle, Gap, Trade
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.data_pipeline.history.stored_rows import CANDLES, GAPS, TRADES, Rows

READ: list[tuple[Rows[Any], Any]] = [(CANDLES, Candle), (TRADES, Trade), (GAPS, Gap)]


def as_stored(event: Any) -> list[Any]:
    """What ClickHouse gives for an event: decimals of twelve digits, "" for what was left out."""
    row = []
    for name in msgspec.structs.asdict(event):
        value = getattr(event, name)
        if name in ("price", "amount", "open", "high", "low", "close") or name.endswith("volume"):
            value = None if value is None else Decimal(value).quantize(Decimal("1e-12"))
        elif name == "job":
            value = value or ""
        row.append(value)
    return row


@pytest.mark.parametrize(("rows", "event_type"), READ)
def test_every_example_comes_back_with_its_shortest_numbers(
    rows: Rows[Any], event_type: type[msgspec.Struct]
) -> None:
    for event in EXAMPLES[event_type].values():
        fields = msgspec.structs.asdict(event)
        given = {name: fields[name] for name in fields if name not in rows.names}
        stored = dict(zip(fields, as_stored(event), strict=True))
        found = rows.event([stored[name] for name in rows.names], **given)
        shortest = {
            name: shortest_text(value)
            for name, value in fields.items()
            if isinstance(stored[name], Decimal)
        }
        assert found == msgspec.structs.replace(event, **shortest)


def test_a_query_selects_times_and_words_as_events_have_them() -> None:
    assert TRADES.columns == (
        "trade_id, price, amount, toString(side), toUnixTimestamp64Micro(trade_time), "
        "toUnixTimestamp64Micro(receive_time), job"
    )
    assert CANDLES.columns.startswith("toUnixTimestamp64Micro(open_time), open, high, low, close")


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        TRADES.event(["1"], exchange="binance", symbol="BTC/USDT")
