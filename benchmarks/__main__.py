"""`python -m benchmarks NAME [options] [--keep]`: runs the module `benchmarks.NAME`.

--keep: appends what the run says as JSON to `benchmarks/results/`, and writes the README's table.
"""

import importlib
import io
import json
import os
import sys
from contextlib import redirect_stdout

from benchmarks import results, table

NAMES = ("producers", "processors", "sinks", "end_to_end", "history", "queries", "table")


def main(arguments: list[str]) -> int:
    """Run the benchmark that is named; return its exit code."""
    if not arguments or arguments[0] not in NAMES:
        print(f"expected a benchmark, one of: {' '.join(NAMES)}", file=sys.stderr)
        return 2
    name, options = arguments[0], arguments[1:]
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
