"""Users of the embedded engine: what each role may do, and what none but an administrator may."""

import base64
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from alpha_pulse.embedded.front.users import Login, Role
from alpha_pulse.embedded.runtime import Runtime
from tests.servers import started

PASSWORD = "correct horse: battery/staple@"
LOGINS = [Login(role.value, PASSWORD, role) for role in Role]


class Server:
    """A ClickHouse with users, and a file on its machine that only an administrator may read."""

    def __init__(self, runtime: Runtime, secret: Path) -> None:
        self.runtime = runtime
        self.secret = secret
        self.url = re.sub("//.*@", "//", runtime.clickhouse)

    async def run(
        self, user: str, text: str, password: str = PASSWORD, **params: str
    ) -> tuple[int, str]:
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(self.url, data=text, params=params) as response,
        ):
            return response.status, (await response.text()).strip()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("users")
    secret = path / "secret.csv"
    secret.write_text("a\n1\n")
    with started(path / "data", kafka="127.0.0.1:1", clickhouse_logins=LOGINS) as runtime:
        yield Server(runtime, secret)


@pytest.fixture
async def server(running: Server) -> AsyncIterator[Server]:
    for text in (
        "CREATE DATABASE d ENGINE = Atomic",
        "CREATE TABLE d.t (a UInt64, file String DEFAULT 'x') ENGINE = MergeTree ORDER BY a",
        "INSERT INTO d.t (a) SELECT number FROM numbers(10)",
        "CREATE VIEW d.v AS SELECT a FROM d.t WHERE a > 4",
    ):
        assert (await running.run("admin", text)) == (200, "")
    yield running
    await running.run("admin", "DROP DATABASE d")


async def test_a_wrong_name_and_a_wrong_password_look_the_same(server: Server) -> None:
    wrong = []
    for user, password in (("admin", "wrong"), ("admin", ""), ("nobody", PASSWORD)):
        status, text = await server.run(user, "SELECT 1", password)
        assert status == 403
        assert "Code: 516." in text
        wrong.append(text.replace(user, "?"))
    assert len(set(wrong)) == 1
    async with aiohttp.ClientSession() as session, session.post(server.url, data="1") as response:
        assert response.status == 403  # `default` is not a user here
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/ping") as response:
        assert response.status == 200


async def test_credentials_come_by_header_by_parameter_and_in_the_url(server: Server) -> None:
    async with aiohttp.ClientSession() as session:
        headers = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": PASSWORD}
        async with session.post(server.url, data="SELECT 1", headers=headers) as response:
            assert response.status == 200
        params = {"user": "reader", "password": PASSWORD}
        async with session.post(server.url, data="SELECT 1", params=params) as response:
            assert response.status == 200
        async with session.post(server.runtime.clickhouse, data="SELECT 1") as response:
            assert response.status == 200


def test_passwords_are_kept_as_hashes_in_a_file_of_the_owner(running: Server) -> None:
    path = running.runtime.data_dir / "clickhouse" / "users.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    for file in running.runtime.data_dir.rglob("*"):
        if file.is_file():
            assert PASSWORD.encode() not in file.read_bytes()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert PASSWORD.encode() not in command.read_bytes()
        except OSError:
            continue


READS = [
    "SELECT count() FROM d.t",
    "SELECT a, t.file FROM d.t AS t ORDER BY a LIMIT 1",
    "SELECT * FROM d.v",
    "WITH x AS (SELECT 1 AS a) SELECT * FROM x",
    "SELECT number FROM numbers(3)",
    "SELECT a FROM d.v UNION DISTINCT SELECT 5 ORDER BY 1",
    "SELECT * FROM merge('d', '^t$')",
    "SELECT * FROM values('a UInt8', 1, 2)",
    "SHOW TABLES FROM d",
    "SHOW TABLES FROM d LIKE 't%'",
    "SHOW DATABASES",
    "SHOW CREATE TABLE d.t",
    "DESCRIBE TABLE d.t",
    "DESCRIBE (SELECT 1)",
    "EXISTS TABLE d.t",
    "EXPLAIN SELECT * FROM d.t",
    "SELECT name FROM system.tables WHERE database = 'd'",
    'SELECT a AS "BTC/USDT" FROM d.t ORDER BY "BTC/USDT" DESC',
    "SELECT arrayMap(x -> x + 1, [1, 2])",
    "SELECT format('{}', 'a')",
    "SELECT * FROM d.t FORMAT JSON",
    "/* a comment */ SELECT 1 -- another",
]


@pytest.mark.parametrize("text", READS)
async def test_a_reader_reads(server: Server, text: str) -> None:
    status, answer = await server.run("reader", text)
    assert status == 200, answer
    assert answer
    assert (await server.run("writer", text))[0] == 200


WRITES = [
    "INSERT INTO d.t (a) VALUES (100)",
    'INSERT INTO d.t (a) FORMAT JSONEachRow\n{"a": 100}',
    "INSERT INTO d.t (a) SELECT 100",
    "CREATE TABLE d.x (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE x (a UInt8)",
    "CREATE VIEW d.x AS SELECT 1",
    "CREATE FUNCTION f AS (x) -> x",
    "DROP TABLE d.t",
    "TRUNCATE TABLE d.t",
    "ALTER TABLE d.t DELETE WHERE 1",
    "OPTIMIZE TABLE d.t FINAL",
    "RENAME TABLE d.t TO d.u",
    "DETACH TABLE d.t",
    "SYSTEM FLUSH LOGS",
    "SYSTEM SHUTDOWN",
    "KILL QUERY WHERE 1",
    "SET readonly = 0",
    "SET max_threads = 64",
    "USE d",
    "GRANT ALL ON *.* TO reader",
    "CREATE USER x",
    "BACKUP DATABASE d TO File('/tmp/x')",
    "SELECT 1 INTO OUTFILE '{outfile}'",
    "INSERT INTO FUNCTION file('{outfile}') SELECT 1",
    "SELECT 1 SETTINGS max_threads = 64",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1; DROP TABLE d.t",
    "SELECT 1; SELECT 2",
]
FILES = [
    "SELECT * FROM file('{secret}')",
    "SELECT file('{secret}')",
    "SELECT `fi\\x6ce`('{secret}')",
    "SELECT arrayMap(file, ['{secret}'])",
    "SELECT arrayMap(x -> file(x), ['{secret}'])",
    "SELECT * APPLY(file) FROM (SELECT '{secret}' AS a)",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '{secret}' AS a)",
    "SELECT COLUMNS('a') APPLY file FROM (SELECT '{secret}' AS a)",
    "SELECT * REPLACE(file('{secret}') AS a) FROM (SELECT 1 AS a)",
    "WITH (x -> file(x)) AS f SELECT f('{secret}')",
    "SELECT 1 WHERE file('{secret}') != ''",
    "SELECT 1 LIMIT length(file('{secret}'))",
    "SELECT number FROM numbers(length(file('{secret}')))",
    "SELECT * FROM view(SELECT * FROM file('{secret}'))",
    "SELECT * FROM (SELECT * FROM file('{secret}'))",
    "SELECT * FROM d.t WHERE file IN (SELECT file('{secret}'))",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM `{secret}`",
    "SELECT * FROM `default`.`{secret}`",
    "DESCRIBE TABLE `{secret}`",
    "DESCRIBE file('{secret}')",
    "EXISTS TABLE `{secret}`",
    "SHOW CREATE TABLE `{secret}`",
    "CHECK TABLE `{secret}`",
    "SELECT * FROM merge('default', 'secret')",
    "SELECT * FROM default.`secret.csv`",
    "DESCRIBE TABLE `secret.csv`",
    "DESCRIBE TABLE `../../secret.csv`",
    "SHOW TABLES WHERE file('{secret}') != ''",
    "EXPLAIN QUERY TREE SELECT file('{secret}')",
    "EXPLAIN SYNTAX SELECT file('{secret}')",
    "EXPLAIN QUERY TREE SELECT arrayMap(file, ['{secret}'])",
    "DESCRIBE (SELECT arrayMap(file, ['{secret}']) AS a)",
    "SELECT * FROM viewExplain('EXPLAIN QUERY TREE', '', (SELECT file('{secret}')))",
    "SELECT * FROM (EXPLAIN QUERY TREE SELECT file('{secret}'))",
    "SELECT * FROM fileCluster('default', '{secret}')",
    "SELECT * FROM filesystem('{secret}')",
    "SELECT * FROM url('file://{secret}', 'CSV')",
    "SELECT * FROM url('http://127.0.0.1:1/x', 'CSV')",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/x', 'CSV')",
    "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT * FROM Python(PASSWORD)",
    "SELECT * FROM sqlite('{secret}', 't')",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM iceberg('{secret}')",
    "SELECT * FROM deltaLakeLocal('{secret}')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT hasColumnInTable('127.0.0.1', 'system', 'one', 'dummy')",
]


@pytest.mark.parametrize("text", [*WRITES, *FILES])
async def test_a_reader_cannot_write_read_files_or_change_settings(
    server: Server, tmp_path: Path, text: str
) -> None:
    outfile = tmp_path / "out"
    statement = text.replace("{secret}", str(server.secret)).replace("{outfile}", str(outfile))
    for user in ("reader", "writer"):
        if user == "writer" and statement.startswith("INSERT INTO d.t"):
            continue
        status, answer = await server.run(user, statement)
        assert status >= 400, answer
        assert answer.startswith("Code: ")
        assert "\n1" not in answer
    assert not outfile.exists()
    assert (await server.run("admin", "SELECT count(), getSetting('readonly') FROM d.t")) == (
        200,
        "10\t0",
    )


@pytest.mark.parametrize(
    ("name", "value", "may"),
    [
        ("output_format_json_quote_64bit_integers", "1", True),
        ("max_execution_time", "5", True),
        ("max_execution_time", "3600", False),
        ("max_execution_time", "0", False),
        ("max_memory_usage", "0", False),
        ("max_threads", "1", True),
        ("max_threads", "64", False),
        ("session_timezone", "UTC", True),
        ("readonly", "1", True),
        ("readonly", "0", False),
        ("allow_ddl", "1", False),
        ("allow_experimental_eval_table_function", "1", False),
        ("format_schema", "x", False),
        ("input_format_values_interpret_expressions", "1", False),
    ],
)
async def test_a_reader_sets_only_what_shapes_its_result(
    server: Server, name: str, value: str, may: bool
) -> None:
    status, answer = await server.run("reader", "SELECT 1", **{name: value})
    assert (status == 200) is may, answer
    assert may or "Code: 164." in answer


async def test_a_reader_is_held_to_its_limits(server: Server) -> None:
    shown = "SELECT getSetting('max_execution_time'), getSetting('max_threads')"
    assert await server.run("reader", shown) == (200, "60\t2")
    status, answer = await server.run(
        "reader", "SELECT count() FROM system.numbers", max_execution_time="0.2"
    )
    assert (status, "Code: 159." in answer) == (408, True)
    status, answer = await server.run(
        "reader", "SELECT groupArray(number) FROM numbers(100000000)", max_memory_usage="10000000"
    )
    assert (status, "Code: 241." in answer) == (500, True)


async def test_a_writer_inserts_in_every_form_and_nothing_else(server: Server) -> None:
    for text in (
        "INSERT INTO d.t (a) VALUES (100), (101)",
        'INSERT INTO d.t FORMAT JSONEachRow\n{"a": 102}',
        'INSERT INTO `d`.`t` (a) SETTINGS async_insert = 0 FORMAT JSONEachRow {"a": 103}',
        "/* note */ INSERT INTO TABLE d.t (a) FORMAT TSV\n104\n",
        "INSERT INTO d.t (a) SELECT a + 1000 FROM d.t WHERE a < 2",
    ):
        status, answer = await server.run("writer", text, async_insert="0")
        assert status == 200, answer
    assert await server.run("reader", "SELECT count() FROM d.t") == (200, "17")


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO d.t (file) VALUES (file('{secret}'))",
        "INSERT INTO d.t (file) SELECT file('{secret}')",
        "INSERT INTO d.t SELECT * FROM url('http://127.0.0.1:1/x', 'CSV')",
        "INSERT INTO d.t (file) SETTINGS input_format_values_interpret_expressions = 1 "
        "VALUES (file('{secret}'))",
        "INSERT INTO d.t SELECT 1, 'x' SETTINGS max_threads = 64",
        "INSERT INTO d.t SETTINGS allow_ddl = 1 FORMAT TSV 1\tx",
        "INSERT INTO d.t FROM INFILE '{secret}' FORMAT CSV",
        "WITH file('{secret}') AS x INSERT INTO d.t SELECT 1, x",
    ],
)
async def test_a_writer_cannot_read_files_either(server: Server, text: str) -> None:
    statement = text.replace("{secret}", str(server.secret))
    status, answer = await server.run("writer", statement, async_insert="0")
    assert status >= 400, answer
    assert await server.run("admin", "SELECT count() FROM d.t") == (200, "10")


async def test_an_administrator_may_do_it_all(server: Server) -> None:
    assert await server.run("admin", f"SELECT * FROM file('{server.secret}')") == (200, "1")
    assert await server.run("admin", "SET max_threads = 3") == (200, "")
    assert await server.run("admin", "SELECT getSetting('max_threads')") != (200, "3")
