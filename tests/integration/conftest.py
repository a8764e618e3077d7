"""For the tests of what people look at: a filled ClickHouse with users, and a browser.

The browser is a Chromium without a window, told what to do by its own protocol.
"""

import asyncio
import base64
import contextlib
import itertools
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from alpha_pulse.contracts import kinds
from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.config import (
    ClickHouseConfig,
    Config,
    KafkaConfig,
    PageConfig,
    TopicsConfig,
)
from alpha_pulse.contracts.events import (
    Audit,
    DeadLetter,
    FieldDifference,
    Gap,
    StreamStatus,
    Trade,
)
from alpha_pulse.contracts.kafka.admin import ensure_topics
from alpha_pulse.contracts.market import MINUTE_US, SECOND_US
from alpha_pulse.contracts.schema.examples import EXAMPLES
from alpha_pulse.embedded.front.users import Login, Role
from alpha_pulse.embedded.runtime import Runtime
from alpha_pulse.sinks.batching.batch import Batch
from alpha_pulse.sinks.clickhouse.client import ClickHouse
from alpha_pulse.sinks.clickhouse.migrate import migrate
from alpha_pulse.sinks.clickhouse.tables import Table, table_of
from tests.integration.market import SYMBOL, candle
from tests.patience import PATIENCE_S
from tests.servers import started

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
LOOK_INTERVAL_S = 0.05

READER = Login("page", "a reader's secret", Role.READER)
FILLED_MINUTES = 60


def _events(until_us: int) -> list[tuple[Table, list[msgspec.Struct]]]:
    """A market up to a time: an hour of minutes, one of each coverage among them; its faults."""
    doubts = dict(enumerate(("exchange", "unverified", "partial", "gap"), 11))
    minutes = [
        candle(
            until_us - number * MINUTE_US,
            coverage=doubts.get(number, "contiguous"),
            revision=100 - number,
        )
        for number in range(FILLED_MINUTES, 0, -1)
    ]
    length_us = 5 * MINUTE_US
    newest_us = until_us // length_us * length_us
    fives = [
        candle(newest_us - number * length_us, timeframe="5m", volume="12.5", trade_count=20)
        for number in range(11, 0, -1)
    ]
    theirs = [
        msgspec.structs.replace(minute, close="21" if minute.revision == 95 else minute.close)
        for minute in minutes[-20:]
    ]
    audit = Audit(
        exchange="binance",
        symbol=SYMBOL,
        timeframe="1m",
        open_time_us=until_us - 5 * MINUTE_US,
        result="different",
        coverage="contiguous",
        differences=[FieldDifference(field="close", ours="20", exchange="21")],
        candle_revision=95,
        exchange_revision=95,
        revision=96,
    )
    gap = Gap(
        exchange="binance",
        symbol=SYMBOL,
        first_trade_id="7",
        last_trade_id="9",
        start_time_us=until_us - 14 * MINUTE_US,
        end_time_us=until_us - 13 * MINUTE_US,
        status="open",
        reason="hole in the stream",
        revision=3,
    )
    state = StreamStatus(
        exchange="binance",
        symbol=SYMBOL,
        state="live",
        complete_until_us=until_us,
        last_trade_time_us=until_us - SECOND_US,
        last_trade_id="99",
        revision=5,
    )
    trades = [
        msgspec.structs.replace(
            EXAMPLES[Trade]["binance"],
            symbol=SYMBOL,
            trade_id=str(number),
            trade_time_us=until_us - number * SECOND_US,
            receive_time_us=until_us - number * SECOND_US + 40_000,
        )
        for number in range(1, 100)
    ]
    letter = msgspec.structs.replace(EXAMPLES[DeadLetter]["record"], time_us=until_us - SECOND_US)
    return [
        (table_of(kinds.CANDLE), [*minutes, *fives]),
        (table_of(kinds.EXCHANGE_CANDLE), [*theirs]),
        (
            table_of(kinds.AUDIT),
            [audit, msgspec.structs.replace(audit, result="equal", open_time_us=until_us)],
        ),
        (
            table_of(kinds.GAP),
            [gap, msgspec.structs.replace(gap, first_trade_id="5", status="unfillable")],
        ),
        (table_of(kinds.STATUS), [state]),
        (table_of(kinds.TRADE), [*trades]),
        (table_of(kinds.DEAD_LETTER), [letter]),
    ]


async def _fill(config: Config, until_us: int) -> None:
    clickhouse = await ClickHouse.connect(config.clickhouse)
    await migrate(config, clickhouse)
    for table, events in _events(until_us):
        values = [encode(event) for event in events]
        body = Batch("filled", 0, list(range(len(values))), values, 0, 0).body()
        # The hour may have begun in another month.
        months = {"max_partitions_per_insert_block": 0}
        await clickhouse.insert(
            f"{config.database}.{table.name}", table.insert_columns, body, months
        )
    await clickhouse.close()


@pytest.fixture(scope="session")
def schema(runtime: Runtime) -> Config:
    """A database with every table and view, for tests that leave the schema as it is.

    Migrating costs more than most of them: `emptied` gives each one the same, without rows.
    """
    config = Config(
        namespace=f"t{uuid.uuid4().hex[:12]}", clickhouse=ClickHouseConfig(url=runtime.clickhouse)
    )

    async def make() -> None:
        clickhouse = await ClickHouse.connect(config.clickhouse)
        await migrate(config, clickhouse)
        await clickhouse.close()

    asyncio.run(make())
    return config


@pytest.fixture
async def emptied(schema: Config) -> AsyncIterator[ClickHouse]:
    """A connection to the database of `schema`, whose log tables have no rows."""
    connection = await ClickHouse.connect(schema.clickhouse)
    try:
        yield connection
        rows = await connection.rows(
            "SELECT name FROM system.tables WHERE database = {d:String} AND total_rows > 0 "
            "AND name != 'schema_migrations'",
            {"d": schema.database},
        )
        for (name,) in rows:
            await connection.command(f"TRUNCATE TABLE {schema.database}.{name} SYNC")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def filled(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """A pipeline's settings: the session's Kafka with empty topics, and a ClickHouse of its own.

    It has a reader (READER) and holds an hour of SYMBOL up to the last whole minute.
    """
    folder = tmp_path_factory.mktemp("filled")
    logins = [Login("default", "", Role.ADMIN), READER]
    with started(folder, kafka=runtime.kafka, clickhouse_logins=logins) as own:
        config = Config(
            namespace=f"filled-{time.time_ns()}",
            kafka=KafkaConfig(bootstrap=runtime.kafka),
            topics=TopicsConfig(partitions=1),
            clickhouse=ClickHouseConfig(url=own.clickhouse),
            page=PageConfig(
                port=0, clickhouse_user=READER.name, clickhouse_password=READER.password
            ),
        )
        asyncio.run(ensure_topics(config))
        asyncio.run(_fill(config, time.time_ns() // 60_000_000_000 * MINUTE_US))
        yield config


class BrowserTab:
    """One tab: goes to an address, answers JavaScript, takes pictures."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.errors: list[str] = []  # what the page's own scripts complained of

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and return its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result

    async def open(self, address: str) -> None:
        """Go to an address and return once the page is there."""
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=address)
        await self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    async def ask(self, script: str) -> Any:
        """Return the value of an expression of JavaScript."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str) -> Any:
        """Return the value of an expression once it is true; the test's own limit ends it."""
        while True:
            if value := await self.ask(script):
                return value
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def picture(self) -> bytes:
        """Return what the tab shows, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] == "error":
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[BrowserTab]:
    """A tab of a headless Chromium of its own."""
    program = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    profile = tmp_path / "profile"
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless=new",
        "--no-sandbox",  # containers run as root, where Chromium has none
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        "--remote-allow-origins=*",
        f"--user-data-dir={profile}",
        "--window-size=1280,760",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            port = await _debugging_port(profile / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                tabs = await response.json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield BrowserTab(socket)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _debugging_port(file: Path, process: asyncio.subprocess.Process) -> int:
    while process.returncode is None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int((await asyncio.to_thread(file.read_text)).splitlines()[0])
        await asyncio.sleep(LOOK_INTERVAL_S)
    raise AssertionError(f"expected Chromium to start, found exit code {process.returncode}")
