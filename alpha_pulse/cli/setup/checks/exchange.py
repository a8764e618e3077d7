"""The exchange: how long its limits make a start take, this machine's clock against its."""

import asyncio
import time

from alpha_pulse.cli.setup.checks.check import Check, failure, ok, warning
from alpha_pulse.contracts.config import Config
from alpha_pulse.contracts.errors import AlphaPulseError, ValidationError
from alpha_pulse.producers.connection.client import make_exchange
from alpha_pulse.producers.connection.lanes import start_s
from alpha_pulse.producers.connection.limiter import Limiter
from alpha_pulse.producers.connection.symbols import shard_of
from alpha_pulse.producers.exchanges.names import exchange_name
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.healing.healer import Healer

EXCHANGE_S_MAX = 10.0
# Delays are measured against this clock; candles never are.
CLOCK_S_ADVISED = 1.0


def check_start(config: Config) -> Check:
    """Return how long the exchange's limits make the start of the configured symbols take.

    Nothing is asked: it follows from the limits in the exchange's room.
    """
    producer = config.producer
    exchange = exchange_of(producer.exchange)
    symbols = len(shard_of(producer.symbols, producer.shard_index, producer.shard_count))
    streams = 2 if producer.exchange_candles and exchange.decoder is not None else 1
    connections, seconds = start_s(exchange, symbols, streams)
    return ok(
        "start",
        f"{symbols:,} symbol{'s' * (symbols != 1)} of {exchange.id} on {connections:,} "
        f"connection{'s' * (connections != 1)} of each address; its limits make that take "
        f"{seconds:.0f} s",
    )


async def check_exchange_clock(config: Config) -> Check:
    """Return how far this machine's clock is from the exchange's, over REST."""
    producer = config.producer
    try:
        name = exchange_name(producer)
    except ValidationError as error:
        return failure("exchange", str(error), "correct exchange in [producer]")
    client = make_exchange(producer, lambda socket, frames: None)
    healer = Healer(name, client, Limiter(name))
    try:
        async with asyncio.timeout(EXCHANGE_S_MAX):
            started_s = time.time()
            theirs_s = await healer.clock_us() / 1e6
            ended_s = time.time()
    except (AlphaPulseError, OSError, TimeoutError) as error:
        return failure(
            "exchange",
            f"{name}: {type(error).__name__} {error}"[:300],
            "is there a network, and does a firewall or proxy let it through? Producers go on "
            "trying",
        )
    finally:
        await client.close()
    ahead_s = (started_s + ended_s) / 2 - theirs_s
    found = f"{name} answers in {ended_s - started_s:.2f} s; this clock is {ahead_s:+.2f} s ahead"
    if abs(ahead_s) > CLOCK_S_ADVISED + (ended_s - started_s):
        return warning(
            "exchange",
            found,
            "set this machine's clock by NTP: delays are measured wrong (candles are not touched)",
        )
    return ok("exchange", found)
