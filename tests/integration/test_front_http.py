"""The embedded engine answers HTTP as a ClickHouse server does."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator

import aiohttp
import lz4.block
import lz4.frame
import pytest
from backports import zstd

from alpha_pulse.embedded.front.compression import checksum, decompress_blocks
from alpha_pulse.embedded.runtime import Runtime

pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


@pytest.fixture
async def database(
    runtime: Runtime, namespace: str, http: aiohttp.ClientSession
) -> AsyncIterator[str]:
    await run(http, runtime.clickhouse, f"CREATE DATABASE {namespace} ENGINE = Atomic")
    yield namespace
    await run(http, runtime.clickhouse, f"DROP DATABASE {namespace}")


async def run(
    http: aiohttp.ClientSession,
    url: str,
    text: str | bytes,
    *,
    status: int = 200,
    **params: str,
) -> str:
    async with http.post(url, data=text, params=params) as response:
        answer = await response.text()
        assert response.status == status, answer
        return answer


async def test_a_query_comes_from_the_url_the_body_or_both(
    runtime: Runtime, database: str, http: aiohttp.ClientSession
) -> None:
    url = runtime.clickhouse
    async with http.get(url, params={"query": "SELECT 1 + 1"}) as response:
        assert await response.text() == "2\n"
    await run(http, url, f"CREATE TABLE {database}.t (a UInt64, b String) ENGINE = Memory")
    rows = b'{"a": 1, "b": "x"}\n{"a": 2, "b": "FORMAT Native"}'
    await run(http, url, rows, query=f"INSERT INTO {database}.t FORMAT JSONEachRow")
    await run(http, url, b"(3, 'y'), (4, 'z')", query=f"INSERT INTO {database}.t VALUES")
    await run(http, url, f"INSERT INTO {database}.t FORMAT CSV\n5,w\n")
    found = await run(http, url, f"SELECT * FROM {database}.t ORDER BY a FORMAT JSONEachRow")
    assert [json.loads(line)["b"] for line in found.splitlines()] == [
        "x",
        "FORMAT Native",
        "y",
        "z",
        "w",
    ]


async def test_binary_rows_that_look_like_white_space_arrive_whole(
    runtime: Runtime, database: str, http: aiohttp.ClientSession
) -> None:
    await run(http, runtime.clickhouse, f"CREATE TABLE {database}.t (a UInt8) ENGINE = Memory")
    rows = b"\n\r\t \n;"
    await run(http, runtime.clickhouse, rows, query=f"INSERT INTO {database}.t FORMAT RowBinary\n")
    found = await run(http, runtime.clickhouse, f"SELECT groupArray(a) FROM {database}.t")
    assert json.loads(found) == list(rows)


async def test_a_refused_row_is_an_error_and_nothing_of_its_block_is_stored(
    runtime: Runtime, database: str, http: aiohttp.ClientSession
) -> None:
    url = runtime.clickhouse
    await run(
        http,
        url,
        f"CREATE TABLE {database}.t (a UInt64, CONSTRAINT small CHECK a < 10) "
        f"ENGINE = MergeTree ORDER BY a PARTITION BY a",
    )
    insert = f"INSERT INTO {database}.t FORMAT JSONEachRow"
    for rows, code in (
        (b'{"a": 1}\n{"a": 11}', 469),  # VIOLATED_CONSTRAINT
        (b'{"a": 1}\n{"a": rubbish}', 117),
    ):
        for mode in ({"async_insert": "0"}, {}):
            async with http.post(url, data=rows, params={"query": insert, **mode}) as response:
                assert response.status >= 400
                text = await response.text()
                assert f"Code: {response.headers['X-ClickHouse-Exception-Code']}." in text
                if code == 469:
                    assert response.headers["X-ClickHouse-Exception-Code"] == "469"
    many = f"INSERT INTO {database}.p SELECT number FROM numbers(200)"
    await run(
        http,
        url,
        f"CREATE TABLE {database}.p (a UInt64) ENGINE = MergeTree ORDER BY a PARTITION BY a",
    )
    assert "Code: 252." in await run(http, url, many, status=500)
    rows = b"\n".join(b'{"a": %d}' % number for number in range(200))
    query = f"INSERT INTO {database}.p FORMAT JSONEachRow"
    assert "Code: 252." in await run(http, url, rows, status=500, query=query, async_insert="0")
    assert await run(http, url, f"SELECT count() FROM {database}.t") == "0\n"
    assert await run(http, url, f"SELECT count() FROM {database}.p") == "0\n"


@pytest.mark.parametrize("format_name", ["JSONEachRow", "TSV", "CSV", "Values", "Native"])
async def test_rows_are_never_taken_for_statements(
    runtime: Runtime, database: str, http: aiohttp.ClientSession, format_name: str
) -> None:
    url = runtime.clickhouse
    await run(http, url, f"CREATE TABLE {database}.t (a String) ENGINE = Memory")
    await run(http, url, f"CREATE TABLE {database}.precious (a String) ENGINE = Memory")
    rows = f"\n\nDROP TABLE {database}.precious\n\n;\nDROP TABLE {database}.precious".encode()
    for start in (b"", b'{"a":"1"}', b"1", b"('1')"):
        for query in ({}, {"query": f"INSERT INTO {database}.t FORMAT {format_name}"}):
            head = b"" if query else f"INSERT INTO {database}.t FORMAT {format_name}\n".encode()
            async with http.post(url, params=query, data=head + start + rows) as response:
                await response.read()
    assert await run(http, url, f"EXISTS TABLE {database}.precious") == "1\n"


async def test_empty_lines_between_rows_lose_nothing(
    runtime: Runtime, database: str, http: aiohttp.ClientSession
) -> None:
    await run(http, runtime.clickhouse, f"CREATE TABLE {database}.t (a String) ENGINE = Memory")
    rows = b'{"a": "1"}\n\n{"a": "2"}\n\n\n{"a": "3\\n\\n4"}'
    await run(http, runtime.clickhouse, rows, query=f"INSERT INTO {database}.t FORMAT JSONEachRow")
    found = await run(http, runtime.clickhouse, f"SELECT a FROM {database}.t ORDER BY a FORMAT CSV")
    assert found == '"1"\n"2"\n"3\n\n4"\n'
    await run(http, runtime.clickhouse, found, query=f"INSERT INTO {database}.t FORMAT CSV")
    assert await run(http, runtime.clickhouse, f"SELECT count() FROM {database}.t") == "6\n"


async def test_defaults_are_computed_whether_columns_are_listed_or_not(
    runtime: Runtime, database: str, http: aiohttp.ClientSession
) -> None:
    url = runtime.clickhouse
    await run(
        http,
        url,
        f"CREATE TABLE {database}.t (a UInt64, e String EPHEMERAL 'none', "
        f"b String DEFAULT upper(e), c UInt64 DEFAULT a * 2) ENGINE = MergeTree ORDER BY a",
    )
    rows = b'{"a": 1, "e": "x"}\n{"a": 2}'
    listed = f"INSERT INTO {database}.t (a, e) FORMAT JSONEachRow"
    await run(http, url, rows, query=listed, async_insert="0")
    found = await run(http, url, f"SELECT a, b, c FROM {database}.t ORDER BY a")
    assert found == "1\tX\t2\n2\tNONE\t4\n"
    await run(http, url, f"TRUNCATE TABLE {database}.t")
    unlisted = f"INSERT INTO {database}.t FORMAT JSONEachRow"
    await run(http, url, rows, query=unlisted, async_insert="0")
    found = await run(http, url, f"SELECT a, b, c FROM {database}.t ORDER BY a")
    assert found == "1\tNONE\t2\n2\tNONE\t4\n"


async def test_a_repeated_insert_with_the_same_token_is_stored_once(
    runtime: Runtime, database: str, http: aiohttp.ClientSession
) -> None:
    await run(
        http,
        runtime.clickhouse,
        f"CREATE TABLE {database}.t (a UInt64) ENGINE = MergeTree ORDER BY a "
        f"SETTINGS non_replicated_deduplication_window = 100",
    )
    for token in ("one", "one", "two"):
        await run(
            http,
            runtime.clickhouse,
            b'{"a": 1}',
            query=f"INSERT INTO {database}.t FORMAT JSONEachRow",
            insert_deduplication_token=token,
            async_insert="0",
        )
    assert await run(http, runtime.clickhouse, f"SELECT count() FROM {database}.t") == "2\n"


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("SELECT * FROM no_such_table", 404, 60),
        ("SELECT no_such_column", 404, 47),
        ("SELEC 1", 400, 62),
        ("SELECT 1; SELECT 2", 400, 62),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT sleep(3) SETTINGS max_execution_time = 0.1", 408, 159),
    ],
)
async def test_errors_have_clickhouses_codes_and_statuses(
    runtime: Runtime, http: aiohttp.ClientSession, text: str, status: int, code: int
) -> None:
    async with http.post(runtime.clickhouse, data=text) as response:
        answer = await response.text()
        assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (
            status,
            str(code),
        ), answer
    assert answer.startswith(f"Code: {code}. DB::Exception: ")
    assert answer.count("DB::Exception") <= 2
    assert "(version 26.9" in answer


async def test_an_unknown_setting_is_refused_and_does_not_stay(
    runtime: Runtime, http: aiohttp.ClientSession
) -> None:
    url = runtime.clickhouse
    assert "Code: 115." in await run(http, url, "SELECT 1", status=404, no_such_setting="1")
    shown = "SELECT getSetting('max_threads'), getSetting('join_use_nulls')"
    assert await run(http, url, shown, max_threads="1", join_use_nulls="1") == "1\ttrue\n"
    for _ in range(40):  # each of the kept connections
        assert await run(http, url, "SELECT getSetting('join_use_nulls')") == "false\n"


async def test_get_may_only_read(runtime: Runtime, http: aiohttp.ClientSession) -> None:
    query = {"query": "CREATE DATABASE made_by_get"}
    async with http.get(runtime.clickhouse, params=query) as response:
        assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (500, "164")


async def test_parameters_reach_the_query(runtime: Runtime, http: aiohttp.ClientSession) -> None:
    text = "SELECT {a:UInt64} + 1, {b:String} FORMAT TSVRaw"
    found = await run(http, runtime.clickhouse, text, param_a="41", param_b="it's")
    assert found == "42\tit's\n"


async def test_a_session_keeps_its_state_and_is_used_by_one_at_a_time(
    runtime: Runtime, namespace: str, http: aiohttp.ClientSession
) -> None:
    url = runtime.clickhouse
    await run(http, url, "CREATE TEMPORARY TABLE kept (a UInt8)", session_id=namespace)
    await run(http, url, "INSERT INTO kept VALUES (7)", session_id=namespace)
    assert await run(http, url, "SELECT a FROM kept", session_id=namespace) == "7\n"
    await run(http, url, "SELECT a FROM kept", status=404)
    await run(http, url, "SET max_threads = 3", session_id=namespace)
    shown = "SELECT getSetting('max_threads')"
    assert await run(http, url, shown, session_id=namespace) == "3\n"
    none = await run(http, url, "SELECT 1", status=500, session_id="none", session_check="1")
    assert "Code: 372." in none
    # Runs until it is cancelled, and takes nothing from the machine.
    idle = "SELECT sum(sleepEachRow(0.1)) FROM numbers(100000) SETTINGS max_block_size = 1"
    slow = asyncio.create_task(run(http, url, idle, session_id=namespace))
    like = f"SELECT count() FROM system.processes WHERE query LIKE '{idle}%'"
    while await run(http, url, like) != "1\n":  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    locked = await run(http, url, "SELECT 1", status=500, session_id=namespace)
    assert "Code: 373." in locked
    slow.cancel()
    while await run(http, url, like) != "0\n":  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_the_database_parameter_is_where_names_are_looked_up(
    runtime: Runtime, database: str, http: aiohttp.ClientSession
) -> None:
    url = runtime.clickhouse
    await run(http, url, "CREATE TABLE t (a UInt8) ENGINE = Memory", database=database)
    assert await run(http, url, "SELECT count() FROM t", database=database) == "0\n"
    await run(http, url, "SELECT count() FROM t", status=404)
    async with http.post(
        url, data="SELECT currentDatabase()", headers={"X-ClickHouse-Database": database}
    ) as response:
        assert await response.text() == f"{database}\n"
    assert "Code: 81." in await run(http, url, "SELECT 1", status=404, database="no_such")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "lz4"])
async def test_bodies_are_compressed_both_ways(
    runtime: Runtime, database: str, http: aiohttp.ClientSession, encoding: str
) -> None:
    packs = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "zstd": zstd.compress,
        "lz4": lz4.frame.compress,
    }
    unpacks = {
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "zstd": zstd.decompress,
        "lz4": lz4.frame.decompress,
    }
    await run(http, runtime.clickhouse, f"CREATE TABLE {database}.t (a UInt64) ENGINE = Memory")
    rows = b"".join(b"%d\n" % number for number in range(50_000))
    async with http.post(
        runtime.clickhouse,
        params={"query": f"INSERT INTO {database}.t FORMAT TSV"},
        data=packs[encoding](rows),
        headers={"Content-Encoding": encoding},
    ) as response:
        assert response.status == 200, await response.text()
    for limit in (50_000, 5_000):  # in pieces, whole
        async with http.post(
            runtime.clickhouse,
            params={"enable_http_compression": "1"},
            data=f"SELECT a FROM {database}.t ORDER BY a LIMIT {limit}",
            headers={"Accept-Encoding": encoding},
        ) as response:
            assert response.headers["Content-Encoding"] == encoding
            content = unpacks[encoding](await response.read())
        assert content == b"".join(b"%d\n" % number for number in range(limit))


async def test_clickhouses_own_blocks_go_both_ways(
    runtime: Runtime, database: str, http: aiohttp.ClientSession
) -> None:
    await run(http, runtime.clickhouse, f"CREATE TABLE {database}.t (a UInt64) ENGINE = Memory")
    rows = b"1\n2\n3\n"
    packed = lz4.block.compress(rows, store_size=False)
    sizes = (len(packed) + 9).to_bytes(4, "little") + len(rows).to_bytes(4, "little")
    block = b"\x82" + sizes + packed
    body = checksum(block) + block
    insert = f"INSERT INTO {database}.t FORMAT TSV"
    await run(http, runtime.clickhouse, body, query=insert, decompress="1")
    async with http.post(
        runtime.clickhouse, params={"compress": "1"}, data=f"SELECT sum(a) FROM {database}.t"
    ) as response:
        content = await response.read()
    assert content[:16] == checksum(content[16:])
    assert decompress_blocks(content, 1000) == b"6\n"
    spoiled = bytes([body[0] ^ 1]) + body[1:]
    assert "checksum" in await run(
        http, runtime.clickhouse, spoiled, query=insert, decompress="1", status=400
    )
    assert "cut short" in await run(
        http, runtime.clickhouse, body[:-1], query=insert, decompress="1", status=400
    )


async def test_a_web_page_is_kept_out(runtime: Runtime, http: aiohttp.ClientSession) -> None:
    for headers in (
        {"Origin": "https://example.com"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "rebound.example.com:8123"},
    ):
        async with http.post(runtime.clickhouse, data="SELECT 1", headers=headers) as response:
            assert response.status == 403, headers
    async with http.get(f"{runtime.clickhouse}/ping") as response:
        assert (response.status, await response.text()) == (200, "Ok.\n")
