"""The oracle, the plan and the link of the soak can fail: each kind of damage is found."""

import asyncio
import os
import re
import signal
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from alpha_pulse.contracts.market import MINUTE_US, PUBLISHED_TIMEFRAMES
from alpha_pulse.replay.exchange.faults import TRADE_PATHS, FaultPlan, RestFault, StreamFault
from alpha_pulse.replay.markets.recording import GRACE_US
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from alpha_pulse.replay.verdict import StoredCandle, StoredTrade, recompute_candles
from tests.faults.link import Link
from tests.faults.soak.judge import alarms, endings, failures
from tests.faults.soak.oracle import Published, judge_candles, judge_trades
from tests.faults.soak.plan import LASTS_S, ROLES, SCENARIOS, plan_scenario, plan_soak
from tests.faults.soak.samples import Samples, catches

ROOT = Path(__file__).parents[2]
MARKET = SyntheticMarket("BTC/USDT", 5, trades_per_minute=60)
FIRST = MARKET.position_at(BEGIN_US + 20_000_000)
SECOND_MINUTE = MARKET.position_at(BEGIN_US + MINUTE_US)
END = MARKET.position_at(BEGIN_US + 7 * MINUTE_US)
PUBLISHED = Published(MARKET, FIRST, END)
END_US = BEGIN_US + 6 * MINUTE_US + GRACE_US


def stored_trades() -> list[StoredTrade]:
    return [
        StoredTrade(str(r.trade_id), r.trade_time_us, Decimal(r.price), Decimal(r.amount), r.side)
        for r in PUBLISHED.rows
    ]


def stored_candles() -> list[StoredCandle]:
    """As the pipeline would: the first minute is the exchange's own, whole."""
    rows = MARKET.rows(MARKET.position_at(BEGIN_US), END)
    ids = [str(row.trade_id) for row in rows]
    return [
        StoredCandle(
            timeframe=timeframe,
            source="exchange" if candle["open_time_us"] == BEGIN_US else "trades",
            coverage="exchange" if candle["open_time_us"] == BEGIN_US else "contiguous",
            **candle,
        )
        for timeframe in PUBLISHED_TIMEFRAMES
        for candle in recompute_candles(ids, rows, END_US, timeframe)
    ]


def test_what_was_stored_as_it_was_printed_is_equal() -> None:
    figures = judge_trades(PUBLISHED, stored_trades(), [])
    assert (figures.lost, figures.altered, figures.republished) == (0, 0, 0)
    assert figures.found == figures.published == END - FIRST > 300
    compared = judge_candles(PUBLISHED, stored_trades(), stored_candles(), END_US)
    assert compared.equal == compared.compared == 7


def test_a_minute_before_the_first_trade_may_be_known_from_the_exchange() -> None:
    published = Published(MARKET, SECOND_MINUTE, END)
    trades = stored_trades()[SECOND_MINUTE - FIRST :]
    assert int(trades[0].trade_id) == published.rows[0].trade_id
    candles = stored_candles()
    compared = judge_candles(published, trades, candles, END_US)
    assert compared.equal == compared.compared == 7
    wrong = candles[0]._replace(volume=Decimal(1))
    compared = judge_candles(published, trades, [wrong, *candles[1:]], END_US)
    assert compared.compared - compared.equal == 1


def lost(trades: list[StoredTrade]) -> None:
    del trades[7]


def doubled(trades: list[StoredTrade]) -> None:
    trades.append(trades[7])


def altered(trades: list[StoredTrade]) -> None:
    trades[7] = trades[7]._replace(amount=trades[7].amount + Decimal("0.000000000001"))


def invented(trades: list[StoredTrade]) -> None:
    trades.append(trades[7]._replace(trade_id="1"))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lost, {"lost": 1, "republished": 0, "altered": 0}),
        (doubled, {"lost": 0, "republished": 1, "altered": 0}),
        (altered, {"lost": 0, "republished": 0, "altered": 1}),
        (invented, {"lost": 0, "republished": 0, "altered": 1}),
    ],
)
def test_each_damage_to_a_trade_is_counted(
    damage: Callable[[list[StoredTrade]], None], found: dict[str, int]
) -> None:
    trades = stored_trades()
    damage(trades)
    figures = judge_trades(PUBLISHED, trades, [])
    assert {name: getattr(figures, name) for name in found} == found


def test_what_a_recorded_gap_covers_is_not_lost() -> None:
    trades = stored_trades()
    first, last = int(trades[10].trade_id), int(trades[19].trade_id)
    del trades[10:20]
    assert judge_trades(PUBLISHED, trades, []).lost == 10
    assert judge_trades(PUBLISHED, trades, [(first, last)]).lost == 0
    assert judge_trades(PUBLISHED, trades, [(first + 1, last)]).lost == 1


@pytest.mark.parametrize(
    "change",
    [
        {"close": Decimal(1)},
        {"quote_volume": Decimal(1)},
        {"buy_volume": None},
        {"trade_count": 0},
        {"last_trade_id": "1"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_candle_that_differs_in_any_field_is_found(change: dict[str, Any]) -> None:
    candles = stored_candles()
    candles[2] = candles[2]._replace(**change)
    compared = judge_candles(PUBLISHED, stored_trades(), candles, END_US)
    assert compared.compared - compared.equal == 1
    assert list(compared.different[0]["differences"]) == list(change)


def test_a_candle_that_is_missing_is_found() -> None:
    compared = judge_candles(PUBLISHED, stored_trades(), stored_candles()[:-2], END_US)
    assert compared.compared - compared.equal == 2


def test_a_seed_is_one_plan_and_a_long_plan_has_every_accident() -> None:
    plan = plan_soak(3, 3_600)
    assert plan == plan_soak(3, 3_600) != plan_soak(4, 3_600)
    assert {(accident.kind, accident.role) for accident in plan} == set(LASTS_S)
    assert max(accident.at_s + accident.seconds for accident in plan) <= 3_600
    assert plan_scenario("terminate", 1) == plan_scenario("terminate", 1)
    assert len(plan_scenario("kill sink", 1, times=20)) == 20


def test_growth_is_not_flat() -> None:
    steady, leaking = Samples(), Samples()
    for second in range(300):
        steady.add("sink", second, {"rss_mib": 100 + second % 7, "threads": 7})
        leaking.add("sink", second, {"rss_mib": 100 + second, "threads": 7})
    assert steady.verdict(300)["sink"]["rss_mib"]["flat"]
    assert not leaking.verdict(300)["sink"]["rss_mib"]["flat"]
    assert leaking.verdict(300)["sink"]["threads"]["flat"]


def test_a_handler_is_seen_from_outside() -> None:
    # Not SIGINT: what a shell starts in the background ignores that one from the beginning.
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert catches(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not catches(os.getpid(), signal.SIGUSR2)
    assert not catches(2**30, signal.SIGUSR1)


def test_endings_are_read_from_what_the_supervisor_says() -> None:
    log = (
        "sink ended with exit code 137; it starts again in 0.5 s (log: x)\n"
        "sink: batch.retried ended with exit code 3\n"
        "processor-1 ended with exit code 0; it starts again in 1.0 s (log: x)\n"
    )
    assert endings(log) == {"processor-1": {"0": 1}, "sink": {"137": 1}}
    assert alarms(log) == {"batch.retried": 1}


_TRADES = {"published": 9, "lost": 0, "altered": 0, "republished": 0, "duplicated": 0}
GOOD: dict[str, Any] = {
    "kafka": _TRADES, "clickhouse": _TRADES, "candles": {"equal": 5, "compared": 5},
    "accidents": [{}], "unseen": 0, "exit_code": 0, "terminated_s": [], "reconnected_s": None,
    "dead_letters": {}, "endings": {}, "alarms": {"commit.failed": 3}, "flat": {}, "seconds": 40,
}  # fmt: skip


def test_a_dead_letter_an_ending_and_a_disk_that_nobody_told_of_are_failures() -> None:
    plan = SCENARIOS["full disk"]
    assert failures(GOOD, plan) == []
    for damage, found in (
        ({"dead_letters": {"refused_by_clickhouse": 1}}, "no dead letter"),
        ({"endings": {"sink": {"1": 1}}}, "every role to stay up"),
        ({"alarms": {}}, "the full disk to be told"),
        ({"reconnected_s": 6.0}, "streams back in 5 s"),
    ):
        (line,) = failures({**GOOD, **damage}, plan)
        assert found in line


def test_a_kill_that_met_nobody_is_a_failure() -> None:
    plan = plan_scenario("kill sink", 1, times=3)
    good = {**GOOD, "accidents": [{}] * 3, "endings": {"sink": {"137": 3, "1": 1}}}
    assert failures(good, plan) == []
    (line,) = failures({**good, "endings": {"sink": {"137": 2, "1": 1}}}, plan)
    assert "expected 3 kills of sink, found 2" in line


def test_a_fault_that_is_added_happens_next() -> None:
    plan = FaultPlan(stream=[StreamFault("close", at_trade=50)])
    plan.take_rest("api/v3/historicalTrades")
    plan.add(StreamFault("drop", at_trade=999, trades=3))
    assert plan.next_at_trade == 0
    taken = plan.take_stream(10)
    assert taken is not None
    assert (taken.kind, taken.trades) == ("drop", 3)
    assert plan.take_stream(10) is None
    for _ in range(2):
        plan.add(RestFault("http429", 0, path=TRADE_PATHS))
    assert plan.take_rest("api/v3/klines") is None
    kinds = [plan.take_rest("api/v3/historicalTrades") for _ in range(3)]
    assert [fault.kind if fault else None for fault in kinds] == ["http429", "http429", None]


async def test_a_link_cuts_holds_answers_and_heals() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Link(server.sockets[0].getsockname()[1]).serve() as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        link.hold()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(3), 0.1)
        link.heal()
        writer.write(b"six")
        assert await reader.readexactly(6) == b"twosix", "a hold loses nothing"
        link.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(100)
        link.answer(b"HTTP/1.1 503 No\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        assert await reader.read() == b"HTTP/1.1 503 No\r\n\r\n"
        writer.close()


def test_the_page_of_faults_names_tests_and_scenarios_that_exist() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    files = set(re.findall(r"`([a-z_]+/test_[a-z_]+\.py)`", page))
    assert len(files) > 15
    assert [name for name in files if not (ROOT / "tests" / name).exists()] == []
    named = re.findall(r"`(?:scenarios)?\[([a-z0-9 -]+)\]`", page)
    known = {*SCENARIOS, "terminate", *(f"kill {role}" for role in ROLES)}
    assert set(named) == known
