"""`python -m benchmarks [NAME [options]] [--keep]`: runs the module `benchmarks.NAME`, or all.

--keep: appends what the run says as JSON to `benchmarks/results/`, and writes the README's table.
Without a NAME all run one after the other, as for the README's table: about 40 minutes.
"""

import importlib
import io
import json
import os
import sys
from contextlib import redirect_stdout

from benchmarks import results, table

# With the options that the README's table wants.
BENCHMARKS = {
    "producers": [],
    "processors": [],
    "sinks": [],
    "end_to_end": ["--rounds", "3"],
    "history": ["--limited"],
    "queries": [],
}
NAMES = (*BENCHMARKS, "table")


def main(arguments: list[str]) -> int:
    """Run the benchmark that is named, or all of them; return 0 when what ran went well."""
    if not set(arguments) - {"--keep", "--json"}:
        codes = {name: run_named(name, [*BENCHMARKS[name], *arguments]) for name in BENCHMARKS}
        failed = [name for name, code in codes.items() if code]
        print(f"failed: {' '.join(failed) or 'none'}", file=sys.stderr)
        return 1 if failed else 0
    if arguments[0] not in NAMES:
        print(f"expected a benchmark, one of: {' '.join(NAMES)}", file=sys.stderr)
        return 2
    return run_named(arguments[0], arguments[1:])


def run_named(name: str, options: list[str]) -> int:
    """Run one benchmark, and keep what it says when it is asked to; return its exit code."""
    if "--keep" not in options:
        return run(name, options)
    options = [option for option in options if option not in ("--keep", "--json")]
    load_before = os.getloadavg()[0]
    with redirect_stdout(io.StringIO()) as said:
        code = run(name, [*options, "--json"])
    print(said.getvalue(), end="")
    if code == 0:
        results.keep(name, json.loads(said.getvalue().splitlines()[-1]), load_before)
        table.main([])
    return code


def run(name: str, options: list[str]) -> int:
    """Run one benchmark; return its exit code."""
    code: int = importlib.import_module(f"benchmarks.{name}").main(options)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
