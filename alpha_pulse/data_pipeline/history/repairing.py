"""The repair that `up` runs: gaps and mismatches of the last day, again and again."""

import asyncio

import structlog

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.market import MINUTE_US, SECOND_US
from alpha_pulse.contracts.roles.waiting import set_within, unless
from alpha_pulse.data_pipeline.history.pipeline import Pipeline, open_pipeline
from alpha_pulse.data_pipeline.history.stored_rows import Market

log = structlog.get_logger()

# Younger minutes are left to the live stream, which heals by itself.
YOUNG_US = 3 * MINUTE_US


async def keep_repairing(config: Config, stop: asyncio.Event) -> None:
    """Repair the followed symbols every `repair_interval_s`, until told to stop.

    A round that fails is reported and the next one begins anew, with fresh connections.
    """
    while not stop.is_set():
        try:
            async with open_pipeline(
                config, share=config.history.repair_limit_share, limited_s_max=None
            ) as pipeline:
                while not stop.is_set():
                    # A round may be cut anywhere: the next one finds what this one stored.
                    await unless(stop, repair_once(config, pipeline))
                    await set_within(config.history.repair_interval_s, stop)
        except AlphaPulseError as error:
            log.warning("repair.failed", error=str(error)[:300])
            await set_within(min(config.history.repair_interval_s, 30.0), stop)


async def repair_once(config: Config, pipeline: Pipeline) -> None:
    """Repair each followed symbol once, from its first stored minute on, at most the lookback."""
    clock_us = await pipeline.history.clock_us()
    end_us = (clock_us - YOUNG_US) // MINUTE_US * MINUTE_US
    lookback_us = round(config.history.repair_lookback_s * SECOND_US)
    followed = {
        span.market: span.start_us
        for span in await pipeline.stored.markets()
        if span.market.exchange == pipeline.history.name
        and span.market.symbol in config.producer.symbols
    }
    for market, first_us in followed.items():
        start_us = max(first_us, clock_us - lookback_us)
        # A symbol that is listed no more has nothing to be repaired with.
        if start_us < end_us and market.symbol in pipeline.history.client.markets:
            await _repair(pipeline, market, start_us, end_us)


async def _repair(pipeline: Pipeline, market: Market, start_us: int, end_us: int) -> None:
    done = await pipeline.repairer.repair(market.symbol, start_us, end_us)
    if done.fetched or done.healed or done.filled:
        log.info(
            "market.repaired",
            symbol=market.symbol,
            candles_fetched=done.fetched,
            mismatches_healed=done.healed,
            gaps_filled=done.filled,
        )
    if done.error:
        log.warning("repair.postponed", symbol=market.symbol, error=done.error[:300])
