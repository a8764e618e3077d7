"""Poison, shuffled and repeated trades, clocks that are wrong: through the processors' kernel."""

import base64
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import pytest

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import Candle, DeadLetter, Heartbeat, Trade
from alpha_pulse.contracts.market import MINUTE_US, SECOND_US, message_key
from alpha_pulse.contracts.topics import CANDLES, DEAD_LETTERS, TRADES
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.wire.records import EncodedRecords
from alpha_pulse.replay.markets.synthetic import SyntheticMarket

SYMBOL = "BTC/USDT"
KEY = message_key("binance", SYMBOL)
TOPIC, PARTITION = "ingest.events.v1", 3
SEED = int(os.environ.get("SEED", "20261122"))
BATCH = 500
POISON_SHARE = 0.01
SHUFFLED_US = 5 * SECOND_US
TWICE_SHARE = 0.02
CANDLE_TOPICS = [topic.name for topic in CANDLES.values()]

Log = list[tuple[bytes, int]]  # value, Kafka time in ms
Outputs = dict[str, list[bytes]]


def trades(count: int, receive_after_us: int = 0) -> list[Trade]:
    market = SyntheticMarket(SYMBOL, SEED, trades_per_minute=1_200)
    return [
        Trade(
            exchange="binance",
            symbol=SYMBOL,
            trade_id=str(row.trade_id),
            price=row.price,
            amount=row.amount,
            side="buy" if row.side == "buy" else "sell",
            trade_time_us=row.trade_time_us,
            receive_time_us=row.trade_time_us + receive_after_us,
        )
        for row in market.rows(0, count)
    ]


def in_time(events: Sequence[Trade]) -> Log:
    return [(encode(event), event.trade_time_us // 1000) for event in events]


def process(log: Log) -> Outputs:
    """Return what one undisturbed processor publishes, by topic."""
    kernel = Kernel(ProcessorConfig(), TOPIC, PARTITION)
    found: dict[str, list[bytes]] = defaultdict(list)
    for first in range(0, len(log), BATCH):
        batch = log[first : first + BATCH]
        offsets = range(first, first + len(batch))
        taken = EncodedRecords.of(offsets, [KEY] * len(batch), [value for value, _ in batch])
        kernel.process(taken, batch[-1][1], first + len(batch))
        for topic, records in kernel.drain_outputs().items():
            found[topic] += [value for _, value in records]
    return found


def candles(outputs: Outputs) -> list[Candle]:
    return [decode_event(value) for topic in CANDLE_TOPICS for value in outputs.get(topic, [])]


def newest(outputs: Outputs) -> dict[tuple[str, int], Any]:
    """Return the fields of each window's newest revision, but the revision itself."""
    found: dict[tuple[str, int], Candle] = {}
    for candle in candles(outputs):
        window = (candle.timeframe, candle.open_time_us)
        if window not in found or candle.revision > found[window].revision:
            found[window] = candle
    return {
        window: msgspec.structs.asdict(msgspec.structs.replace(candle, revision=0))
        for window, candle in found.items()
    }


def poison(value: bytes, random: Random) -> bytes:
    """Return one record's bytes as some broken writer would send them."""
    return random.choice(
        [
            value[: random.randrange(len(value))],
            value.replace(b'"price":"', b'"price":"-'),
            value.replace(b'"trade"', b"7"),
            value.replace(b'"binance"', b'"Binance"'),
            random.randbytes(random.randrange(1, 400)),
            b"[" * 2_000,
            b"null",
        ]
    )


def test_each_of_one_percent_poison_in_50_000_records_is_one_dead_letter() -> None:
    print(f"SEED={SEED}")
    random = Random(SEED)
    good = in_time(trades(50_000))
    log: Log = []
    poisoned: dict[int, bytes] = {}
    for value, time_ms in good:
        if random.random() < POISON_SHARE:
            poisoned[len(log)] = poison(value, random)
            log.append((poisoned[len(log)], time_ms))
        if random.random() < POISON_SHARE / 10:  # of a kind that a later release brings: no poison
            log.append((value.replace(b'"trade"', b'"tirade"'), time_ms))
        log.append((value, time_ms))
    outputs = process(log)
    assert outputs[TRADES.name] == [value for value, _ in good]
    letters = [decode_event(value) for value in outputs[DEAD_LETTERS.name]]
    found = {}
    for letter in letters:
        assert isinstance(letter, DeadLetter)
        assert (letter.topic, letter.partition) == (TOPIC, PARTITION)
        assert letter.offset is not None
        assert letter.identity == f"{TOPIC}:{PARTITION}:{letter.offset}"
        assert letter.reason
        found[letter.offset] = base64.b64decode(letter.payload_base64)
    assert found == poisoned
    assert len(letters) == len(poisoned) > 400
    assert newest(outputs) == newest(process(good))


def shuffled(events: Sequence[Trade], random: Random) -> Iterator[Trade]:
    """Yield the events up to 5 s late, 2 % of them twice; the first and the last stay in place."""
    arrivals = [
        (event.trade_time_us + random.randrange(SHUFFLED_US), number, event)
        for number, event in enumerate(events[1:-1])
        for _ in range(2 if random.random() < TWICE_SHARE else 1)
    ]
    yield events[0]
    yield from (event for _, _, event in sorted(arrivals, key=lambda arrival: arrival[:2]))
    yield events[-1]


def test_trades_shuffled_within_5_s_and_repeated_give_the_same_candles_in_the_end() -> None:
    print(f"SEED={SEED}")
    random = Random(SEED)
    events = trades(10_000)
    last_us = events[-1].trade_time_us
    end = Heartbeat(
        exchange="binance",
        symbol=SYMBOL,
        complete_until_us=last_us - last_us % MINUTE_US + 2 * MINUTE_US,
        state="live",
    )
    closing = (encode(end), last_us // 1000)
    straight = process([*in_time(events), closing])
    arriving = list(shuffled(events, random))
    assert len(arriving) > len(events) * 1.01
    disturbed = process([*in_time(arriving), closing])
    assert sorted(disturbed[TRADES.name]) == sorted(straight[TRADES.name])
    assert newest(disturbed) == newest(straight)
    revisions = defaultdict(list)
    for candle in candles(disturbed):
        revisions[candle.timeframe, candle.open_time_us].append(candle.revision)
    assert all(a < b for each in revisions.values() for a, b in pairwise(each))
    assert max(map(len, revisions.values())) > 1, "there were corrections"


@pytest.mark.parametrize(
    "skews_us",
    [
        [3_600 * SECOND_US],
        [-3_600 * SECOND_US],
        [0, -10 * SECOND_US],
        [0, -10 * SECOND_US, 3_600 * SECOND_US, -3_600 * SECOND_US],
    ],
    ids=["an hour ahead", "an hour behind", "a step of -10 s", "stepping to and fro"],
)
def test_clocks_of_our_machines_change_no_candle(skews_us: list[int]) -> None:
    # Our clocks are in two places only: when a trade was received, and the record's Kafka time.
    events = trades(4_000)
    part = -(-len(events) // len(skews_us))
    log: Log = []
    for number, event in enumerate(events):
        skew_us = skews_us[number // part]
        received_us = event.receive_time_us + skew_us
        skewed = msgspec.structs.replace(event, receive_time_us=received_us)
        log.append((encode(skewed), (event.trade_time_us + skew_us) // 1000))
    straight, skewed_outputs = process(in_time(events)), process(log)
    for topic in CANDLE_TOPICS:
        assert skewed_outputs.get(topic) == straight.get(topic)
    assert straight[CANDLES["1m"].name]
    assert not skewed_outputs.get(DEAD_LETTERS.name)


def test_late_trades_of_a_minute_that_a_heartbeat_closed_are_each_counted_at_their_own_price() -> (
    None
):
    events = trades(400)
    minute_us = events[0].trade_time_us // MINUTE_US * MINUTE_US
    first = [event for event in events if event.trade_time_us < minute_us + MINUTE_US]
    assert len({event.price for event in first[-40:]}) > 3
    heartbeat = Heartbeat(
        exchange="binance",
        symbol=SYMBOL,
        complete_until_us=minute_us + MINUTE_US + 10 * SECOND_US,
        state="live",
    )
    closed = (encode(heartbeat), events[-1].trade_time_us // 1000)
    straight = newest(process([*in_time(first), closed]))
    late = newest(process([*in_time(first[:-40]), closed, *in_time(first[-40:])]))
    assert late["1m", minute_us] == straight["1m", minute_us]
