"""What a benchmark makes of its runs: figures that each of them bears out."""

from typing import Any

from benchmarks.end_to_end import figures_of
from benchmarks.end_to_end_run import is_held


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
