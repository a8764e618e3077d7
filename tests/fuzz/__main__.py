"""`make fuzz [MINUTES=10] [SEED=…]`: bytes that nobody would send, into all that reads them.

Targets: each exchange's frame decoder, and the kernel that admits records from the ingest log.
atheris looks for inputs that reach new code; it starts from the frames in the decoders' docstrings
and from the contracts' example messages. A target fails when something other than the documented
error comes out, or when a tick breaks its contract. What made it fail is kept and its path printed.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.producers.exchanges.registry import ExchangeType
from tests.rooms import documented_frames

ROOT = Path(__file__).parents[2]
INPUT_BYTES_MAX = 4096


def main() -> int:
    """Fuzz each target for its share of the time; return 1 when one failed."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all targets together")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--target", choices=(*ExchangeType, "kernel"), action="append")
    options = parser.parse_args()
    targets = options.target or [*ExchangeType, "kernel"]
    seconds = max(1, round(options.minutes * 60 / len(targets)))
    print(f"SEED={options.seed}, {seconds} s each: {' '.join(targets)}", flush=True)
    failed = [target for target in targets if not fuzz(target, seconds, options.seed)]
    print(f"failed: {' '.join(failed) or 'none'}")
    return 1 if failed else 0


def fuzz(target: str, seconds: int, seed: int) -> bool:
    """Run one target in a process of its own; return whether nothing was found."""
    found = Path(tempfile.mkdtemp(prefix=f"alpha-pulse-fuzz-{target}-"))
    with tempfile.TemporaryDirectory(prefix="alpha-pulse-corpus-") as corpus:
        for number, content in enumerate(starts(target)):
            (Path(corpus) / str(number)).write_bytes(content)
        process = subprocess.run(
            [
                sys.executable, "-m", "tests.fuzz.target", target, corpus,
                f"-max_total_time={seconds}", f"-seed={seed % 2**31 or 1}",
                f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={found}/", "-timeout=10",
                "-rss_limit_mb=2048", "-print_final_stats=1",
            ],
            check=False,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
    runs = re.search(r"number_of_executed_units: *(\d+)", process.stdout)
    print(f"{target}: {runs.group(1) if runs else 0} inputs, exit code {process.returncode}")
    if process.returncode == 0 and runs is not None:
        found.rmdir()
        return True
    print(process.stdout[-3000:])
    print(f"inputs that failed: {sorted(map(str, found.iterdir()))}", flush=True)
    return False


def starts(target: str) -> list[bytes]:
    """Return well-formed inputs of a target."""
    if target == "kernel":
        return [encode(event) for named in EXAMPLES.values() for event in named.values()]
    return [frame.encode() for frame in documented_frames(target)]


if __name__ == "__main__":
    sys.exit(main())
