"""Write a recording folder, so that any market that can be replayed can also be kept."""

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from alpha_pulse.replay.markets.market import RecordedCandle, TradeRow
from alpha_pulse.replay.markets.recording import CANDLE_COLUMNS, TRADE_COLUMNS


def write_recording(
    folder: Path,
    *,
    exchange: str,
    symbol: str,
    source: str,
    trades: Sequence[TradeRow],
    candles: Iterable[RecordedCandle],
) -> None:
    """Write recording.json, trades.csv.gz and candles-1m.csv.

    trades: in the exchange's order. candles: the exchange's own, of complete minutes only.
    The same input gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "exchange": exchange,
        "market": "swap" if ":" in symbol else "spot",
        "symbol": symbol,
        "timeframe": "1m",
        "source": source,
        "trades": len(trades),
        "first_trade_id": trades[0].trade_id,
        "last_trade_id": trades[-1].trade_id,
    }
    (folder / "recording.json").write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2))
    (folder / "trades.csv.gz").write_bytes(gzip.compress(_csv(TRADE_COLUMNS, trades), mtime=0))
    rows = [
        (c.open_time_us, c.open, c.high, c.low, c.close, c.volume, c.trade_count) for c in candles
    ]
    (folder / "candles-1m.csv").write_bytes(_csv(CANDLE_COLUMNS, rows))


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
