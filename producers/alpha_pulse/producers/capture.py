"""Capture: an exchange's live market as recordings that replay.

It goes the whole live path (order, holes, final candles), with files where Kafka would be. Per
symbol one folder: `recording.json`, `trades.csv.gz`, `candles-1m.csv`; and `frames.ndjson.gz` with
every frame as it came, `{"recv_ns", "raw"}`.
"""

import asyncio
import csv
import gzip
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, assert_never

from alpha_pulse.contracts.codec import decode_event
from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import ConfigError, ValidationError
from alpha_pulse.contracts.events import (
    Audit,
    Candle,
    DeadLetter,
    Gap,
    Heartbeat,
    HistoryMarker,
    Ids,
    StreamStatus,
    Trade,
)
from alpha_pulse.producers.connection.tap import Frame
from alpha_pulse.producers.exchanges.names import exchange_name
from alpha_pulse.producers.live import LiveProducer

TRADE_COLUMNS = ["trade_id", "trade_time_us", "price", "amount", "side"]
CANDLE_COLUMNS = ["open_time_us", "open", "high", "low", "close", "volume", "trade_count"]


async def capture(
    config: ProducerConfig,
    out: Path,
    stop: asyncio.Event,
    on_refused: Callable[[str, str], None] = lambda symbol, reason: None,
) -> list[Path]:
    """Record the symbols of a configuration until `stop`.

    Args:
        config: the producer's settings.
        out: an empty or new folder: one symbol is recorded in it, several in folders below it.
        stop: set by the caller.
        on_refused: called at the end with each symbol that the exchange refused, and why.

    Returns:
        The recordings' folders.

    Raises:
        ConfigError: `out` holds files already.
    """
    files = _Files(config, _empty(out))
    producer = LiveProducer(config, files, on_raw=files.add_frame)
    try:
        await producer.run(stop)
    finally:
        for symbol, reason in producer.quarantined.items():
            on_refused(symbol, reason)
        folders = files.close()
    return folders


def _empty(out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise ConfigError(
            f"expected an empty folder for the capture, found files in {out}; name another"
        )
    return out


class _Files:
    """An event log that writes recordings."""

    def __init__(self, config: ProducerConfig, out: Path) -> None:
        self.pending_bytes = 0
        self._exchange = exchange_name(config)
        self._out = out
        self._single = len(config.symbols) == 1
        self._frames = gzip.open(out / "frames.ndjson.gz", "wt", encoding="utf-8")  # noqa: SIM115
        self._recordings: dict[str, _Recording] = {}

    async def publish(self, topic: str, key: bytes, values: Sequence[bytes]) -> None:
        """Write trades and candles; dead letters stand among the frames."""
        for value in values:
            event = decode_event(value)
            match event:
                case Trade() | Candle() | Gap():
                    self._recording(event.symbol).add(event)
                case Heartbeat() | Ids() | DeadLetter():
                    pass  # bad frames, and those of no trade, stand among the frames
                case HistoryMarker() | StreamStatus() | Audit():
                    raise ValidationError(f"expected what a live producer says, found {value!r}")
                case _:
                    assert_never(event)

    async def flush(self) -> None:
        """Do nothing: files are written when they are closed."""

    def add_frame(self, frame: Frame) -> None:
        """Write a frame as it came: as JSON where it is JSON, else as text."""
        text = frame if isinstance(frame, str) else frame.decode(errors="replace")
        try:
            json.loads(text)
            raw = text
        except ValueError:
            raw = json.dumps(text)
        self._frames.write(f'{{"recv_ns":{time.time_ns()},"raw":{raw}}}\n')

    def close(self) -> list[Path]:
        """Finish all files; return the folders that hold a recording."""
        self._frames.close()
        return [recording.close() for recording in self._recordings.values()]

    def _recording(self, symbol: str) -> "_Recording":
        found = self._recordings.get(symbol)
        if found is None:
            name = f"{self._exchange}-{symbol}".replace("/", "-").replace(":", "-").lower()
            folder = self._out if self._single else self._out / name
            found = self._recordings[symbol] = _Recording(folder, self._exchange, symbol)
        return found


class _Recording:
    """The files of one symbol."""

    def __init__(self, folder: Path, exchange: str, symbol: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._about: dict[str, Any] = {
            "exchange": exchange,
            "market": "swap" if ":" in symbol else "spot",
            "symbol": symbol,
            "timeframe": "1m",
            "source": f"captured live from {exchange} on {time.strftime('%Y-%m-%d')}",
        }
        file = gzip.open(folder / "trades.csv.gz", "wt", newline="", encoding="utf-8")  # noqa: SIM115
        self._file: io.TextIOBase = file
        self._trades = csv.writer(self._file)
        self._trades.writerow(TRADE_COLUMNS)
        self._candles: list[Candle] = []
        self._first: Trade | None = None
        self._last: Trade | None = None
        self._count = 0
        self._contiguous = True

    def add(self, event: Trade | Candle | Gap) -> None:
        """Write a trade, keep a candle, note a gap."""
        match event:
            case Candle():
                self._candles.append(event)
            case Gap():
                self._contiguous = False
            case Trade():
                self._add_trade(event)
            case _:
                assert_never(event)

    def close(self) -> Path:
        """Write what is known at the end; candles only of minutes that were followed whole."""
        self._file.close()
        first, last = self._first, self._last
        with (self._folder / "candles-1m.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(CANDLE_COLUMNS)
            for candle in sorted(self._candles, key=lambda candle: candle.open_time_us):
                if first is None or candle.open_time_us <= first.trade_time_us:
                    continue
                count = "" if candle.trade_count is None else candle.trade_count
                prices = (candle.open, candle.high, candle.low, candle.close)
                rows.writerow((candle.open_time_us, *prices, candle.volume, count))
        self._about |= {"trades": self._count, "contiguous": self._contiguous}
        if first is not None and last is not None and first.trade_id.isdecimal():
            self._about |= {
                "first_trade_id": int(first.trade_id),
                "last_trade_id": int(last.trade_id),
            }
        (self._folder / "recording.json").write_text(json.dumps(self._about, indent=2) + "\n")
        return self._folder

    def _add_trade(self, trade: Trade) -> None:
        if not self._is_next(trade):
            return
        self._first = self._first or trade
        self._last = trade
        self._count += 1
        row = (trade.trade_id, trade.trade_time_us, trade.price, trade.amount, trade.side)
        self._trades.writerow(row)

    def _is_next(self, trade: Trade) -> bool:
        # A recording stands in the exchange's order: what filled a published gap comes too late.
        last = self._last
        if last is None or not (trade.trade_id.isdecimal() and last.trade_id.isdecimal()):
            return True
        return int(trade.trade_id) > int(last.trade_id)
