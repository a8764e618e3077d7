"""What a benchmark makes of its runs: figures that each of them bears out."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alpha_pulse.producers.exchanges.registry import ExchangeType
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.dialects.sockets import Channel
from alpha_pulse.replay.markets.feeds import Feed
from benchmarks import producers, results
from benchmarks.end_to_end import figures_of
from benchmarks.end_to_end_run import is_held
from benchmarks.producers_flood import SYMBOL, FloodMarket


def a_run(rate: float, seconds: float, *, held: bool, p99_ms: float = 1_000.0) -> dict[str, Any]:
    return {
        "rate": rate, "seconds": seconds, "held": held, "symbols": 20, "partitions": 2,
        "stored_rows": 0, "trade_in_clickhouse_ms": {"p99": p99_ms}, "roles": {}, "trades": 1,
    }  # fmt: skip


def test_the_highest_rate_is_one_that_was_held_whole_and_in_each_round() -> None:
    runs = [
        a_run(40_000, 60, held=True),  # of the search
        a_run(40_000, 180, held=True),
        a_run(40_000, 180, held=False),  # so 40,000 is not held
        a_run(30_000, 180, held=True, p99_ms=1_300),
        a_run(30_000, 180.4, held=True, p99_ms=1_100),
        a_run(30_000, 180, held=True, p99_ms=1_200),
    ]
    figures = figures_of(runs)
    assert figures is not None
    assert (figures["highest_rate_held"], figures["rounds"]) == (30_000, 3)
    assert figures["p99_ms_of_rounds"] == [1_100, 1_200, 1_300]
    assert figures["trade_in_clickhouse_ms"]["p99"] == 1_200
    assert len(figures["runs"]) == 5


def test_without_a_rate_that_was_held_there_is_no_figure() -> None:
    assert figures_of([]) is None
    assert figures_of([a_run(10, 180, held=False)]) is None


def test_a_rate_is_held_by_who_keeps_up_and_is_fast() -> None:
    fast = {"trade_in_clickhouse_ms": {"p99": 1_300.0}}
    young = {"first_third": 0.8, "last_third": 0.9}
    assert is_held(young, fast)
    assert not is_held({"first_third": 0.8, "last_third": 1.4}, fast)
    assert not is_held({"first_third": 2.0, "last_third": 2.1}, fast)
    # It caught up in the end, and most of its trades were late.
    assert not is_held(young, {"trade_in_clickhouse_ms": {"p99": 5_600.0}})
    assert not is_held(young, {"trade_in_clickhouse_ms": {}})


def test_a_line_of_the_table_is_of_the_newest_run_that_has_its_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    runs = [{"figures": {"all": 1}}, {"figures": {"all": 2, "one": 2}}, {"figures": {"one": 3}}]
    (tmp_path / "some.ndjson").write_text("".join(json.dumps(run) + "\n" for run in runs))
    assert results.newest("some") == runs[2]
    assert results.newest("some", "all") == runs[1]
    assert results.newest("some", "another") is None
    assert results.newest("others") is None


@pytest.mark.parametrize("name", sorted(producers.TRADES_PER_FRAME))
def test_a_flood_fills_frames_as_the_exchange_does(name: str) -> None:
    per_frame = producers.TRADES_PER_FRAME[name]
    kind = DIALECTS[name]
    symbol = kind.unified_symbol(SYMBOL)
    market = FloodMarket(symbol, [("1.5", "2", "buy"), ("1.6", "2", "sell")], per_frame)
    dialect = kind([Feed(market, symbol)], Options())
    socket: Any = SimpleNamespace(path="/ws", next_sequence=lambda: 1)
    channel = Channel("trades", symbol, "btcusdt@trade")
    frames = dialect.trade_frames(socket, channel, market.rows(0, 12))
    assert len(frames) == 12 // per_frame


def test_each_exchange_with_a_decoder_is_measured() -> None:
    assert set(producers.TRADES_PER_FRAME) == {exchange.value for exchange in ExchangeType}
