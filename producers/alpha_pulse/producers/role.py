"""`python -m alpha_pulse.producers`: the producer role, from environment and configuration file.

`ALPHA_PULSE_CONFIG` names a TOML file. Ends with 0 on SIGTERM or SIGINT, and at a recording's end.
SIGHUP reads the file again and follows the symbols that it names now.
"""

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path

import structlog

from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import AlphaPulseError
from alpha_pulse.contracts.kafka.admin import await_topics
from alpha_pulse.contracts.roles.closing import close_within
from alpha_pulse.contracts.roles.logs import configure_logs
from alpha_pulse.contracts.roles.metrics.server import Monitor, monitored
from alpha_pulse.contracts.roles.publisher import Publisher
from alpha_pulse.contracts.roles.stopping import stop_on_signal
from alpha_pulse.producers.exchanges.names import exchange_name
from alpha_pulse.producers.feed.resume import last_trades
from alpha_pulse.producers.live import LiveProducer
from alpha_pulse.producers.metrics import ProducerMetrics

log = structlog.get_logger()

DRAIN_S_MAX = 8.0
CLOSE_S_MAX = 1.0


async def produce(
    config: Config, stop: asyncio.Event, on_started: Callable[[LiveProducer], None] | None = None
) -> None:
    """Run the producer role until `stop` is set or a recording ends; then drain (bounded).

    Args:
        config: the whole configuration.
        stop: set by the caller.
        on_started: called with the producer, whose symbols can be changed while it runs.

    Raises:
        AlphaPulseError: what ended the role.
    """
    monitor = Monitor("producer")
    metrics = ProducerMetrics(monitor.registry, exchange_name(config.producer))
    monitor.checks |= metrics.checks
    async with monitored(config.metrics, monitor, config.metrics.producer_port, log):
        await _produce(config, stop, metrics, on_started)


async def _produce(
    config: Config,
    stop: asyncio.Event,
    metrics: ProducerMetrics,
    on_started: Callable[[LiveProducer], None] | None,
) -> None:
    await await_topics(
        config, lambda error: log.warning("kafka.awaited", error=str(error)), stop.is_set
    )
    if stop.is_set():
        return
    name = metrics.exchange
    resume = await last_trades(config, name, config.producer.symbols)
    publisher = Publisher(
        config.kafka,
        f"producer-{name}",
        batch_bytes_max=config.producer.publish_batch_bytes_max,
        pending_bytes_max=config.producer.publish_pending_bytes_max,
        interval_s=config.producer.publish_interval_s,
        on_retry=lambda error: log.warning("publish.retried", error=str(error)[:200]),
    )
    await publisher.start()
    metrics.publisher = publisher
    try:
        producer = LiveProducer(
            config.producer,
            publisher,
            namespace=config.namespace,
            resume=resume,
            on_delay=metrics.delay.observe,
        )
        metrics.read_producer = producer.reading
        if on_started is not None:
            on_started(producer)
        running = asyncio.create_task(producer.run(stop))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        # What is not acknowledged by then is not in the log: the next start fetches it by id.
        await asyncio.wait_for(running, DRAIN_S_MAX if stop.is_set() else None)
    except TimeoutError:
        log.error("drain.incomplete", pending_bytes=publisher.pending_bytes)
    finally:
        if not await close_within(CLOSE_S_MAX, publisher.stop()):
            log.error("publisher.abandoned", pending_bytes=publisher.pending_bytes)


async def _main(config: Config, path: Path | None) -> None:
    stop = asyncio.Event()
    stop_on_signal(stop, DRAIN_S_MAX)
    reloads: set[asyncio.Task[None]] = set()

    def reload_on_hangup(producer: LiveProducer) -> None:
        def reload() -> None:
            task = asyncio.create_task(_reload(producer, path))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)

    await produce(config, stop, reload_on_hangup)


async def _reload(producer: LiveProducer, path: Path | None) -> None:
    # Symbols come and go; every other setting needs a restart.
    try:
        await producer.set_symbols(load_config(path).producer.symbols)
    except AlphaPulseError as error:
        log.error("config.refused", error=str(error))


def tune_memory() -> None:
    """Make garbage collection rare: events hold no cycles, and a pass looks at all of ccxt."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def main() -> int:
    """Run the role; return the exit code."""
    configure_logs()
    tune_memory()
    name = os.environ.get("ALPHA_PULSE_CONFIG")
    path = Path(name) if name else None
    try:
        config = load_config(path)
        try:
            import uvloop

            uvloop.run(_main(config, path))
        except ImportError:
            asyncio.run(_main(config, path))
    except AlphaPulseError as error:
        log.error("producer.failed", error=str(error))
        return 1
    return 0
