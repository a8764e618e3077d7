"""Load and check a recording: a folder with one symbol's trades and the exchange's own candles.

`recording.json`     exchange, market, symbol, timeframe, source
`trades.csv.gz`      trade_id, trade_time_us, price, amount, side; one row per trade, in the
                     exchange's order
`candles-1m.csv`     open_time_us, open, high, low, close, volume, trade_count (or empty)
`frames.ndjson.gz`   optional: {"recv_ns", "raw"}; not read here

Prices and amounts stay the recorded text.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import MINUTE_US, TIME_US_MAX, TIME_US_MIN, check_symbol
from alpha_pulse.replay.markets.market import RecordedCandle, TradeRow

GRACE_US = 2_000_000
# Ids are the order; a clock may step back a little between two machines of one exchange.
BACKWARDS_US_MAX = 2_000_000

TRADE_COLUMNS = ["trade_id", "trade_time_us", "price", "amount", "side"]
CANDLE_COLUMNS = ["open_time_us", "open", "high", "low", "close", "volume", "trade_count"]

# \Z and [0-9]: `$` would let a newline pass, `\d` the digits of other scripts.
_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,18})?\Z")
_INTEGER = re.compile(r"[0-9]{1,19}\Z")
# UUIDs, and numbers of which nothing follows but that they differ: 2290000000001190010741.
_NATIVE = re.compile(r"([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{20,36})\Z")


class RecordingError(ValidationError):
    """A recording folder cannot be used: what was expected, what was found, where, what next."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One symbol's recorded market. Trades in the exchange's order, candles by open time."""

    exchange: str
    market: str
    symbol: str
    source: str
    trades: tuple[TradeRow, ...]
    candles: tuple[RecordedCandle, ...]
    # Ids that are no consecutive numbers, by position; then TradeRow.trade_id is the position + 1.
    native_ids: tuple[str, ...] = ()

    @property
    def begin_us(self) -> int:
        """Return when the recording begins: its first trade or its first candle's open."""
        times = [row.trade_time_us for row in self.trades[:1]]
        return min(times + [candle.open_time_us for candle in self.candles[:1]])

    @property
    def end_us(self) -> int:
        """Return when the recording ends: after its last trade and its last candle plus grace."""
        ends = [max(row.trade_time_us for row in self.trades) + 1] if self.trades else []
        if self.candles:
            ends.append(self.candles[-1].open_time_us + MINUTE_US + GRACE_US)
        return max(ends)

    def shifted(self, by_us: int) -> "Recording":
        """Return the same recording at another time.

        by_us: whole minutes, since a candle moved by less would no longer start on a minute.
        """
        if by_us % MINUTE_US:
            raise ValueError(f"expected a shift by whole minutes, found {by_us} µs")
        trades = tuple(t._replace(trade_time_us=t.trade_time_us + by_us) for t in self.trades)
        candles = tuple(replace(c, open_time_us=c.open_time_us + by_us) for c in self.candles)
        return replace(self, trades=trades, candles=candles)


def load_recording(folder: Path | str) -> Recording:
    """Read and check a recording folder.

    Raises: RecordingError, naming the file and the line, for anything that is missing, malformed
    or impossible (a price that is not above 0, ids that do not rise, a high below a low, ...).
    """
    root = Path(folder)
    if not root.is_dir():
        raise RecordingError(
            f"expected a recording folder, found {'a file' if root.exists() else 'nothing'} at "
            f"{root}; name a folder that holds recording.json, trades.csv.gz and candles-1m.csv"
        )
    about = _read_about(root / "recording.json")
    trades, native_ids = _read_trades(root / "trades.csv.gz")
    candles = _read_candles(root / "candles-1m.csv")
    for name, found in (("first_trade_id", 0), ("last_trade_id", -1)):
        stated = about.get(name)
        if isinstance(stated, int) and not native_ids and stated != trades[found].trade_id:
            raise RecordingError(
                f"expected {name} {stated} as in {root / 'recording.json'}, found "
                f"{trades[found].trade_id} in trades.csv.gz; the file was cut or belongs elsewhere"
            )
    if isinstance(about.get("trades"), int) and about["trades"] != len(trades):
        raise RecordingError(
            f"expected {about['trades']} trades as in {root / 'recording.json'}, found "
            f"{len(trades)} in trades.csv.gz; the file was cut or belongs elsewhere"
        )
    return Recording(
        exchange=about["exchange"],
        market=about["market"],
        symbol=about["symbol"],
        source=str(about.get("source", "")),
        trades=trades,
        candles=candles,
        native_ids=native_ids,
    )


def _read_about(path: Path) -> dict[str, Any]:
    raw = _read_bytes(path)
    try:
        about = orjson.loads(raw)
    except orjson.JSONDecodeError as e:
        raise RecordingError(
            f"expected JSON, found {e.msg} at {path}:{e.lineno}; repair the file"
        ) from e
    if not isinstance(about, dict):
        raise RecordingError(
            f"expected a JSON object, found {type(about).__name__} at {path}:1; repair the file"
        )
    for key in ("exchange", "market", "symbol", "timeframe"):
        if not isinstance(about.get(key), str) or not about[key]:
            raise RecordingError(
                f"expected text under {key!r}, found {about.get(key)!r} at {path}; add it"
            )
    if about["timeframe"] != "1m":
        raise RecordingError(
            f"expected timeframe '1m', found {about['timeframe']!r} at {path}; "
            "record one-minute candles"
        )
    try:
        check_symbol(about["symbol"])
    except ValidationError as e:
        raise RecordingError(f"{e}, at {path}") from e
    return about


def _read_trades(path: Path) -> tuple[tuple[TradeRow, ...], tuple[str, ...]]:
    rows: list[TradeRow] = []
    native_ids: list[str] = []
    seen: set[str] = set()
    latest_us = 0
    for where, row in _read_csv(path, TRADE_COLUMNS):
        trade_id, time_text, price, amount, side = row
        time_us = _time(time_text, "trade_time_us", where)
        if _NATIVE.match(trade_id):
            if trade_id in seen:
                raise _bad(where, "a new trade_id", trade_id, "each trade is listed once")
            seen.add(trade_id)
            native_ids.append(trade_id)
            number = len(native_ids)
        else:
            number = _integer(trade_id, "trade_id", where)
            if rows and not native_ids and number <= rows[-1].trade_id:
                raise _bad(
                    where,
                    f"a trade_id above {rows[-1].trade_id}",
                    trade_id,
                    "sort by trade_id and drop duplicates",
                )
        if native_ids and len(native_ids) != len(rows) + 1:
            raise _bad(where, "ids of one kind", trade_id, "repair the file")
        if time_us < latest_us - BACKWARDS_US_MAX:
            raise _bad(
                where,
                f"a trade_time_us of at least {latest_us - BACKWARDS_US_MAX}",
                time_text,
                "rows stand in the exchange's order",
            )
        latest_us = max(latest_us, time_us)
        _decimal(price, "price above 0", where, positive=True)
        _decimal(amount, "amount above 0", where, positive=True)
        if side not in ("buy", "sell"):
            raise _bad(where, "side 'buy' or 'sell'", side, "the taker's side")
        rows.append(TradeRow(number, time_us, price, amount, side))
    if not rows:
        raise RecordingError(
            f"expected at least one trade, found none in {path}; a recording without trades "
            "cannot be replayed"
        )
    return tuple(rows), tuple(native_ids)


def _read_candles(path: Path) -> tuple[RecordedCandle, ...]:
    candles: list[RecordedCandle] = []
    for where, row in _read_csv(path, CANDLE_COLUMNS):
        open_us = _time(row[0], "open_time_us", where)
        if open_us % MINUTE_US:
            raise _bad(where, "an open_time_us on a minute", row[0], "candles are of one minute")
        if candles and open_us <= candles[-1].open_time_us:
            raise _bad(
                where,
                f"an open_time_us above {candles[-1].open_time_us}",
                row[0],
                "sort by open_time_us and drop duplicates",
            )
        prices = [
            _decimal(text, f"{name} above 0", where, positive=True)
            for name, text in zip(("open", "high", "low", "close"), row[1:5], strict=True)
        ]
        open_, high, low, close = prices
        if high < max(open_, low, close) or low > min(open_, close):
            raise _bad(where, "low <= open, close <= high", ",".join(row[1:5]), "correct the row")
        _decimal(row[5], "volume of 0 or more", where, positive=False)
        count = _integer(row[6], "trade_count", where) if row[6] else None
        open_text, high_text, low_text, close_text, volume = row[1:6]
        candles.append(
            RecordedCandle(open_us, open_text, high_text, low_text, close_text, volume, count)
        )
    return tuple(candles)


def _read_csv(path: Path, columns: list[str]) -> Iterator[tuple[str, list[str]]]:
    raw = _read_bytes(path)
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as e:
            raise RecordingError(
                f"expected a whole gzip file, found {e or type(e).__name__} at {path}; fetch or "
                "record it again"
            ) from e
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise RecordingError(
            f"expected UTF-8 text, found byte {raw[e.start]:#04x} at {path}:{line}; repair the file"
        ) from e
    reader = csv.reader(lines)
    header = next(reader, None)
    if header != columns:
        raise RecordingError(
            f"expected the columns {','.join(columns)}, found {','.join(header or [])!r} at "
            f"{path}:1; correct the header"
        )
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if len(row) != len(columns):
                raise _bad(where, f"{len(columns)} fields", f"{len(row)}", "the row was cut")
            yield where, row
    except csv.Error as e:
        raise RecordingError(
            f"expected CSV, found {e} at {path}:{reader.line_num}; repair the file"
        ) from e


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise RecordingError(
            f"expected a readable file, found {e.strerror} at {path}; a recording folder holds "
            "recording.json, trades.csv.gz and candles-1m.csv"
        ) from e


def _time(text: str, name: str, where: str) -> int:
    value = _integer(text, name, where)
    if not TIME_US_MIN <= value < TIME_US_MAX:
        raise _bad(where, f"{name} in microseconds, 2009 to 2100", text, "check the unit")
    return value


def _integer(text: str, name: str, where: str) -> int:
    if not _INTEGER.match(text):
        raise _bad(where, f"{name} as digits", text, "correct the row")
    return int(text)


def _decimal(text: str, expected: str, where: str, *, positive: bool) -> Decimal:
    value = Decimal(text) if _DECIMAL.match(text) else None
    if value is None or (positive and value <= 0):
        raise _bad(where, f"a plain decimal {expected}", text, "correct the row")
    return value


def _bad(where: str, expected: str, found: str, next_step: str) -> RecordingError:
    return RecordingError(f"expected {expected}, found {found[:80]!r} at {where}; {next_step}")
