"""Example messages of every event: what `examples/*.json` is written from.

They are made-up markets in the form that exchanges really send: ids, digits, times as on the wire.
"""

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import msgspec

from alpha_pulse.contracts.events import (
    Audit,
    Candle,
    DeadLetter,
    FieldDifference,
    Gap,
    Heartbeat,
    HistoryMarker,
    Ids,
    StreamStatus,
    Trade,
)

_MINUTE = 1_767_225_600_000_000  # 2026-01-01 00:00 UTC
_REVISION = 2**44 + 918_221


@dataclass(frozen=True)
class _Market:
    exchange: str
    symbol: str

    def make(self, event_type: type[Any], **values: Any) -> Any:
        return event_type(exchange=self.exchange, symbol=self.symbol, **values)


_BTC = _Market("binance", "BTC/USDT")
_PERPETUAL = _Market("binanceusdm", "BTC/USDT:USDT")
_KRAKEN = _Market("kraken", "BTC/USD")
_BYBIT = _Market("bybit", "SOL/USDT")
_TESTNET = _Market("binance-testnet", "BTC/USDT")

_TRADED = {
    "timeframe": "1m",
    "open_time_us": _MINUTE,
    "open": "61837.63000000",
    "high": "61860.80000000",
    "low": "61780.00000000",
    "close": "61782.25000000",
    "volume": "15.07702000",
    "quote_volume": "931812.334501120000",
    "buy_volume": "7.10230000",
    "trade_count": 1203,
    "first_trade_id": "3735683259",
    "last_trade_id": "3735684461",
    "revision": _REVISION,
    "source": "trades",
    "coverage": "contiguous",
}
_BAD_FRAME = b'{"e":"trade","E":1767225600001,"s":"BTCU'

EXAMPLES: dict[type[msgspec.Struct], dict[str, msgspec.Struct]] = {
    Trade: {
        "binance": _BTC.make(
            Trade,
            trade_id="3735683259",
            price="61837.63000000",
            amount="0.02000000",
            side="sell",
            trade_time_us=_MINUTE + 342_000,
            receive_time_us=_MINUTE + 367_213,
        ),
        "bybit-uuid": _BYBIT.make(
            Trade,
            trade_id="9dc75fca-4bdd-4773-9f78-6f5d7ab2a110",
            price="142.31",
            amount="0.010",
            side="buy",
            trade_time_us=_MINUTE + 679_000,
            receive_time_us=_MINUTE + 655_105,
        ),
        "history-tiny": _TESTNET.make(
            Trade,
            trade_id="17",
            price="0.00000001",
            amount="1000000",
            side="unknown",
            trade_time_us=_MINUTE,
            receive_time_us=_MINUTE + 5_000_000,
            job="backfill-20260101-1",
        ),
    },
    Candle: {
        "contiguous": _BTC.make(Candle, **_TRADED),
        "exchange": _KRAKEN.make(
            Candle,
            **_TRADED
            | {
                "quote_volume": None,
                "buy_volume": None,
                "first_trade_id": None,
                "last_trade_id": None,
                "source": "exchange",
                "coverage": "exchange",
            },
        ),
        "empty": _BTC.make(
            Candle,
            **_TRADED
            | {
                "open_time_us": _MINUTE + 60_000_000,
                "open": "61782.25000000",
                "high": "61782.25000000",
                "low": "61782.25000000",
                "volume": "0",
                "quote_volume": "0",
                "buy_volume": "0",
                "trade_count": 0,
                "first_trade_id": None,
                "last_trade_id": None,
                "revision": _REVISION + 7,
            },
        ),
        "rollup-with-gap": _BTC.make(
            Candle, **_TRADED | {"timeframe": "1h", "source": "mixed", "coverage": "gap"}
        ),
    },
    Heartbeat: {
        "live": _BTC.make(Heartbeat, complete_until_us=_MINUTE + 62_000_000, state="live"),
        "disconnected": _BTC.make(
            Heartbeat, complete_until_us=_MINUTE + 31_500_000, state="disconnected"
        ),
        "halted": _KRAKEN.make(Heartbeat, complete_until_us=_MINUTE + 1, state="halted"),
    },
    Gap: {
        "open": _BTC.make(
            Gap,
            first_trade_id="3735684000",
            last_trade_id="3735684041",
            start_time_us=_MINUTE + 40_000_000,
            end_time_us=_MINUTE + 41_250_000,
            status="open",
            reason="ids 3735684000 to 3735684041 were not received",
        ),
        "filled": _BTC.make(
            Gap,
            first_trade_id="3735684000",
            last_trade_id="3735684041",
            start_time_us=_MINUTE + 40_000_000,
            end_time_us=_MINUTE + 41_250_000,
            status="filled",
            reason="fetched by id",
            revision=_REVISION,
        ),
        "unfillable": _BYBIT.make(
            Gap,
            first_trade_id=None,
            last_trade_id=None,
            start_time_us=_MINUTE,
            end_time_us=_MINUTE + 95_000_000,
            status="unfillable",
            reason="the exchange serves no trades of that time",
            revision=_REVISION + 1,
        ),
    },
    Ids: {
        "one": _PERPETUAL.make(
            Ids,
            first_trade_id="7950000001",
            last_trade_id="7950000001",
            time_us=_MINUTE + 342_000,
            reason="no_trade",
        ),
        "run": _PERPETUAL.make(
            Ids,
            first_trade_id="7950000007",
            last_trade_id="7950000011",
            time_us=_MINUTE + 371_000,
            reason="no_trade",
        ),
        "job": _PERPETUAL.make(
            Ids,
            first_trade_id="7949000100",
            last_trade_id="7949000103",
            time_us=_MINUTE + 12_000,
            reason="no_trade",
            job="trades-2026-01-01",
        ),
    },
    HistoryMarker: {
        "start-candles": _BTC.make(
            HistoryMarker,
            job="backfill-20260101-1",
            edge="start",
            timeframe="1m",
            start_time_us=_MINUTE - 86_400_000_000,
            end_time_us=_MINUTE,
        ),
        "start-trades": _PERPETUAL.make(
            HistoryMarker,
            job="heal.42",
            edge="start",
            timeframe=None,
            start_time_us=_MINUTE,
            end_time_us=_MINUTE + 60_000_000,
        ),
        "end-trades": _PERPETUAL.make(
            HistoryMarker,
            job="heal.42",
            edge="end",
            timeframe=None,
            start_time_us=_MINUTE,
            end_time_us=_MINUTE + 60_000_000,
        ),
    },
    StreamStatus: {
        "live": _BTC.make(
            StreamStatus,
            state="live",
            complete_until_us=_MINUTE + 62_000_000,
            last_trade_time_us=_MINUTE + 61_873_000,
            last_trade_id="3735684461",
            revision=_REVISION,
        ),
        "disconnected": _BTC.make(
            StreamStatus,
            state="disconnected",
            complete_until_us=_MINUTE + 31_500_000,
            last_trade_time_us=_MINUTE + 31_499_000,
            last_trade_id="3735684100",
            revision=_REVISION + 2,
        ),
        "never-traded": _BYBIT.make(
            StreamStatus,
            state="halted",
            complete_until_us=_MINUTE,
            last_trade_time_us=None,
            last_trade_id=None,
            revision=2**44,
        ),
    },
    Audit: {
        "equal": _BTC.make(
            Audit,
            timeframe="1m",
            open_time_us=_MINUTE,
            result="equal",
            coverage="contiguous",
            differences=[],
            candle_revision=_REVISION,
            exchange_revision=_REVISION + 1,
            revision=_REVISION + 1,
        ),
        "different": _BTC.make(
            Audit,
            timeframe="1m",
            open_time_us=_MINUTE,
            result="different",
            coverage="partial",
            differences=[
                FieldDifference(field="volume", ours="14.90000000", exchange="15.07702000"),
                FieldDifference(field="trade_count", ours="1190", exchange="1203"),
            ],
            candle_revision=_REVISION,
            exchange_revision=_REVISION + 1,
            revision=_REVISION + 1,
        ),
        "missing-ours": _BYBIT.make(
            Audit,
            timeframe="1m",
            open_time_us=_MINUTE,
            result="missing_ours",
            coverage=None,
            differences=[],
            candle_revision=None,
            exchange_revision=_REVISION,
            revision=_REVISION + 9,
        ),
    },
    DeadLetter: {
        "frame": DeadLetter(
            identity="sha256:8c0e3f1d5b7a9c2e4f6081a3b5c7d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f80",
            reason="bad_frame",
            error="expected a trade frame, found JSON that ends early (byte 40)",
            exchange="binance",
            symbol=None,
            topic=None,
            partition=None,
            offset=None,
            payload_base64=b64encode(_BAD_FRAME).decode(),
            payload_bytes=len(_BAD_FRAME),
            time_us=_MINUTE,
        ),
        "record": DeadLetter(
            identity="ingest.events.v1:3:918221",
            reason="bad_schema",
            error="Object missing required field `symbol`",
            exchange=None,
            symbol=None,
            topic="ingest.events.v1",
            partition=3,
            offset=918_221,
            payload_base64=b64encode(b'{"event":"trade"}').decode(),
            payload_bytes=17,
            time_us=_MINUTE,
        ),
        "row": DeadLetter(
            identity="market.trades.v1:0:17",
            reason="refused_by_storage",
            error="Constraint `price_positive` is violated",
            exchange="binance",
            symbol="BTC/USDT",
            topic="market.trades.v1",
            partition=0,
            offset=17,
            payload_base64=b64encode(b"{}").decode(),
            payload_bytes=2,
            time_us=_MINUTE,
        ),
    },
}
