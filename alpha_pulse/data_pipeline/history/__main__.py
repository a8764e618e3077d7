"""`python -m alpha_pulse.data_pipeline.history`: the scheduled repair as a process of its own.

Ends with 0 on SIGTERM or SIGINT. `ALPHA_PULSE_CONFIG` names a TOML file, as for the roles.
"""

import asyncio
import os
import sys
from pathlib import Path

from alpha_pulse.contracts.roles.stopping import exit_on_signal, stop_on_signal
from alpha_pulse.contracts.roles.waiting import set_within


async def _main() -> None:
    from alpha_pulse.contracts.config import load_config

    stop = asyncio.Event()
    stop_on_signal(stop)
    file = os.environ.get("ALPHA_PULSE_CONFIG")
    config = load_config(Path(file) if file else None)
    # The first round comes an interval after the start: until then the pipeline is left alone,
    # and the exchanges' client, which takes a second to import, stays on disk.
    if not await set_within(config.history.repair_interval_s, stop):
        from alpha_pulse.contracts.roles.logs import configure_logs
        from alpha_pulse.data_pipeline.history.repairing import keep_repairing

        configure_logs()
        await keep_repairing(config, stop)


if __name__ == "__main__":
    exit_on_signal()
    sys.exit(asyncio.run(_main()))
