"""The README's table of figures, written from the newest run of each benchmark that was kept.

`python -m benchmarks table` writes it; a test compares it with what stands there.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import newest

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures: `python -m benchmarks table` -->", "<!-- end of figures -->"
PEERS = {
    "streams-eos": "Kafka Streams exactly once",
    "streams-alos": "Kafka Streams at least once",
    "quix": "Quix Streams, 1m candles alone",
}


@dataclass(frozen=True)
class Row:
    """A line of the table: of which benchmark, what, how its figures say it, what was aimed at.

    figure: the one without which a run does not count for this line; "": any run does.
    """

    benchmark: str
    what: str
    say: Callable[[dict[str, Any]], str]
    aim: str
    figure: str = ""


def _of(figures: list[dict[str, Any]], name: str, key: str) -> Any:
    return next((one[key] for one in figures if one["name"] == name), None)


def _exactness(results: list[dict[str, Any]], name: str) -> str:
    exact = _of(results, name, "exact")
    return "stopped after its time" if exact == "cut off" else f"{exact} candles exact"


ROWS = (
    Row(
        "producers",
        "Binance's frames to Kafka records, per CPU-second",
        lambda f: (
            f"{f['records_per_cpu_s']['ours']:,}: {f['times']['ccxt']} x ccxt.pro with one send "
            f"per trade, {f['times']['cryptofeed']} x cryptofeed; {f['lost']} lost"
        ),
        "12 x, 2 x",
        "records_per_cpu_s",
    ),
    Row(
        "producers",
        "the same of each exchange, beside ccxt.pro",
        lambda f: ", ".join(
            f"{name} {one['records_per_cpu_s']['ours']:,}: {one['times']['ccxt']} x"
            for name, one in f["exchanges"].items()
        ),
        "10 x each",
        "exchanges",
    ),
    Row(
        "processors",
        "trades to candles of seven timeframes, exactly once, per CPU-second",
        lambda f: (
            f"{_of(f['results'], 'ours', 'trades_per_cpu_s'):,} in "
            f"{_of(f['results'], 'ours', 'rss_mib')} MiB: "
            + ", ".join(
                f"{ratio} x {PEERS.get(name, name)} ({_exactness(f['results'], name)}, "
                f"{_of(f['results'], name, 'rss_mib')} MiB)"
                for name, ratio in f["times"].items()
            )
        ),
        "2.5 x Kafka Streams, 20 x Quix Streams",
    ),
    Row(
        "sinks",
        "Kafka to ClickHouse, rows per second",
        lambda f: (
            f"{f['median_rows_per_s']['sink']:,.0f}: {f['times_kafka_engine']} x ClickHouse's own "
            f"Kafka engine, {f['share_of_limit']} of what inserts without Kafka reach"
        ),
        "1.5 x, 0.6",
    ),
    Row(
        "history",
        "history: an exchange's REST to rows that SQL sees, 1m candles per second",
        lambda f: (
            f"{f['candles_per_s']:,} of {f['symbols']} symbols through all roles, "
            f"{f['cpu_us_per_candle_in_all']:.0f} us of CPU each, the exchange's own included"
            + (
                f"; {f['limited_share_of_allowed']} of what a limit allows"
                if "limited_share_of_allowed" in f
                else ""
            )
        ),
        "20,000, 0.9",
    ),
    Row(
        "end_to_end",
        "exchange frame to a row that SQL sees, all roles on one machine",
        lambda f: (
            f"{f['rate']:,.0f} trades/s for {f['seconds']:.0f} s: "
            f"p50 {f['trade_in_clickhouse_ms']['p50'] / 1000:.2f} s, "
            f"p99 {f['trade_in_clickhouse_ms']['p99'] / 1000:.2f} s; closed candle p99 "
            f"{f['candle_in_clickhouse_ms']['p99'] / 1000:.2f} s"
        ),
        "15,000 for 180 s, p99 2 s; 2 s",
    ),
)


def table() -> str:
    """Return the table, with the machine and the day of each figure."""
    lines = ["| what | measured | aim | when, where |", "| --- | --- | --- | --- |"]
    for row in ROWS:
        run = newest(row.benchmark, row.figure)
        if run is None:
            continue
        machine = run["machine"]
        where = f"{run['at'][:10]}, {machine['cores']} cores, load {run['load_before']:.1f}"
        lines.append(f"| {row.what} | {row.say(run['figures'])} | {row.aim} | {where} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the table into the README."""
    text = README.read_text()
    if BEGIN not in text or END not in text:
        print(f"expected {BEGIN} and {END} in {README}, found none", file=sys.stderr)
        return 1
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table()}{END}{after}")
    return 0
