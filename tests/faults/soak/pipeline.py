"""The whole path as processes, and hands that reach into it: kill, freeze, cut, refuse."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from alpha_pulse.cli.accidents import Accident
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
from alpha_pulse.replay.faults import (
    GARBAGE_KINDS,
    REST_FAULTS,
    TRADE_PATHS,
    RestFault,
    StreamFault,
)
from alpha_pulse.replay.server import ReplayExchange
from alpha_pulse.replay.synthetic import SyntheticMarket
from tests.faults.link import Link
from tests.faults.soak.plan import ROLES

NAMESPACE = "soak"
PARTITIONS = 4
STOP_S_MAX = 60.0
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

    runtime: Runtime
    exchange: ReplayExchange
    link: Link
    up: Child
    config: Config
    random: Random

    @classmethod
    @asynccontextmanager
    async def start(cls, directory: Path, load: Load) -> AsyncIterator["Pipeline"]:
        """Start it all under a directory; whatever still runs at the end is stopped."""
        async with AsyncExitStack() as stack:
            runtime = await stack.enter_async_context(
                Runtime.start(directory / "servers", kafka_port=0, clickhouse_port=0)
            )
            link = Link(int(runtime.clickhouse.rpartition(":")[2]))
            await stack.enter_async_context(link.serve())
            markets = load.markets()
            exchange = await stack.enter_async_context(ReplayExchange(markets, live=True))
            config = Config(
                namespace=NAMESPACE,
                data_dir=str(directory),
                kafka=KafkaConfig(bootstrap=runtime.kafka),
                clickhouse=ClickHouseConfig(url=f"http://127.0.0.1:{link.port}"),
                topics=TopicsConfig(partitions=PARTITIONS),
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
            pipeline = cls(runtime, exchange, link, up, config, Random(f"pipeline:{load.seed}"))
            stack.push_async_callback(pipeline.stop)
            yield pipeline

    def direct(self) -> Config:
        """Return the settings with ClickHouse itself instead of the proxy."""
        clickhouse = replace(self.config.clickhouse, url=self.runtime.clickhouse)
        return replace(self.config, clickhouse=clickhouse)

    async def stop(self) -> int:
        """End every role in order, as Ctrl-C does; return the supervisor's exit code."""
        return await self.up.stop(STOP_S_MAX + 5)

    def role_pids(self) -> dict[str, int]:
        """Return the running roles, known by the log that each writes."""
        found = {}
        for up in _children(self.up.pid):
            for guard in _children(up):
                for role in _children(guard):
                    with contextlib.suppress(OSError):
                        name = Path(os.readlink(f"/proc/{role}/fd/1")).stem
                        if name in ROLES:
                            found[name] = role
        return found

    async def cause(self, accident: Accident) -> None:
        """Let it happen, and return when it is over."""
        if accident.role in ROLES:
            await self._hurt_role(accident)
        elif accident.role == "exchange":
            self._disturb_exchange(accident)
        elif accident.role == "clickhouse":
            await self._disturb_clickhouse(accident)
        else:
            await self.runtime.kill("kafka")
            await asyncio.sleep(accident.seconds)
            await self.runtime.restart("kafka")

    async def _hurt_role(self, accident: Accident) -> None:
        pid = self.role_pids().get(accident.role)
        if pid is None:
            return  # it is being started again
        with contextlib.suppress(ProcessLookupError):
            if accident.kind == "kill":
                os.kill(pid, signal.SIGKILL)
                return
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(accident.seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    def _disturb_exchange(self, accident: Accident) -> None:
        faults = self.exchange.faults
        trades = self.random.randrange(1, 200)
        if accident.kind in REST_FAULTS:
            # Asked for is only what was lost.
            for _ in range(3):
                faults.add(RestFault(accident.kind, 0, accident.seconds, TRADE_PATHS))
            faults.add(StreamFault("drop", 0, trades))
        else:
            garbage = self.random.choice(GARBAGE_KINDS)
            faults.add(StreamFault(accident.kind, 0, trades, accident.seconds, garbage))

    async def _disturb_clickhouse(self, accident: Accident) -> None:
        link = self.link
        if accident.kind in _REFUSALS:
            link.answer(_refusal(*_REFUSALS[accident.kind]))
        elif accident.kind == "hold":
            link.hold()
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


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except (OSError, ValueError):
        return []
