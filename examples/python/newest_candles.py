"""Print every 1m candle as it comes, and each correction of an earlier one.

pip install 'alpha-pulse-contracts[kafka]'
ALPHA_PULSE_KAFKA=127.0.0.1:19092 python newest_candles.py [--until-end]
"""

import asyncio
import sys

from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.kafka.reader import read
from alpha_pulse.contracts.newest import Newest
from alpha_pulse.contracts.topics import CANDLES


async def main() -> None:
    """Read for ever, or up to the end of the topic."""
    newest = Newest[Candle]()
    async for candle in read(CANDLES["1m"], until_end="--until-end" in sys.argv):
        if newest.accept(candle):  # not one that came twice, nor an older revision
            print(
                candle.exchange,
                candle.symbol,
                candle.open_time_us,
                candle.revision,
                candle.close,
                candle.coverage,
                sep="\t",
                flush=True,
            )


asyncio.run(main())
