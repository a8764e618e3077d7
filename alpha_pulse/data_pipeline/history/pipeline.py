"""Everything that a history command needs, opened together: exchange, Kafka, ClickHouse."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.topics import CANDLES, TRADES
from alpha_pulse.data_pipeline.history.backfill import Backfill
from alpha_pulse.data_pipeline.history.jobs import JobWriter
from alpha_pulse.data_pipeline.history.report import Progress
from alpha_pulse.data_pipeline.history.settled import wait_until_settled
from alpha_pulse.data_pipeline.history.stored import StoredMarket, stored_market
from alpha_pulse.data_pipeline.history.stored_rows import Market
from alpha_pulse.data_pipeline.history.verify import Repairer, Verifier
from alpha_pulse.producers.exchanges.names import with_exchange
from alpha_pulse.producers.history.pages import LIMITED_S_MAX, History, open_history

# A candle costs the processors ten times a trade: smaller batches leave them time in between.
BATCH_BYTES_MAX = 250_000


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One exchange's history on one side, the pipeline on the other."""

    history: History
    stored: StoredMarket
    backfill: Backfill
    verifier: Verifier
    repairer: Repairer


def for_exchange(config: Config, exchange: str) -> Config:
    """Return the settings with another exchange; `-testnet` behind its name means the testnet.

    Raises: ValidationError when there is no such exchange.
    """
    return replace(config, producer=with_exchange(config.producer, exchange))


@asynccontextmanager
async def open_pipeline(
    config: Config,
    *,
    share: float | None = None,
    on_progress: Progress = lambda report: None,
    limited_s_max: float | None = LIMITED_S_MAX,
) -> AsyncIterator[Pipeline]:
    """Yield the pipeline of the configured exchange; all connections are closed at the end.

    share, limited_s_max: as of `open_history`. Raises: ConfigError, DataFetchError,
    KafkaError when one of the three can't be reached.
    """
    publisher = Publisher(
        config.kafka,
        "alpha-pulse-history",
        batch_bytes_max=min(config.producer.publish_batch_bytes_max, BATCH_BYTES_MAX),
        pending_bytes_max=config.producer.publish_pending_bytes_max,
    )
    async with (
        open_history(
            config.producer, config.history, share, limited_s_max=limited_s_max
        ) as history,
        stored_market(config) as stored,
    ):
        await publisher.start()
        try:

            async def settle(markets: Sequence[Market], trades: bool) -> None:
                topic, table = (TRADES, "trades_log") if trades else (CANDLES["1m"], "candles_log")
                await wait_until_settled(config, stored, markets, topic, table)

            backfill = Backfill(history, stored, JobWriter(config, publisher), on_progress, settle)
            verifier = Verifier(backfill, stored)
            yield Pipeline(
                history, stored, backfill, verifier, Repairer(backfill, stored, verifier)
            )
        finally:
            await publisher.stop()
