"""`python -m benchmarks NAME [options]`: runs the module `benchmarks.NAME`."""

import importlib
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run the benchmark that is named; return its exit code."""
    names = sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")
    )
    if not arguments or arguments[0] not in names:
        print(f"expected a benchmark, one of: {' '.join(names)}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
