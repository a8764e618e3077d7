"""How long from an exchange's frame to a row that SQL sees, all roles on this machine.

`python -m benchmarks end_to_end [--rates N,…] [--for SECONDS] [--rounds N] [--symbols N,…]
[--stored ROWS,…] [--partitions N] [--highest] [--json]`: replay exchange, producer, processor, sink
as processes, embedded Kafka and ClickHouse, default settings, partitions as `up` makes them. A
trade's time is the exchange's clock, at or before its frame goes out; a closed candle's is its
minute's end plus the grace. Every figure includes the watching.
--rates, --symbols, --stored: lists; each combination is a run. --highest: doubles the rate until it
is not held, halves the interval in between, and holds the highest once more for the whole time.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from alpha_pulse.cli.pipeline.servers import fitting_partitions
from alpha_pulse.embedded.runtime import Runtime
from benchmarks.end_to_end_run import Load, run
from benchmarks.processes import fit
from benchmarks.results import machine, versions

SEARCH_S = 60.0
# The search ends when the highest rate held and the lowest one not held are so near.
NEAR = 1.15
DOUBLINGS_MAX = 8
BACK_OFF = 0.9


def main(arguments: list[str]) -> int:
    """Run the benchmark; return the exit code: 0 when a rate was held."""
    options = parse(arguments)
    print(json.dumps({"machine": machine(), "versions": versions()}), file=sys.stderr)
    runs = asyncio.run(run_all(options))
    figures = figures_of(runs)
    if figures is None:
        return 1
    if figures["fit"]:
        print("\n".join(_fit_lines(figures["fit"])), file=sys.stderr)
    if options.json:
        print(json.dumps(figures))
    return 0


def figures_of(runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the median round of the highest rate that was held in each of its rounds, or None.

    Only the longest runs count: the shorter ones of a search promise nothing.
    """
    longest_s = max((each["seconds"] for each in runs), default=0.0)
    whole = [each for each in runs if longest_s - each["seconds"] < 1.0]
    held = [each for each in whole if all(one["held"] for one in whole if _same(each, one))]
    if not held:
        return None
    best = max(held, key=lambda each: (each["rate"], each["seconds"]))
    rounds = [each for each in held if _same(each, best)]
    rounds.sort(key=lambda each: each["trade_in_clickhouse_ms"].get("p99", 0.0))
    shown = rounds[len(rounds) // 2]
    return {
        **shown,
        "highest_rate_held": best["rate"],
        "rounds": len(rounds),
        "p99_ms_of_rounds": [each["trade_in_clickhouse_ms"].get("p99") for each in rounds],
        "fit": fit(runs),
        "runs": [each for each in runs if each is not shown],
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks end_to_end", description=__doc__)
    parser.add_argument("--rates", type=_numbers, default=[15_000], help="trades/s of all symbols")
    parser.add_argument("--for", dest="seconds", type=float, default=180.0, help="measured, each")
    parser.add_argument("--rounds", type=int, default=1, help="of each combination")
    parser.add_argument("--symbols", type=_numbers, default=[20])
    parser.add_argument("--stored", type=_numbers, default=[0], help="rows that are there before")
    parser.add_argument("--partitions", type=int, default=fitting_partitions(1))
    parser.add_argument("--highest", action="store_true", help="find the highest rate held")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part.replace("_", "")) for part in text.split(",")]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = ("rate", "symbols", "partitions", "stored_rows")
    whole = abs(one["seconds"] - other["seconds"]) < 1.0
    return whole and all(one[key] == other[key] for key in keys)


async def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure each combination, with --highest at the rates of a search."""
    runs: list[dict[str, Any]] = []

    async def measure(load: Load) -> dict[str, Any]:
        # Servers of its own for each run: none meets what another one left.
        with tempfile.TemporaryDirectory(prefix="end-to-end-bench-") as directory:
            async with Runtime.start(Path(directory), kafka_port=0, clickhouse_port=0) as runtime:
                runs.append(await run(runtime, load))
        show(runs[-1])
        return runs[-1]

    for symbols, stored in product(options.symbols, options.stored):
        loads = [
            Load(float(rate), symbols, options.partitions, stored, options.seconds)
            for rate in options.rates
        ]
        if options.highest:
            await find_highest(measure, loads[0], options.rounds)
            continue
        for _ in range(options.rounds):
            for load in loads:
                await measure(load)
    return runs


async def find_highest(measure: Any, load: Load, rounds: int) -> None:
    """Search with short runs, then hold what was found for the whole time, so many rounds."""
    short = replace(load, seconds=min(SEARCH_S, load.seconds))
    held, lost = 0.0, 0.0
    for _ in range(DOUBLINGS_MAX):
        if (await measure(short))["held"]:
            held = short.rate
            short = replace(short, rate=short.rate * 2)
        else:
            lost = short.rate
            break
    while held and lost and lost / held > NEAR:
        short = replace(short, rate=round((held + lost) / 2, -2))
        if (await measure(short))["held"]:
            held = short.rate
        else:
            lost = short.rate
    whole = replace(load, rate=held)
    done = 0
    while held and done < rounds:
        if (await measure(whole))["held"]:
            done += 1
        else:
            done, whole = 0, replace(whole, rate=round(whole.rate * BACK_OFF, -2))


def _fit_lines(fitted: dict[str, dict[str, float]]) -> list[str]:
    lines = ["role          µs a trade   cores without trades"]
    for name, each in fitted.items():
        lines.append(f"{name:13} {each['us_per_trade']:10.1f} {each['fixed_cores']:12.3f}")
    return lines


def show(figures: dict[str, Any]) -> None:
    """Print a run on stderr."""
    for name, value in figures.items():
        if name != "roles":
            print(f"{name:26} {value}", file=sys.stderr)
    for name, used in figures["roles"].items():
        print(f"{name:26} {used}", file=sys.stderr)
    print(file=sys.stderr)
