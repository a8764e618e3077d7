"""Frames and records of 0.9, 1.1 and 10 MB: a feed is never stuck, nothing else is lost."""

import asyncio
import base64
import os
from random import Random

import pytest

from alpha_pulse.contracts.codec import decode_event
from alpha_pulse.contracts.config import ProcessorConfig, ProducerConfig
from alpha_pulse.contracts.events import DeadLetter
from alpha_pulse.contracts.market import message_key
from alpha_pulse.contracts.topics import DEAD_LETTERS
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.wire.records import EncodedRecords
from alpha_pulse.producers.live import LiveProducer
from alpha_pulse.replay.exchange.faults import FaultPlan, StreamFault
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S
from tests.producers.conftest import MemoryPublisher

SYMBOL = "BTC/USDT"
MINUTE_US = 60_000_000
CUT_BYTES = 256 * 1024
# Kafka's own limit of a record, and so the largest that a topic can hold.
RECORD_BYTES_MAX = 1_048_576
SEED = int(os.environ.get("SEED", "7"))


@pytest.mark.parametrize("size", [900_000, 1_100_000, 10_000_000, 12_000_000])
async def test_a_huge_frame_does_not_stop_a_feed(size: int) -> None:
    print(f"SEED={SEED}")
    market = SyntheticMarket(SYMBOL, SEED, end_us=BEGIN_US + 2 * MINUTE_US)
    frame = b'{"e":"trade","x":"' + b"x" * size + b'"}'
    plan = FaultPlan(stream=[StreamFault("garbage", at_trade=100, payload=frame)])
    async with ReplayExchange([market], faults=plan) as exchange:
        published = MemoryPublisher()
        settings = ProducerConfig(
            exchange="binance",
            symbols=(SYMBOL,),
            exchange_url=exchange.url,
            clock="event",
            until_us=exchange.end_us or 0,
        )
        await asyncio.wait_for(LiveProducer(settings, published).run(asyncio.Event()), PATIENCE_S)
        wanted = [str(row.trade_id) for row in exchange.ledger.published(SYMBOL)]
        assert len(plan.applied) == 1
        assert [trade.trade_id for trade in published.trades()] == wanted
        letters = published.dead_letters()
        # Beyond 10 MiB ccxt's socket refuses the frame and connects again.
        assert [letter.payload_bytes for letter in letters] == (
            [len(frame)] if len(frame) <= 10 * 2**20 else []
        )
        for letter in letters:
            assert base64.b64decode(letter.payload_base64) == frame[:CUT_BYTES]


@pytest.mark.parametrize("rubbish", ["noise", "brackets", "digits"])
def test_the_largest_record_that_kafka_takes_is_one_dead_letter_that_kafka_takes(
    rubbish: str,
) -> None:
    print(f"SEED={SEED}")
    value = {
        "noise": Random(SEED).randbytes(900_000),
        "brackets": b"[" * 900_000,
        "digits": b'{"event":"trade","price":' + b"9" * 900_000 + b"}",
    }[rubbish]
    kernel = Kernel(ProcessorConfig(), "ingest.events.v1", 0)
    records = EncodedRecords.of([0], [message_key("binance", SYMBOL)], [value])
    kernel.process(records, 1_767_225_600_000, 1)
    ((_, letter_value),) = kernel.drain_outputs()[DEAD_LETTERS.name]
    assert len(letter_value) < RECORD_BYTES_MAX / 2
    letter = decode_event(letter_value)
    assert isinstance(letter, DeadLetter)
    assert letter.payload_bytes == len(value)
    assert base64.b64decode(letter.payload_base64) == value[:CUT_BYTES]
