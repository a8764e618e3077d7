"""Large results, long queries and many at once: bounded, cancelled, told apart."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from alpha_pulse.embedded.front.server import QUERIES_AT_ONCE_MAX
from alpha_pulse.embedded.runtime import Runtime
from tests.patience import PATIENCE_S
from tests.processes import children
from tests.servers import started

FOREVER = "SELECT count() FROM system.numbers"
# Runs until it is cancelled, and takes nothing from the machine.
IDLE = "SELECT sum(sleepEachRow(0.1)) FROM numbers(100000) SETTINGS max_block_size = 1"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A ClickHouse that nobody else asks: what runs there is counted, and its process weighed."""
    with started(tmp_path_factory.mktemp("streaming"), kafka="127.0.0.1:1") as runtime:
        yield runtime


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def sql(http: aiohttp.ClientSession, url: str, text: str, **params: str) -> str:
    async with http.post(url, data=text, params=params) as response:
        answer = await response.text()
        assert response.status == 200, answer
        return answer.strip()


async def until_running(
    http: aiohttp.ClientSession, url: str, text: str, count: int, timeout_s: float = PATIENCE_S
) -> None:
    pattern = text.removesuffix(" FORMAT JSON").replace("'", "\\'") + "%"
    async with asyncio.timeout(timeout_s):
        while True:
            found = await sql(
                http, url, f"SELECT count() FROM system.processes WHERE query LIKE '{pattern}'"
            )
            if int(found) == count:
                return
            await asyncio.sleep(0.02)


async def cancel(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def server_memory_bytes(runtime: Runtime) -> int:
    child = runtime._children()["clickhouse"]
    status = Path(f"/proc/{children(child.pid)[0]}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


@pytest.mark.parametrize(
    "format_name",
    [
        "TSV",
        "TabSeparatedWithNamesAndTypes",
        "CSVWithNames",
        "JSONEachRow",
        "JSONCompactEachRowWithNamesAndTypes",
        "RowBinaryWithNamesAndTypes",
        "Native",
        "ArrowStream",
        "MsgPack",
    ],
)
async def test_pieces_join_to_what_the_engine_makes_whole(
    runtime: Runtime, http: aiohttp.ClientSession, namespace: str, format_name: str
) -> None:
    # Compared through the engine: what it reads back from the pieces is what was asked for.
    text = 'SELECT number AS `a\n"b`, toString(number) AS s, number / 2 AS f FROM numbers(200000)'
    async with http.post(runtime.clickhouse, data=f"{text} FORMAT {format_name}") as response:
        assert response.headers.get("Transfer-Encoding") == "chunked"
        content = await response.read()
    await sql(http, runtime.clickhouse, f"CREATE DATABASE {namespace}")
    await sql(
        http,
        runtime.clickhouse,
        f'CREATE TABLE {namespace}.t (`a\n"b` UInt64, s String, f Float64) ENGINE = Memory',
    )
    async with http.post(
        runtime.clickhouse,
        params={"query": f"INSERT INTO {namespace}.t FORMAT {format_name}"},
        data=content,
    ) as response:
        assert response.status == 200, await response.text()
    difference = await sql(
        http,
        runtime.clickhouse,
        f"SELECT count() FROM (({text}) EXCEPT (SELECT * FROM {namespace}.t))",
    )
    count = await sql(http, runtime.clickhouse, f"SELECT count() FROM {namespace}.t")
    await sql(http, runtime.clickhouse, f"DROP DATABASE {namespace}")
    assert (difference, count) == ("0", "200000")


async def test_totals_follow_the_rows_in_pieces_too(
    runtime: Runtime, http: aiohttp.ClientSession
) -> None:
    text = (
        "SELECT number % 3 AS k, count() FROM numbers(9) GROUP BY k WITH TOTALS ORDER BY k FORMAT "
    )
    assert await sql(http, runtime.clickhouse, text + "CSVWithNames") == (
        '"k","count()"\n0,3\n1,3\n2,3\n\n0,9'
    )


async def test_an_empty_result_keeps_its_header(
    runtime: Runtime, http: aiohttp.ClientSession
) -> None:
    text = "SELECT 1 AS a WHERE 0 FORMAT TabSeparatedWithNames"
    assert await sql(http, runtime.clickhouse, text) == "a"


@pytest.mark.parametrize("format_name", ["TSV", "JSON"])
async def test_a_large_result_passes_through_little_memory(
    runtime: Runtime, http: aiohttp.ClientSession, format_name: str
) -> None:
    # Less than the result itself is what tells passing through from holding: the engine's own
    # memory depends on what ran before.
    text = f"SELECT number, repeat('x', 500) AS s FROM numbers(1500000) FORMAT {format_name}"
    before_bytes = server_memory_bytes(runtime)
    size_bytes = peak_bytes = 0
    async with http.post(runtime.clickhouse, data=text) as response:
        async for chunk in response.content.iter_chunked(1 << 20):
            size_bytes += len(chunk)
            peak_bytes = max(peak_bytes, server_memory_bytes(runtime))
    assert size_bytes > 750_000_000
    assert peak_bytes - before_bytes < size_bytes


@pytest.mark.parametrize(
    "end",
    [
        "FORMAT JSON",
        "format json;",
        "SETTINGS max_threads = 1 FORMAT JSON",
        "FORMAT JSON SETTINGS max_threads = 1",
        "FORMAT JSON -- a comment",
        "FORMAT JSON /* another */",
    ],
)
async def test_a_format_is_found_wherever_it_stands(
    runtime: Runtime, http: aiohttp.ClientSession, end: str
) -> None:
    for text in ("SELECT 7 AS a", "SELECT 'FORMAT TSV' AS a", "SHOW DATABASES"):
        if text.startswith("SHOW") and "SETTINGS" in end:
            continue
        if "json" in end and "FORMAT" in text:
            continue
        answer = json.loads(await sql(http, runtime.clickhouse, f"{text} {end}"))
        assert answer["rows"] == len(answer["data"]) >= 1
    answer = json.loads(await sql(http, runtime.clickhouse, "SELECT 1;", default_format="JSON"))
    assert answer["data"] == [{"1": 1}]


async def test_whatever_must_be_whole_is_bounded(
    runtime: Runtime, http: aiohttp.ClientSession
) -> None:
    text = "SELECT number, repeat('x', 1000) FROM numbers(1000000) FORMAT TSV"
    async with http.post(
        runtime.clickhouse, data=text, params={"wait_end_of_query": "1"}
    ) as response:
        assert response.status == 500
        assert "Code: 396." in await response.text()


async def test_a_failure_half_way_is_told_after_the_rows_and_breaks_the_body_off(
    runtime: Runtime, http: aiohttp.ClientSession
) -> None:
    text = "SELECT number, throwIf(number = 900000, 'half way') FROM numbers(1000000) FORMAT TSV"
    content = b""
    async with http.post(runtime.clickhouse, data=text) as response:
        assert response.status == 200
        tag = response.headers["X-ClickHouse-Exception-Tag"]
        try:
            async for chunk in response.content.iter_any():
                content += chunk
            ended = True
        except aiohttp.ClientPayloadError:
            ended = False
    assert not ended
    rows, _, failure = content.partition(f"\r\n__exception__\r\n{tag}\r\n".encode())
    assert rows.startswith(b"0\t0\n1\t0\n")
    assert failure.startswith(b"Code: 395. DB::Exception: half way")
    assert failure.endswith(f" {tag}\r\n__exception__\r\n".encode())


async def test_a_reader_that_goes_away_ends_its_query(
    runtime: Runtime, http: aiohttp.ClientSession
) -> None:
    url = runtime.clickhouse
    for text in (
        FOREVER,
        "SELECT number FROM system.numbers",
        f"{FOREVER} FORMAT JSON",
        "SELECT number, 1 FROM system.numbers FORMAT JSON",
    ):
        request = asyncio.create_task(sql(http, url, text))
        await until_running(http, url, text, 1)
        request.cancel()
        await until_running(http, url, text, 0)


async def test_a_writer_that_goes_away_has_its_rows_stored(
    runtime: Runtime, http: aiohttp.ClientSession, namespace: str
) -> None:
    url = runtime.clickhouse
    await sql(http, url, f"CREATE DATABASE {namespace}")
    await sql(http, url, f"CREATE TABLE {namespace}.t (a UInt64) ENGINE = MergeTree ORDER BY a")
    text = f"INSERT INTO {namespace}.t SELECT number + sleepEachRow(0.1) FROM numbers(10)"
    request = asyncio.create_task(sql(http, url, text))
    await until_running(http, url, text, 1)
    request.cancel()
    await until_running(http, url, text, 0)
    assert await sql(http, url, f"SELECT count() FROM {namespace}.t") == "10"
    await sql(http, url, f"DROP DATABASE {namespace}")


async def test_kill_query_finds_the_id_that_the_client_gave(
    runtime: Runtime, http: aiohttp.ClientSession, namespace: str
) -> None:
    url = runtime.clickhouse

    async def run() -> tuple[int, str]:
        async with http.post(url, data=FOREVER, params={"query_id": namespace}) as response:
            assert response.headers["X-ClickHouse-Query-Id"] == namespace
            return response.status, await response.text()

    request = asyncio.create_task(run())
    await until_running(http, url, FOREVER, 1)
    async with http.post(url, data="SELECT 1", params={"query_id": namespace}) as response:
        assert "Code: 216." in await response.text()  # an id is in use once
    await sql(http, url, "KILL QUERY WHERE query_id = 'another' ASYNC")
    await until_running(http, url, FOREVER, 1)
    assert await sql(http, url, f"KILL QUERY WHERE query_id = '{namespace}' SYNC")
    status, text = await request
    assert (status, "Code: 394." in text) == (500, True)


async def test_a_time_limit_ends_a_query_in_pieces_as_well(
    runtime: Runtime, http: aiohttp.ClientSession
) -> None:
    async with http.post(
        runtime.clickhouse, data=FOREVER, params={"max_execution_time": "0.3"}
    ) as response:
        assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (408, "159")
    with pytest.raises(aiohttp.ClientPayloadError):
        await sql(
            http,
            runtime.clickhouse,
            "SELECT number FROM system.numbers",
            max_execution_time="0.5",
        )


async def test_queries_run_beside_each_other(runtime: Runtime, http: aiohttp.ClientSession) -> None:
    url = runtime.clickhouse
    slow = [asyncio.create_task(sql(http, url, IDLE)) for _ in range(10)]
    await until_running(http, url, IDLE, 10)
    answers = await asyncio.gather(
        *(sql(http, url, f"SELECT {n}, sum(number) FROM numbers({n})") for n in range(1, 40))
    )
    assert answers == [f"{n}\t{n * (n - 1) // 2}" for n in range(1, 40)]
    assert not any(task.done() for task in slow)
    await cancel(*slow)
    await until_running(http, url, IDLE, 0)


async def test_too_many_queries_at_once_are_refused_and_the_rest_goes_on(
    runtime: Runtime, http: aiohttp.ClientSession
) -> None:
    url = runtime.clickhouse

    async def run() -> None:
        async with http.post(url, data=IDLE) as response:
            assert response.status == 500
            assert "Code: 202." in await response.text()

    asked = [asyncio.create_task(run()) for _ in range(QUERIES_AT_ONCE_MAX + 16)]
    async with asyncio.timeout(PATIENCE_S):
        while sum(task.done() for task in asked) < 16:  # noqa: ASYNC110, the others never end
            await asyncio.sleep(0.02)
    async with http.post(url, data="SELECT 1") as response:
        assert "Code: 202." in await response.text(), "there is no room yet"
    for task in asked:
        if task.done():
            task.result()
    assert sum(task.done() for task in asked) == 16
    await cancel(*asked)
    async with asyncio.timeout(PATIENCE_S):
        while not await has_room(http, url):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await sql(http, url, "SELECT 1") == "1"


async def has_room(http: aiohttp.ClientSession, url: str) -> bool:
    async with http.post(url, data="SELECT 1") as response:
        return response.status == 200


async def test_a_body_beyond_the_limit_is_refused(
    runtime: Runtime, http: aiohttp.ClientSession
) -> None:
    async def zeros() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield bytes(1 << 20)

    # The server may close before all is sent.
    try:
        async with http.post(runtime.clickhouse, data=zeros()) as response:
            assert response.status == 413
    except aiohttp.ClientOSError:
        pass
    assert await sql(http, runtime.clickhouse, "SELECT 1") == "1"


async def test_the_summary_counts_what_was_written(
    runtime: Runtime, http: aiohttp.ClientSession, namespace: str
) -> None:
    url = runtime.clickhouse
    await sql(http, url, f"CREATE DATABASE {namespace}")
    await sql(http, url, f"CREATE TABLE {namespace}.t (a UInt64) ENGINE = MergeTree ORDER BY a")
    query = {"query": f"INSERT INTO {namespace}.t FORMAT TSV", "async_insert": "0"}
    async with http.post(url, params=query, data="1\n2\n3\n") as response:
        summary = json.loads(response.headers["X-ClickHouse-Summary"])
    await sql(http, url, f"DROP DATABASE {namespace}")
    assert summary["written_rows"] == "3"
