"""A kernel that is fed event by event, and tells what each one caused."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, Gap, Heartbeat, HistoryMarker, Trade
from alpha_pulse.contracts.market import MINUTE_US, SECOND_US, message_key
from alpha_pulse.contracts.topics import AUDIT_CANDLES
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.wire.records import EncodedRecords

# 2025-11-24 00:00 UTC, a Monday: every timeframe opens here.
MONDAY_US = 1_763_942_400_000_000


class Feed:
    """Feeds one symbol. Times are seconds since that Monday; each call returns what came out."""

    def __init__(self, exchange: str = "binance", **settings: Any) -> None:
        self.exchange, self.symbol = exchange, "BTC/USDT"
        self.kernel = Kernel(ProcessorConfig(**settings), "ingest.events.v1", 3)
        self.kafka_ms = MONDAY_US // 1000

    def raw(self, value: bytes | None, key: bytes | None = None) -> list[Any]:
        key = message_key(self.exchange, self.symbol) if key is None else key
        offset = self.kernel.position
        records = EncodedRecords.of([offset], [key], [value])
        self.kernel.process(records, self.kafka_ms, offset + 1)
        return [
            decode_event(value)
            for topic, records in self.kernel.drain_outputs().items()
            for _, value in records
            if topic != AUDIT_CANDLES.name  # which repeats others
        ]

    def event(self, event: msgspec.Struct) -> list[Any]:
        return self.raw(encode(event))

    def make_trade(
        self, trade_id: int | str, at_s: float, price: str = "100.00", amount: str = "1.000",
        side: Any = "buy", job: str | None = None,
    ) -> Trade:  # fmt: skip
        time_us = MONDAY_US + round(at_s * SECOND_US)
        return Trade(
            exchange=self.exchange, symbol=self.symbol, trade_id=str(trade_id), price=price,
            amount=amount, side=side, trade_time_us=time_us, receive_time_us=time_us, job=job,
        )  # fmt: skip

    def trade(self, trade_id: int | str, at_s: float, *rest: Any, **named: Any) -> list[Any]:
        return self.event(self.make_trade(trade_id, at_s, *rest, **named))

    def heartbeat(
        self, until_s: float, state: Any = "live", job: str | None = None,
        ids_are_consecutive: bool | None = None,
    ) -> list[Any]:  # fmt: skip
        return self.event(
            Heartbeat(
                exchange=self.exchange,
                symbol=self.symbol,
                complete_until_us=MONDAY_US + round(until_s * SECOND_US),
                state=state,
                job=job,
                ids_are_consecutive=ids_are_consecutive,
            )
        )

    def gap(
        self,
        first: str | None,
        last: str | None,
        start_s: float,
        end_s: float,
        status: Any = "open",
    ) -> list[Any]:
        return self.event(
            Gap(
                exchange=self.exchange,
                symbol=self.symbol,
                first_trade_id=first,
                last_trade_id=last,
                start_time_us=MONDAY_US + round(start_s * SECOND_US),
                end_time_us=MONDAY_US + round(end_s * SECOND_US),
                status=status,
                reason="test",
            )
        )

    def exchange_candle(self, minute: int, price: str = "55", **changes: Any) -> list[Any]:
        fields: dict[str, Any] = dict(
            exchange=self.exchange, symbol=self.symbol, timeframe="1m",
            open_time_us=MONDAY_US + minute * MINUTE_US, open=price, high=price, low=price,
            close=price, volume="9", quote_volume=None, buy_volume=None, trade_count=None,
            first_trade_id=None, last_trade_id=None, revision=0, source="exchange",
            coverage="exchange",
        )  # fmt: skip
        return self.event(Candle(**{**fields, **changes}))

    def history(
        self, edge: Any, start_s: float, end_s: float, job: str = "j",
        ids_are_consecutive: bool | None = None,
    ) -> list[Any]:  # fmt: skip
        return self.event(
            HistoryMarker(
                exchange=self.exchange,
                symbol=self.symbol,
                job=job,
                edge=edge,
                timeframe=None,
                start_time_us=MONDAY_US + round(start_s * SECOND_US),
                end_time_us=MONDAY_US + round(end_s * SECOND_US),
                ids_are_consecutive=ids_are_consecutive,
            )
        )


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def feed_of() -> Callable[..., Feed]:
    return Feed
