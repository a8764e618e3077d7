"""The whole path as processes, and hands that reach into it: kill, freeze, cut, refuse."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from alpha_pulse.cli.replay.accidents import Accident
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    HistoryConfig,
    KafkaConfig,
    MetricsConfig,
    PageConfig,
    ProducerConfig,
    TopicsConfig,
    config_environment,
)
from alpha_pulse.embedded.child import Child
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.replay.exchange.faults import (
    GARBAGE_KINDS,
    REST_FAULTS,
    TRADE_PATHS,
    RestFault,
    StreamFault,
)
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from tests.faults.link import Link
from tests.faults.soak.linked_kafka import LinkedKafka
from tests.faults.soak.plan import ROLES
from tests.faults.soak.roles import RunningRoles
from tests.faults.soak.small_disk import SmallDisk
from tests.faults.soak.three_nodes import TOPICS, ThreeNodes

NAMESPACE = "soak"
PARTITIONS = 4
STOP_S_MAX = 60.0
RECONNECT_S_MAX = 60.0
STORM_CLOSES_PER_S = 1_000 / 60
SLOW_S = 3.0  # how late each piece of an answer comes
_BASES = ("BTC", "ETH", "SOL", "BNB", "XRP", "ADA", "LTC", "DOT", "UNI", "XLM", "ETC", "TRX")
_REFUSALS = {
    "error 500": (500, 243, "Cannot reserve 1.00 MiB, not enough space"),
    "error 503": (503, 202, "Too many simultaneous queries"),
}


@dataclass(frozen=True)
class Load:
    """What the exchange plays: symbols, and trades a second of all of them together."""

    symbols: int
    rate: float
    seed: int

    def markets(self) -> list[SyntheticMarket]:
        """Return the markets, the same ones for the same seed."""
        per_minute = max(1, round(self.rate * 60 / self.symbols))
        return [
            SyntheticMarket(f"{base}/USDT", self.seed, trades_per_minute=per_minute)
            for base in _BASES[: self.symbols]
        ]


@dataclass
class Pipeline:
    """Kafka, ClickHouse behind a proxy, the exchange, and `alpha-pulse up` with every role."""

    kafka: LinkedKafka | ThreeNodes
    runtime: Runtime  # ClickHouse
    exchange: ReplayExchange
    link: Link
    up: Child
    roles: RunningRoles
    config: Config
    random: Random
    disk: SmallDisk | None = None
    reconnected_s: float | None = None  # from the end of a storm to every channel, once each
    _kafka_whole: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    @asynccontextmanager
    async def start(
        cls, directory: Path, load: Load, *, kafka_disk_mib: int = 0, three_nodes: bool = False
    ) -> AsyncIterator["Pipeline"]:
        """Start it all under a directory; whatever still runs at the end is stopped.

        kafka_disk_mib: Kafka's data lie on a disk of their own of this size; 0: they do not.
        three_nodes: Kafka is three of them, each of which may die; else one behind a proxy.
        """
        async with AsyncExitStack() as stack:
            disk = None
            if kafka_disk_mib:
                disk = stack.enter_context(SmallDisk.mounted(directory / "kafka", kafka_disk_mib))
            kafka: LinkedKafka | ThreeNodes
            if three_nodes:
                kafka = await stack.enter_async_context(ThreeNodes.running(directory / "kafka"))
            else:
                kafka = await stack.enter_async_context(LinkedKafka.running(directory / "kafka"))
            runtime = await stack.enter_async_context(
                Runtime.start(directory / "servers", kafka=kafka.bootstrap, clickhouse_port=0)
            )
            link = Link(int(runtime.clickhouse.rpartition(":")[2]))
            await stack.enter_async_context(link.serve())
            markets = load.markets()
            exchange = await stack.enter_async_context(ReplayExchange(markets, live=True))
            config = Config(
                namespace=NAMESPACE,
                data_dir=str(directory),
                kafka=KafkaConfig(bootstrap=kafka.bootstrap),
                clickhouse=ClickHouseConfig(url=f"http://127.0.0.1:{link.port}"),
                topics=TOPICS if three_nodes else TopicsConfig(partitions=PARTITIONS),
                producer=ProducerConfig(
                    symbols=tuple(market.instrument.symbol for market in markets),
                    exchange_url=exchange.url,
                ),
                metrics=MetricsConfig(producer_port=0, processor_port=0, sink_port=0),
                # What the roles themselves leave missing must be seen, not mended meanwhile.
                history=HistoryConfig(repair=False),
                page=PageConfig(enabled=False),
            )
            up = Child.start(
                "alpha-pulse up",
                [sys.executable, "-m", "alpha_pulse.cli", "up", "--workers", "2"],
                log=directory / "up.log",
                grace_s=STOP_S_MAX,
                environment=config_environment(config),
            )
            random = Random(f"pipeline:{load.seed}")
            roles = RunningRoles(up.pid, random)
            pipeline = cls(kafka, runtime, exchange, link, up, roles, config, random, disk)
            stack.push_async_callback(pipeline.stop)
            yield pipeline

    def direct(self) -> Config:
        """Return the settings with ClickHouse itself instead of its proxy."""
        clickhouse = replace(self.config.clickhouse, url=self.runtime.clickhouse)
        return replace(self.config, clickhouse=clickhouse)

    async def stop(self) -> int:
        """End every role in order, as Ctrl-C does; return the supervisor's exit code."""
        return await self.up.stop(STOP_S_MAX + 5)

    async def cause(self, accident: Accident) -> None:
        """Let it happen, and return when it is over."""
        if accident.role in ROLES:
            await self.roles.hurt(accident)
        elif accident.role == "exchange":
            await self._disturb_exchange(accident)
        elif accident.kind in ("cut", "hold", "slow") or accident.kind in _REFUSALS:
            if accident.role == "clickhouse":
                await _disturb(self.link, accident)
            else:
                assert isinstance(self.kafka, LinkedKafka), "three nodes lie behind no proxy"
                await _disturb(self.kafka.link, accident)
        else:
            # A busy machine may still be starting it after the one before.
            async with self._kafka_whole:
                await self._hurt_kafka(accident)

    async def _hurt_kafka(self, accident: Accident) -> None:
        kafka = self.kafka
        if isinstance(kafka, ThreeNodes):
            await kafka.kill(NAMESPACE)
            await asyncio.sleep(accident.seconds)
            await kafka.restart()
        elif accident.kind in ("kill", "restart"):
            await (kafka.kill() if accident.kind == "kill" else kafka.stop())
            await asyncio.sleep(accident.seconds)
            await kafka.restart()
        elif accident.kind == "freeze":
            kafka.freeze()
            try:
                await asyncio.sleep(accident.seconds)
            finally:
                kafka.thaw()
        else:
            assert self.disk is not None, "the plan fills a disk that was not made"
            await self.disk.run_full(kafka, accident.seconds)

    async def _disturb_exchange(self, accident: Accident) -> None:
        faults = self.exchange.faults
        trades = self.random.randrange(1, 200)
        if accident.kind == "storm":
            closes = round(accident.seconds * STORM_CLOSES_PER_S)
            for _ in range(closes):
                faults.add(StreamFault(self.random.choice(("close", "abort")), 0, 1))
                await asyncio.sleep(1 / STORM_CLOSES_PER_S)
            await self._reconnected()
        elif accident.kind in REST_FAULTS:
            # Asked for is only what was lost.
            for _ in range(3):
                faults.add(RestFault(accident.kind, 0, accident.seconds, TRADE_PATHS))
            faults.add(StreamFault("drop", 0, trades))
        else:
            garbage = self.random.choice(GARBAGE_KINDS)
            faults.add(StreamFault(accident.kind, 0, trades, accident.seconds, garbage))

    async def _reconnected(self) -> None:
        started = time.monotonic()
        async with asyncio.timeout(RECONNECT_S_MAX):
            while self.exchange.faults.next_at_trade is not None or not self._subscribed_once():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        self.reconnected_s = round(time.monotonic() - started, 2)

    def _subscribed_once(self) -> bool:
        channels = Counter(
            channel
            for socket in self.exchange.conductor.sockets.values()
            for channel in socket.channels
        )
        trades = [channel for channel in channels if channel.kind == "trades"]
        return len(trades) == len(self.exchange.feeds) and set(channels.values()) == {1}


async def _disturb(link: Link, accident: Accident) -> None:
    if accident.kind in _REFUSALS:
        link.answer(_refusal(*_REFUSALS[accident.kind]))
    elif accident.kind == "hold":
        link.hold()
    elif accident.kind == "slow":
        link.slow(SLOW_S)
    else:
        link.cut()
    try:
        await asyncio.sleep(accident.seconds)
    finally:
        link.heal()


def _refusal(status: int, code: int, text: str) -> bytes:
    # ClickHouse's own way to say no.
    body = f"Code: {code}. DB::Exception: {text}\n"
    return (
        f"HTTP/1.1 {status} Refused\r\nX-ClickHouse-Exception-Code: {code}\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
