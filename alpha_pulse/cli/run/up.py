"""`alpha-pulse up`: a real exchange, all roles on this machine, kept running."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from alpha_pulse.cli.options import ConfigFile
from alpha_pulse.cli.pipeline.servers import announced, start_runtime, with_partitions, with_servers
from alpha_pulse.cli.pipeline.supervise import Worker, supervise
from alpha_pulse.cli.run.page import page_beside, page_reader
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.config_sources import without_password
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.market import check_symbol
from alpha_pulse.embedded.progress import console_progress
from alpha_pulse.producers.exchanges.names import with_exchange


def up(
    config: ConfigFile = None,
    exchange: Annotated[str, typer.Option(help="ccxt's id, such as binance.")] = "",
    symbols: Annotated[str, typer.Option(help="Such as BTC/USDT,ETH/USDT.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Processor processes.")] = 1,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where Kafka and ClickHouse keep their files.")
    ] = None,
) -> None:
    """Follow a real exchange with every role on this machine, until Ctrl-C or SIGTERM.

    A role that ends is started again and reported; what an exchange refuses is said and retried.
    """
    settings = load_config(config)
    producer = settings.producer
    # Refused now: a producer that starts and ends again for ever says it less clearly.
    producer = with_exchange(producer, exchange or producer.exchange, testnet=producer.testnet)
    if symbols:
        followed = tuple(check_symbol(symbol.strip()) for symbol in symbols.split(","))
        producer = replace(producer, symbols=followed)
    settings = replace(settings, producer=producer)
    if data_dir is not None:
        settings = replace(settings, data_dir=str(data_dir))
    asyncio.run(_up(settings, workers))


async def _up(settings: Config, workers: int) -> None:
    page, logins = page_reader(settings)
    with console_progress(sys.stderr) as progress:
        async with start_runtime(settings, Path(settings.data_dir), progress, logins) as runtime:
            config = await with_partitions(with_servers(settings, runtime), runtime, workers)
            await ensure_topics(config)
            with announced(config):
                producer = config.producer
                clickhouse = without_password(config.clickhouse.url)
                typer.echo(
                    f"following {', '.join(producer.symbols)} on {producer.exchange}; Kafka "
                    f"{config.kafka.bootstrap}, ClickHouse {clickhouse} database "
                    f"{config.database}; Ctrl-C ends it"
                )
                processors = [f"processor-{number}" for number in range(1, workers + 1)]
                repair = ["repair"] if config.history.repair else []
                async with page_beside(config, page):
                    await supervise(
                        [
                            Worker("sink", "sink", config),
                            *(Worker(name, "processor", config) for name in processors),
                            Worker("producer", "producer", config),
                            *(Worker(name, name, config) for name in repair),
                        ],
                        runtime.data_dir / "logs",
                        runtime,
                    )
