"""`python -m alpha_pulse.data_pipeline.history`: the scheduled repair as a process of its own.

Ends with 0 on SIGTERM or SIGINT. `ALPHA_PULSE_CONFIG` names a TOML file, as for the roles.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from alpha_pulse.contracts.roles.stopping import end_at_once_when_told, stop_when_told


async def _main() -> None:
    from alpha_pulse.contracts.config import load_config

    stop = asyncio.Event()
    stop_when_told(stop)
    file = os.environ.get("ALPHA_PULSE_CONFIG")
    config = load_config(Path(file) if file else None)
    # The first round comes an interval after the start: until then the pipeline is left alone,
    # and the exchanges' client, which takes a second to import, stays on disk.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), config.history.repair_interval_s)
    if not stop.is_set():
        from alpha_pulse.contracts.roles.logs import configure_logs
        from alpha_pulse.data_pipeline.history.repairing import keep_repairing

        configure_logs()
        await keep_repairing(config, stop)


if __name__ == "__main__":
    end_at_once_when_told()
    sys.exit(asyncio.run(_main()))
