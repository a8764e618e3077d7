"""docs/exchanges.md says of each exchange what its room and its dialect say."""

from pathlib import Path

from alpha_pulse.contracts.market import TIMEFRAMES
from alpha_pulse.producers.exchanges.adapter import Exchange
from alpha_pulse.producers.exchanges.registry import ExchangeType, exchange_of
from alpha_pulse.replay.dialects import DIALECTS

DOCS = Path(__file__).parents[3] / "docs" / "exchanges.md"
NAMES = tuple(exchange.value for exchange in ExchangeType)


def timeframes(exchange: Exchange) -> str:
    if exchange.candles.names is None:
        return "those that ccxt lists"
    missing = [name for name in TIMEFRAMES if name not in exchange.candles.names]
    return f"all but {', '.join(missing)}" if missing else "all"


def says_of(exchange: Exchange, name: str) -> dict[str, str]:
    """What the table says of an exchange, by row."""
    trades, candles = exchange.trades, exchange.candles
    has_stream = name in DIALECTS and DIALECTS[name].has_candle_channel
    by_time = trades.first_from is not None or trades.newest_before is not None
    return {
        "trade ids": "consecutive" if exchange.ids_are_consecutive else "unique",
        "a minute is at best": "contiguous" if exchange.ids_are_consecutive else "unverified",
        "missing trades": "asked for by id" if trades.by_id else "sought in the last ones",
        "frames are decoded": "here, many at once" if exchange.decoder else "by ccxt",
        "its own candles, live": "stream, else REST" if has_stream else "REST",
        "trades of the past": "yes" if trades.by_id and by_time else "no",
        "candles of the past": (
            "all" if candles.newest_rows is None else f"the newest {candles.newest_rows}"
        ),
        "in a request": f"{candles.page_rows:,}",
        "timeframes": timeframes(exchange),
        "a minute without trades": "has no candle" if candles.empty_left_out else "has a candle",
    }


def table() -> str:
    columns = {name: says_of(exchange_of(name), name) for name in NAMES}
    columns["any other"] = says_of(exchange_of("any-other"), "any-other")
    lines = [f"| | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for row in next(iter(columns.values())):
        lines.append(f"| {row} | {' | '.join(said[row] for said in columns.values())} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_exchanges_is_what_the_rooms_say() -> None:
    assert table() in DOCS.read_text(), f"put this into {DOCS.name}:\n{table()}"


def test_every_exchange_that_numbers_its_trades_can_be_asked_for_one() -> None:
    for name in NAMES:
        exchange = exchange_of(name)
        assert exchange.ids_are_consecutive == (exchange.trades.by_id is not None), name
