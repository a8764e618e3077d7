"""`python -m alpha_pulse.data_pipeline.history`: the scheduled repair as a process of its own."""

import asyncio

from alpha_pulse.contracts.config import load_config
from alpha_pulse.contracts.stopping import stop_when_told
from alpha_pulse.data_pipeline.history.repairing import keep_repairing


async def _main() -> None:
    stop = asyncio.Event()
    stop_when_told(stop)
    await keep_repairing(load_config(), stop)


if __name__ == "__main__":
    asyncio.run(_main())
