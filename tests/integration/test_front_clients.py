"""Unmodified clients of ClickHouse work against the embedded engine."""

import asyncio
import os
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from alpha_pulse.embedded.front.users import Login, Role
from tests.servers import started

LOGINS = [Login("admin", "secret", Role.ADMIN), Login("reader", "secret", Role.READER)]
TOOL_TIMEOUT_S = 600


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a ClickHouse with users; without name and password."""
    folder = tmp_path_factory.mktemp("clients")
    with started(folder, kafka="127.0.0.1:1", clickhouse_logins=LOGINS) as runtime:
        parts = urlsplit(runtime.clickhouse)
        client = connect(f"http://{parts.hostname}:{parts.port}")
        client.command("CREATE DATABASE d ENGINE = Atomic")
        client.command(
            "CREATE TABLE d.t (id UInt64, at DateTime64(6, 'UTC'), price Decimal(38, 12), "
            "symbol LowCardinality(String), note Nullable(String), tags Array(String)) "
            "ENGINE = MergeTree ORDER BY id"
        )
        client.command(
            "INSERT INTO d.t SELECT number, toDateTime64('2024-01-01 00:00:00', 6, 'UTC') + "
            "number, number / 4, ['BTC/USDT', 'ETH/USDT'][number % 2 + 1], "
            "if(number % 3 = 0, NULL, toString(number)), [toString(number), 'x'] "
            "FROM numbers(100000)"
        )
        client.close()
        yield f"http://{parts.hostname}:{parts.port}"


def connect(url: str, user: str = "admin", **options: Any) -> Any:
    parts = urlsplit(url)
    return clickhouse_connect.get_client(
        host=parts.hostname, port=parts.port, username=user, password="secret", **options
    )


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    client = connect(url)
    yield client
    client.command("DROP TABLE IF EXISTS d.mine")
    client.close()


ROW_1 = (
    1,
    datetime(2024, 1, 1, 0, 0, 1),  # noqa: DTZ001  (UTC, which the client does not say)
    Decimal("0.25"),
    "ETH/USDT",
    "1",
    ["1", "x"],
)


def test_clickhouse_connect_reads_every_type(client: Any) -> None:
    result = client.query("SELECT * FROM d.t ORDER BY id LIMIT 2")
    assert result.column_names == ("id", "at", "price", "symbol", "note", "tags")
    assert result.result_rows[1] == ROW_1
    assert result.result_rows[0][4] is None


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_clickhouse_connect_streams_and_inserts_in_every_compression(
    url: str, compress: str | bool
) -> None:
    client = connect(url, compress=compress)
    with client.query_row_block_stream("SELECT id, note FROM d.t ORDER BY id") as stream:
        count = sum(len(block) for block in stream)
    assert count == 100_000
    client.command("CREATE TABLE d.mine (a UInt64, p Decimal(38, 12)) ENGINE = Memory")
    client.insert("d.mine", [[n, Decimal(n) / 8] for n in range(20_000)], column_names=["a", "p"])
    found = client.query("SELECT count(), sum(p) FROM d.mine").result_rows
    client.command("DROP TABLE d.mine")
    client.close()
    assert found == [(20_000, Decimal("24998750"))]


def test_clickhouse_connect_raw_insert_raises_what_the_engine_refuses(client: Any) -> None:
    client.command(
        "CREATE TABLE d.mine (a UInt64, CONSTRAINT small CHECK a < 10) ENGINE = MergeTree "
        "ORDER BY a"
    )
    with pytest.raises(DatabaseError, match=r"(?s)469.*small"):
        client.raw_insert("d.mine", insert_block=b'{"a": 1}\n{"a": 11}\n', fmt="JSONEachRow")
    client.raw_insert(
        "d.mine",
        column_names=["a"],
        insert_block=b'{"a": 1}\n{"a": 2}\n',
        fmt="JSONEachRow",
        settings={"async_insert": 0, "insert_deduplication_token": "x"},
    )
    assert client.command("SELECT count() FROM d.mine") == 2


def test_clickhouse_connect_frames_arrow_parameters_and_contexts(client: Any) -> None:
    frame = client.query_df("SELECT id, symbol FROM d.t ORDER BY id LIMIT 3")
    assert frame["id"].tolist() == [0, 1, 2]
    table = client.query_arrow("SELECT id, symbol FROM d.t ORDER BY id LIMIT 70000")
    assert table.num_rows == 70_000
    client.command("CREATE TABLE d.mine (id UInt64, symbol String) ENGINE = Memory")
    client.insert_arrow("d.mine", table)
    found = client.query(
        "SELECT count() FROM d.mine WHERE symbol = {symbol:String} AND id < {id:UInt64}",
        parameters={"symbol": "BTC/USDT", "id": 10},
    )
    assert found.result_rows == [(5,)]


def test_clickhouse_connect_as_a_reader(url: str) -> None:
    client = connect(url, "reader")
    assert client.query("SELECT count() FROM d.t").result_rows == [(100_000,)]
    with pytest.raises(DatabaseError, match="497"):
        client.command("DROP TABLE d.t")
    client.close()


def test_clickhouse_connect_sees_a_failure_half_way(client: Any) -> None:
    text = "SELECT number, throwIf(number = 900000, 'half way') FROM numbers(1000000)"
    with (
        pytest.raises(DatabaseError, match="half way"),
        client.query_row_block_stream(text) as stream,
    ):
        for _ in stream:
            pass


async def test_the_async_clickhouse_connect_works_as_well(url: str) -> None:
    parts = urlsplit(url)
    client = await clickhouse_connect.get_async_client(
        host=parts.hostname, port=parts.port, username="admin", password="secret"
    )
    result = await client.query("SELECT * FROM d.t ORDER BY id LIMIT 2")
    assert result.result_rows[1] == ROW_1
    counts = await asyncio.gather(
        *(client.query(f"SELECT count() + {n} FROM d.t") for n in range(20))
    )
    assert [r.result_rows[0][0] for r in counts] == [100_000 + n for n in range(20)]
    await client.command("CREATE TABLE d.async (a UInt64) ENGINE = Memory")
    await client.insert("d.async", [[1], [2]], column_names=["a"])
    assert await client.command("SELECT sum(a) FROM d.async") == 3
    await client.command("DROP TABLE d.async")
    await client.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(url: str) -> None:
    def curl(*arguments: str) -> str:
        return subprocess.run(
            ["curl", "-sS", "--fail-with-body", "-u", "reader:secret", *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=TOOL_TIMEOUT_S,
        ).stdout

    assert curl(url, "-d", "SELECT count() FROM d.t") == "100000\n"
    assert curl("-G", url, "--data-urlencode", "query=SELECT 1 FORMAT CSV") == "1\n"
    large = curl("--compressed", f"{url}/?enable_http_compression=1", "-d", "SELECT id FROM d.t")
    assert len(large.splitlines()) == 100_000
    assert curl(f"{url}/?param_a=5", "-F", "query=SELECT {a:UInt8} + 1") == "6\n"


NODE_PROGRAM = """
import { createClient } from '@clickhouse/client'
const client = createClient({ url: process.argv[2], username: 'admin', password: 'secret',
  compression: { response: true, request: true } })
const check = (ok, what) => { if (!ok) { console.error('failed: ' + what); process.exit(1) } }
check((await client.ping()).success, 'ping')
const json = await (await client.query({ query: 'SELECT id, symbol FROM d.t ORDER BY id LIMIT 3' }))
  .json()
check(json.rows === 3 && json.data[1].symbol === 'ETH/USDT', 'json')
const rows = await client.query({ query: 'SELECT id FROM d.t', format: 'JSONEachRow' })
let count = 0
for await (const part of rows.stream()) count += part.length
check(count === 100000, 'stream')
const params = await client.query({ query: 'SELECT {a:UInt32} + 1 AS b', query_params: { a: 41 },
  format: 'JSONEachRow' })
check((await params.json())[0].b === 42, 'params')
await client.command({ query: 'CREATE TABLE d.node (a UInt64) ENGINE = Memory' })
await client.insert({ table: 'd.node', values: [{ a: 1 }, { a: 2 }], format: 'JSONEachRow' })
const sum = await client.query({ query: 'SELECT sum(a) AS s FROM d.node', format: 'JSONEachRow' })
check(Number((await sum.json())[0].s) === 3, 'insert')
await client.command({ query: 'DROP TABLE d.node' })
try {
  await client.query({ query: 'SELECT * FROM no_such_table' })
  check(false, 'error')
} catch (error) { check(error.code === '60', 'code of the error: ' + error.code) }
await client.close()
console.log('done')
"""


@pytest.mark.skipif(shutil.which("npm") is None, reason="node and npm are not installed")
def test_the_official_node_client(url: str, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "trial", "private": true}')
    (tmp_path / "trial.mjs").write_text(NODE_PROGRAM)
    install = ["npm", "install", "--no-audit", "--no-fund", "@clickhouse/client@1.23.1"]
    installed = subprocess.run(
        install, cwd=tmp_path, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S
    )
    if installed.returncode != 0:
        pytest.skip(f"@clickhouse/client cannot be installed here: {installed.stderr[-200:]}")
    ran = subprocess.run(
        ["node", "trial.mjs", url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TOOL_TIMEOUT_S,
    )
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


NATIVE_COLUMNS = {
    "UInt8": "number::UInt8",
    "Int256": "number::Int256",
    "Float64": "number / 3",
    "Bool": "number % 2 = 0",
    "String": "repeat('x', number % 300)",
    "FixedString(5)": "toFixedString('abc', 5)",
    "Decimal(9, 2)": "number::Decimal(9, 2)",
    "Decimal(18, 2)": "number::Decimal(18, 2)",
    "Decimal(38, 12)": "number::Decimal(38, 12)",
    "Decimal(76, 12)": "number::Decimal(76, 12)",
    "Date": "toDate(number)",
    "Date32": "toDate32(number)",
    "DateTime('UTC')": "toDateTime(number, 'UTC')",
    "DateTime64(6, 'UTC')": "toDateTime64(number, 6, 'UTC')",
    "UUID": "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')",
    "IPv4": "toIPv4('1.2.3.4')",
    "IPv6": "toIPv6('::1')",
    "Enum8": "CAST(number % 2, 'Enum8(\\'a, (b\\' = 0, \\'it`s)\\' = 1)')",
    "Interval": "toIntervalDay(number)",
    "Nullable(String)": "if(number % 3 = 0, NULL, toString(number))",
    "Nullable(Nothing)": "NULL",
    "LowCardinality(String)": "toLowCardinality(toString(number % 300))",
    "LowCardinality(Nullable)": "toLowCardinality(if(number % 7 = 0, NULL, toString(number % 3)))",
    "Array(UInt16)": "range(number % 5)::Array(UInt16)",
    "Array(Array)": "arrayMap(x -> range(x), range(number % 4))",
    "Array(empty)": "[]::Array(String)",
    "Array(LowCardinality)": "arrayMap(x -> toLowCardinality(toString(x)), range(number % 3))",
    "Map": "map('a', number, 'b', number + 1)",
    "Map of LowCardinality": "map(toLowCardinality(toString(number % 3)), [number])",
    "Tuple": "(number, 'x', [number])",
    "named Tuple": "CAST((number, 'x'), 'Tuple(a UInt64, `b c` String)')",
}


@pytest.mark.parametrize("rows", [0, 1, 1000])
def test_native_blocks_are_framed_right_for_every_type(url: str, rows: int) -> None:
    client = connect(url)

    def native(columns: str, **settings: Any) -> bytes:
        text = f"SELECT {columns} FROM numbers({rows}) SETTINGS max_block_size = 100000"
        return bytes(client.raw_query(text, fmt="Native", settings=settings))

    names = [f"c{number}" for number in range(len(NATIVE_COLUMNS))]
    columns = [f"{sql} AS {name}" for name, sql in zip(names, NATIVE_COLUMNS.values(), strict=True)]
    expected = b""
    for name, column in zip(names, columns, strict=True):
        alone = native(column)
        if not alone:
            continue
        # One column, then the rows as a varint, then name, type and values.
        at = 2 if rows < 128 else 3
        start = at
        for _ in range(2):
            at += 1 + alone[at]
        assert alone[start + 1 : start + 1 + len(name)] == name.encode()
        expected += alone[start:at] + b"\0" + alone[at:]
    together = native(", ".join(columns))
    framed = native(", ".join(columns), client_protocol_version=54460)
    client.close()
    if not together:
        assert framed == b""
        return
    info = b"\x01\x00\x02\xff\xff\xff\xff\x00"
    assert framed == info + together[: 2 if rows < 128 else 3] + expected


GO_PROGRAM = """
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/shopspring/decimal"
)

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func try(method clickhouse.CompressionMethod) {
	db := clickhouse.OpenDB(&clickhouse.Options{
		Addr: []string{os.Args[1]}, Protocol: clickhouse.HTTP,
		Auth:        clickhouse.Auth{Database: "d", Username: "reader", Password: "secret"},
		Compression: &clickhouse.Compression{Method: method},
		Settings:    clickhouse.Settings{"max_execution_time": 30},
	})
	check(db.PingContext(context.Background()))
	columns := "id, at, price, symbol, note, tags, map('a', 1)"
	rows, err := db.Query("SELECT " + columns + " FROM t ORDER BY id")
	check(err)
	var count uint64
	for rows.Next() {
		var id uint64
		var at time.Time
		var price decimal.Decimal
		var symbol string
		var note *string
		var tags []string
		var m map[string]uint8
		check(rows.Scan(&id, &at, &price, &symbol, &note, &tags, &m))
		if id != count || at.Unix() != int64(1704067200+id) || len(tags) != 2 || m["a"] != 1 {
			fmt.Println("failed: row", id, at, price, symbol, tags)
			os.Exit(1)
		}
		expected := decimal.New(int64(id), 0).Div(decimal.New(4, 0))
		if (note == nil) != (id%3 == 0) || !price.Equal(expected) {
			fmt.Println("failed: values of row", id, price)
			os.Exit(1)
		}
		count++
	}
	check(rows.Err())
	if count != 100000 {
		fmt.Println("failed: rows", count)
		os.Exit(1)
	}
	var none uint64
	check(db.QueryRow("SELECT count() FROM t WHERE id > ?", 1000000).Scan(&none))
	check(db.Close())
}

func main() {
	try(clickhouse.CompressionNone)
	try(clickhouse.CompressionGZIP)
	try(clickhouse.CompressionLZ4)
	fmt.Println("done")
}
"""


@pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed")
def test_clickhouse_go_selects_over_http(url: str, tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text(
        textwrap.dedent(
            """\
            module trial

            go 1.21

            require (
                github.com/ClickHouse/clickhouse-go/v2 v2.40.1
                github.com/shopspring/decimal v1.4.0
            )
            """
        )
    )
    (tmp_path / "main.go").write_text(GO_PROGRAM)

    def go(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["go", *arguments],
            cwd=tmp_path,
            env={**os.environ, "CGO_ENABLED": "0", "GOGC": "400"},
            capture_output=True,
            text=True,
            timeout=TOOL_TIMEOUT_S,
        )

    fetched = go("mod", "tidy")
    if fetched.returncode != 0:
        pytest.skip(f"clickhouse-go cannot be fetched here: {fetched.stderr[-200:]}")
    # Neither optimised nor made for a debugger: most of the time here is the compiler's.
    built = go("build", "-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w", "-o", "trial", ".")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run(
        [str(tmp_path / "trial"), url.removeprefix("http://")],
        capture_output=True,
        text=True,
        timeout=TOOL_TIMEOUT_S,
    )
    assert (ran.returncode, ran.stdout) == (0, "done\n")
