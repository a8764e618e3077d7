"""Any log within the rules gives the candles of a slow, obvious recomputation, and the same bytes
whatever the batching, the restarts and the way a trade took through the code."""

from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_pulse.contracts.codec import decode_event, encode
from alpha_pulse.contracts.config import ProcessorConfig
from alpha_pulse.contracts.events import (
    COVERAGE_ORDER,
    Candle,
    Gap,
    Heartbeat,
    HistoryMarker,
    Ids,
    Trade,
)
from alpha_pulse.contracts.market import (
    MINUTE_US,
    PUBLISHED_TIMEFRAMES,
    SECOND_US,
    get_timeframe,
    message_key,
)
from alpha_pulse.processors.kernel.kernel import Kernel
from alpha_pulse.processors.state.partition_state import StateWriter, restore
from alpha_pulse.processors.wire.records import EncodedRecords

START_US = 1_763_800_020_000_000 // (5 * MINUTE_US) * (5 * MINUTE_US)
KAFKA_MS = START_US // 1000 + 3_600_000
Log = list[tuple[bytes, bytes]]
Outputs = dict[str, list[tuple[bytes, bytes]]]
_WIDE = Context(prec=96)


# --- logs -----------------------------------------------------------------------------------------


@dataclass
class Story:
    """What happened to one symbol: its trades by id, how they arrived, what else was said."""

    exchange: str = "binance"
    symbol: str = "BTC/USDT"
    events: list[Any] = field(default_factory=list)

    def log(self) -> Log:
        key = message_key(self.exchange, self.symbol)
        return [
            (key, event if isinstance(event, bytes) else encode(event)) for event in self.events
        ]


def trade_of(exchange: str, symbol: str, number: int, time_us: int, tick: int, lot: int) -> Trade:
    return Trade(
        exchange=exchange,
        symbol=symbol,
        trade_id=str(number) if exchange != "bybit" else f"{number * 7919 % 1000003:08x}-uuid",
        price=f"{tick // 100}.{tick % 100:02d}",
        amount=f"{lot // 1000}.{lot % 1000:03d}00",
        side=("buy", "sell", "sell")[(number + lot) % 3],
        trade_time_us=time_us,
        receive_time_us=time_us + 30_000,
    )


def exchange_candle(exchange: str, symbol: str, open_us: int, tick: int) -> Candle:
    return Candle(
        exchange=exchange, symbol=symbol, timeframe="1m", open_time_us=open_us,
        open=f"{tick}.5", high=f"{tick + 9}.0", low=f"{tick - 9}.25", close=f"{tick + 1}.75",
        volume="123.4560", quote_volume=None, buy_volume="7", trade_count=None,
        first_trade_id=None, last_trade_id=None, revision=0,
        source="exchange", coverage="exchange",
    )  # fmt: skip


STEPS_US = (0, 0, 1_000, 700_000, 9_000_000, 31_000_000, 130_000_000)


def story_of(
    random: Random, count: int, exchange: str = "binance", symbol: str = "BTC/USDT"
) -> Story:
    """Trades in id order; some twice, some late, some never; heartbeats and exchange candles."""
    first_id = random.choice([1, 98, 3_735_683_259])
    time_us = START_US + random.randint(0, 6 * MINUTE_US)
    trades = []
    for number in range(first_id, first_id + count):
        tick, lot = random.randint(9_990, 10_010), random.randint(1, 5000)
        trades.append(trade_of(exchange, symbol, number, time_us, tick, lot))
        time_us += random.choice(STEPS_US)
    fates = [random.choice("......dln") for _ in trades]
    fates[0] = fates[-1] = "."
    arriving: list[tuple[float, Any]] = []
    for index, (trade, fate) in enumerate(zip(trades, fates, strict=True)):
        if fate in ".d":
            arriving.append((index, trade))
        if fate == "d":
            arriving.append((index + random.uniform(0.1, 9), replace_receipt(trade)))
        if fate == "l":
            arriving.append((index + random.uniform(1.1, 30), trade))
        if random.random() < 0.2 and index + 1 < count:
            until_us = random.randint(trade.trade_time_us, trades[index + 1].trade_time_us)
            heartbeat = Heartbeat(
                exchange=exchange, symbol=symbol, complete_until_us=until_us, state="live"
            )
            # A heartbeat never passes a trade that was held back and not yet given up.
            if fates[index + 1] == "." and fate == ".":
                arriving.append((index + 0.01, heartbeat))
    for open_us in sorted({trade.trade_time_us // MINUTE_US * MINUTE_US for trade in trades}):
        if random.random() < 0.3:
            after = [i for i, t in enumerate(trades) if t.trade_time_us >= open_us + MINUTE_US]
            at = after[0] if after else count
            candle = exchange_candle(exchange, symbol, open_us, random.randint(50, 60))
            arriving.append((at + random.uniform(0.02, 0.9), candle))
    arriving.sort(key=lambda pair: pair[0])
    last_us = trades[-1].trade_time_us // MINUTE_US * MINUTE_US
    end = Heartbeat(
        exchange=exchange, symbol=symbol, complete_until_us=last_us + 62 * SECOND_US, state="live"
    )
    return Story(exchange, symbol, [event for _, event in arriving] + [end])


def with_ids(random: Random, story: Story) -> Story:
    """Let some ids of a story belong to no trade; neighbours that arrive so are one run."""
    numbers = sorted({int(event.trade_id) for event in story.events if isinstance(event, Trade)})
    passed = {number for number in numbers if random.random() < 0.3} - set(numbers[-1:])
    events: list[Any] = []
    for event in story.events:
        if not isinstance(event, Trade) or int(event.trade_id) not in passed:
            events.append(event)
            continue
        number, time_us, last = int(event.trade_id), event.trade_time_us, event.trade_id
        before = events[-1] if events else None
        if isinstance(before, Ids) and int(before.last_trade_id) == number - 1:
            number = int(before.first_trade_id)
            events.pop()
        events.append(
            Ids(
                exchange=story.exchange, symbol=story.symbol, first_trade_id=str(number),
                last_trade_id=last, time_us=time_us, reason="no_trade",
            )
        )  # fmt: skip
    # Candles of the exchange before the first trade would be all that is known of their minutes.
    traded_us = min(event.trade_time_us for event in events if isinstance(event, Trade))
    return Story(
        story.exchange,
        story.symbol,
        [e for e in events if not isinstance(e, Candle) or e.open_time_us + MINUTE_US > traded_us],
    )


def replace_receipt(trade: Trade) -> Trade:
    return Trade(**{name: getattr(trade, name) for name in trade.__struct_fields__})


# --- the slow, obvious reference ------------------------------------------------------------------


@dataclass
class Expected:
    """A candle in numbers."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote: Decimal | None
    buy: Decimal | None
    count: int | None
    ids: tuple[str | None, str | None]
    coverage: str
    source: str
    minutes: int = 1

    @property
    def is_empty(self) -> bool:
        return self.volume == 0


def reference(story: Story) -> dict[tuple[str, int], Expected]:
    """Return the final candles of a story whose ids are consecutive, from its events as a set."""
    arrived = [event for event in story.events if isinstance(event, Trade)]
    first = int(arrived[0].trade_id)
    passed = [event for event in story.events if isinstance(event, Ids)]
    first = min([first, *(int(ids.first_trade_id) for ids in story.events[:1] if ids in passed)])
    trades = {int(trade.trade_id): trade for trade in arrived if int(trade.trade_id) >= first}
    times = {number: trade.trade_time_us for number, trade in trades.items()}
    times |= {
        number: ids.time_us
        for ids in passed
        for number in range(int(ids.first_trade_id), int(ids.last_trade_id) + 1)
        if number >= first
    }
    missing: list[tuple[int, int]] = []
    known = sorted(times)
    for before, after in pairwise(known):
        if after > before + 1:
            missing.append((times[before], times[after]))
    until_us = story.events[-1].complete_until_us - 2 * SECOND_US
    theirs = {e.open_time_us: e for e in story.events if isinstance(e, Candle)}
    minutes: dict[int, Expected] = {}
    close: Decimal | None = None
    first_minute = times[first] // MINUTE_US * MINUTE_US
    for open_us in range(first_minute, until_us // MINUTE_US * MINUTE_US, MINUTE_US):
        inside = [
            trades[number]
            for number in sorted(trades)
            if open_us <= times[number] < open_us + MINUTE_US
        ]
        inside.sort(key=lambda trade: (trade.trade_time_us, int(trade.trade_id)))
        has_gap = any(start < open_us + MINUTE_US and end >= open_us for start, end in missing)
        coverage = "gap" if has_gap else "partial" if open_us <= times[first] else "contiguous"
        ours = of_trades(inside, coverage)
        if ours is None and not has_gap and close is not None:
            zero = Decimal(0)
            ours = Expected(
                close, close, close, close, zero, zero, zero, 0, (None, None), coverage, "trades"
            )
        if open_us in theirs and (ours is None or ours.coverage in ("partial", "gap")):
            ours = of_exchange(theirs[open_us])
        if ours is not None:
            minutes[open_us] = ours
            close = ours.close
    # Before the first trade there is no price, so nothing to know.
    first_minute = min(minutes, default=first_minute)
    return with_rollups(minutes, until_us // MINUTE_US * MINUTE_US, first_minute)


def of_trades(inside: list[Trade], coverage: str) -> Expected | None:
    if not inside:
        return None
    prices = [Decimal(trade.price) for trade in inside]
    amounts = [Decimal(trade.amount) for trade in inside]
    return Expected(
        prices[0], max(prices), min(prices), prices[-1], sum(amounts, Decimal(0)),
        sum((p * a for p, a in zip(prices, amounts, strict=True)), Decimal(0)),
        sum((Decimal(t.amount) for t in inside if t.side == "buy"), Decimal(0)), len(inside),
        (inside[0].trade_id, inside[-1].trade_id), coverage, "trades",
    )  # fmt: skip


def of_exchange(candle: Candle) -> Expected:
    return Expected(
        Decimal(candle.open), Decimal(candle.high), Decimal(candle.low), Decimal(candle.close),
        Decimal(candle.volume), None, Decimal(candle.buy_volume or 0), None, (None, None),
        "exchange", "exchange",
    )  # fmt: skip


def with_rollups(
    minutes: dict[int, Expected], until_us: int, first_minute: int
) -> dict[tuple[str, int], Expected]:
    candles = {("1m", open_us): expected for open_us, expected in minutes.items()}
    for name in PUBLISHED_TIMEFRAMES[1:]:
        timeframe = get_timeframe(name)
        for open_us in {timeframe.open_time_us(minute) for minute in minutes}:
            close_us = open_us + timeframe.duration_us
            if close_us > until_us:
                continue
            parts = [minutes[m] for m in sorted(minutes) if open_us <= m < close_us]
            wanted = (close_us - max(open_us, first_minute)) // MINUTE_US
            worst = max(parts, key=lambda part: COVERAGE_ORDER.index(part.coverage)).coverage
            if first_minute > open_us and worst != "gap":
                worst = "partial"
            if len(parts) < wanted:
                worst = "gap"
            candles[name, open_us] = together(parts, worst)
    return candles


def together(parts: list[Expected], coverage: str) -> Expected:
    full = [part for part in parts if not part.is_empty] or parts[:1]

    def total(values: list[Any]) -> Any:
        return None if None in values else sum(values)

    sources = {part.source for part in parts}
    return Expected(
        full[0].open, max(p.high for p in full), min(p.low for p in full), full[-1].close,
        sum((p.volume for p in full), Decimal(0)), total([p.quote for p in full]),
        total([p.buy for p in full]), total([p.count for p in full]),
        (full[0].ids[0], full[-1].ids[1]), coverage,
        "mixed" if len(sources) > 1 else sources.pop(),
    )  # fmt: skip


def found_candles(outputs: Outputs) -> dict[tuple[str, int], Expected]:
    """Return the newest revision of each window that a kernel published."""
    newest: dict[tuple[str, int], Candle] = {}
    for name, records in outputs.items():
        if not name.startswith("market.candles."):
            continue
        for _, value in records:
            candle = decode_event(value)
            assert isinstance(candle, Candle)
            window = (candle.timeframe, candle.open_time_us)
            assert window not in newest or newest[window].revision < candle.revision
            newest[window] = candle
    return {window: as_expected(candle) for window, candle in newest.items()}


def as_expected(candle: Candle) -> Expected:
    def number(text: str | None) -> Decimal | None:
        return None if text is None else Decimal(text)

    return Expected(
        Decimal(candle.open), Decimal(candle.high), Decimal(candle.low), Decimal(candle.close),
        Decimal(candle.volume), number(candle.quote_volume), number(candle.buy_volume),
        candle.trade_count, (candle.first_trade_id, candle.last_trade_id),
        candle.coverage, candle.source,
    )  # fmt: skip


def rounded(expected: Expected) -> Expected:
    if expected.quote is None:
        return expected
    return replace(
        expected,
        quote=expected.quote.quantize(Decimal("1e-12"), ROUND_HALF_EVEN, context=_WIDE),
    )


# --- running --------------------------------------------------------------------------------------

CONFIG = ProcessorConfig(dead_letter_run_max=10**6, dead_letter_ratio_max=1.0)


def feed(kernel: Kernel, log: Log, start: int, stop: int) -> None:
    keys, values = zip(*log[start:stop], strict=True) if stop > start else ((), ())
    kernel.process(EncodedRecords.of(range(start, stop), keys, values), KAFKA_MS, stop)


def run_at_once(log: Log, config: ProcessorConfig = CONFIG) -> Outputs:
    kernel = Kernel(config, "ingest.events.v1", 0)
    feed(kernel, log, 0, len(log))
    return {name: list(records) for name, records in kernel.drain_outputs().items() if records}


def run_with_restarts(log: Log, cuts: list[tuple[int, bool]], record_bytes_max: int) -> Outputs:
    """Run in batches that end at the cuts; at some, everything since the last commit is lost."""
    config = replace(CONFIG, state_record_bytes_max=record_bytes_max)
    kernel, writer = Kernel(config, "ingest.events.v1", 0), StateWriter(record_bytes_max)
    stored: dict[bytes, bytes] = {}
    done: Outputs = {}
    for stop, is_killed in [*cuts, (len(log), False)]:
        stop = min(stop, len(log))
        if stop <= kernel.position:
            continue
        feed(kernel, log, kernel.position, stop)
        if is_killed and stored:
            kernel = Kernel(config, "ingest.events.v1", 0)
            writer = restore(kernel, stored)
            feed(kernel, log, kernel.position, stop)
        for name, records in kernel.drain_outputs().items():
            if records:
                done.setdefault(name, []).extend(records)
        stored.update(writer.snapshot(kernel))
        assert all(len(value) <= record_bytes_max + 64 for value in stored.values())
    return done


cuts_of = st.lists(st.tuples(st.integers(0, 250), st.booleans()), max_size=12).map(
    lambda cuts: sorted(cuts)
)
thorough = settings(max_examples=100, deadline=None, print_blob=True)
# A log is made from a seed: drawing every trade from hypothesis is a hundred times slower.
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 40)


# --- properties -----------------------------------------------------------------------------------


@thorough
@given(seeds, sizes)
def test_candles_equal_a_slow_recomputation_from_the_set_of_trades(seed: int, count: int) -> None:
    story = story_of(Random(seed), count)
    found = found_candles(run_at_once(story.log()))
    expected = {window: rounded(candle) for window, candle in reference(story).items()}

    assert found.keys() == expected.keys()
    for window, candle in expected.items():
        assert found[window] == candle, window


@thorough
@given(seeds, sizes)
def test_ids_of_no_trade_count_for_everything_but_the_candles(seed: int, count: int) -> None:
    random = Random(seed)
    story = with_ids(random, story_of(random, count))
    found = run_at_once(story.log())
    expected = {window: rounded(candle) for window, candle in reference(story).items()}

    assert found_candles(found) == expected
    assert found == run_at_once(story.log(), replace(CONFIG, compiled=False))
    cuts = [(cut, cut % 2 == 0) for cut in range(1, 60)]
    assert found == run_with_restarts(story.log(), cuts, 900)
    assert "market.deadletters.v1" not in found
    stored = [decode_event(value) for _, value in found.get("market.ids.v1", ())]
    assert [ids for ids in stored if ids not in story.events] == []


@thorough
@given(seeds, sizes)
def test_order_of_healing_does_not_change_the_final_candles(seed: int, count: int) -> None:
    """The head keeps its order; what heals a hole may come at any time after it."""
    random = Random(seed)
    story = story_of(random, count)
    head = 0
    ordered, healing = [], []
    for event in story.events:
        if isinstance(event, Trade) and int(event.trade_id) <= head:
            healing.append(event)
            continue
        if isinstance(event, Trade):
            head = int(event.trade_id)
        ordered.append(event)
    end = ordered.pop()
    for trade in healing:
        above = next(
            index
            for index, event in enumerate(ordered)
            if isinstance(event, Trade) and int(event.trade_id) >= int(trade.trade_id)
        )
        ordered.insert(random.randint(above + 1, len(ordered)), trade)
    shuffled = Story(story.exchange, story.symbol, [*ordered, end])

    found = found_candles(run_at_once(shuffled.log()))

    assert found == found_candles(run_at_once(story.log()))


def rubbish(random: Random) -> bytes:
    whole = encode(trade_of("binance", "BTC/USDT", 5, START_US, 10_000, 1))
    return random.choice(
        [
            random.randbytes(20),
            whole[: random.randint(0, len(whole))],
            whole.replace(b'"100.00"', b'"-1.00"'),
            whole.replace(b'"100.00"', b'"1E-8"'),
            whole.replace(b'"price"', b'"price":"7","price"'),
            whole.replace(b'{"event"', b'{"price":"7","event"'),
            b"[]",
            b"null",
        ]
    )


def mixed_log(random: Random, count: int) -> Log:
    """Several symbols of one partition, a history job and rubbish, woven into one log."""
    parts = [
        story_of(random, count).log(),
        story_of(random, count, "kraken", "ETH/EUR").log(),
        story_of(random, count, "bybit", "SOL/USDT").log(),
        history_of(story_of(random, count, "binance", "ADA/USDT")),
        [(b"binance:BTC/USDT", rubbish(random)) for _ in range(random.randint(0, 5))],
    ]
    log: Log = []
    while any(parts):
        log.append(random.choice([part for part in parts if part]).pop(0))
    return log


def history_of(story: Story) -> Log:
    trades = [event for event in story.events if isinstance(event, Trade)]
    start_us = min(trade.trade_time_us for trade in trades) // MINUTE_US * MINUTE_US
    end_us = max(trade.trade_time_us for trade in trades) // MINUTE_US * MINUTE_US + MINUTE_US
    marker = HistoryMarker(
        exchange=story.exchange, symbol=story.symbol, job="j1", edge="start", timeframe=None,
        start_time_us=start_us, end_time_us=end_us,
    )  # fmt: skip
    inside = [
        Trade(**{name: getattr(t, name) for name in t.__struct_fields__ if name != "job"}, job="j1")
        for t in sorted(trades, key=lambda trade: int(trade.trade_id))
    ]
    end = HistoryMarker(
        **{n: getattr(marker, n) for n in marker.__struct_fields__ if n != "edge"}, edge="end"
    )
    gap = Gap(
        exchange=story.exchange, symbol=story.symbol, first_trade_id=None, last_trade_id=None,
        start_time_us=start_us, end_time_us=end_us, status="open", reason="test",
    )  # fmt: skip
    return Story(story.exchange, story.symbol, [gap, marker, *inside, end]).log()


@thorough
@given(seeds, sizes, cuts_of, st.sampled_from([300, 4_000, 512 * 1024]))
def test_batches_and_restarts_do_not_change_a_byte(
    seed: int, count: int, cuts: list[tuple[int, bool]], record_bytes_max: int
) -> None:
    log = mixed_log(Random(seed), count)

    assert run_with_restarts(log, cuts, record_bytes_max) == run_at_once(log)


@thorough
@given(seeds, sizes)
def test_with_and_without_the_compiled_loop_the_bytes_are_the_same(seed: int, count: int) -> None:
    log = mixed_log(Random(seed), count)

    assert run_at_once(log, replace(CONFIG, compiled=False)) == run_at_once(log)


@thorough
@given(seeds, sizes)
def test_one_second_candles_leave_the_longer_ones_as_they_are(seed: int, count: int) -> None:
    # The exchange's minute stands in for no single second, so the close that an empty second
    # repeats may differ; and without ids a late trade may find its minute but not its second.
    log = mixed_log(Random(seed), count)
    log = [
        (key, value)
        for key, value in log
        if b'"event":"candle"' not in value and not key.startswith(b"bybit")
    ]
    plain = found_candles(run_at_once(log))
    fine = found_candles(run_at_once(log, replace(CONFIG, one_second_candles=True)))

    minutes = {w: c for w, c in fine.items() if w[0] != "1s" and c.coverage != "gap"}
    for window, candle in minutes.items():
        assert plain[window] == candle
