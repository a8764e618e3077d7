"""`python -m alpha_pulse.contracts.roles.metrics.probe ROLE`: exit code 0 when the role answers.

For health checks inside a container, where there is no curl. `--ready`: when it is ready, too.
"""

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from alpha_pulse.contracts.config import load_config
from alpha_pulse.contracts.errors import AlphaPulseError

TIMEOUT_S = 3.0
ROLES = ("producer", "processor", "sink")


def main(arguments: list[str]) -> int:
    """Ask the role's page; print what it says. Returns the exit code."""
    roles = [argument for argument in arguments if argument in ROLES]
    if len(roles) != 1 or set(arguments) - {*ROLES, "--ready"}:
        print(f"expected one of {', '.join(ROLES)} and perhaps --ready, found {arguments}")
        return 2
    path = os.environ.get("ALPHA_PULSE_CONFIG")
    try:
        metrics = load_config(Path(path) if path else None).metrics
    except AlphaPulseError as error:
        print(error)
        return 2
    page = "readyz" if "--ready" in arguments else "healthz"
    url = f"http://127.0.0.1:{getattr(metrics, f'{roles[0]}_port')}/{page}"
    try:
        # Never through a proxy: it is this container.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            print(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        print(error.read().decode().strip())
        return 1
    except OSError as error:
        print(f"expected an answer of {url}, found {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
