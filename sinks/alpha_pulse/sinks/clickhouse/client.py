"""ClickHouse over HTTP: one pool, one idempotent insert, and the three errors it can end in."""

import ipaddress
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import stamina
import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from alpha_pulse.contracts.config import ClickHouseConfig
from alpha_pulse.contracts.config_sources import without_password
from alpha_pulse.contracts.errors import ConfigError, StorageError

log = structlog.get_logger(__name__)

# Errors that speak of the rows, not of the server: bad text, a broken CHECK, a value out of range.
# Source: ClickHouse, src/Common/ErrorCodes.cpp. Everything else passes, sooner or later.
REFUSAL_CODES = frozenset(
    {6, 26, 27, 33, 38, 41, 44, 53, 69, 70, 72, 117, 130, 131, 190, 321, 349, 407, 469, 475, 691}
)
# "Too many partitions for single INSERT block" shares its code with "Too many parts".
TOO_MANY_PARTS = 252

# One insert is one block is one part: it is stored whole or not at all. A block that would touch
# two table partitions is refused before anything is written (`ManyMonths`).
INSERT_SETTINGS: dict[str, Any] = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "max_partitions_per_insert_block": 1,
    "throw_on_max_partitions_per_insert_block": 1,
    "max_insert_block_size": 1_048_576,
    "min_insert_block_size_rows": 1_048_576,
    "min_insert_block_size_bytes": 4 * 2**30,
    "input_format_skip_unknown_fields": 1,
    "input_format_json_ignore_unknown_keys_in_named_tuple": 1,
    "input_format_import_nested_json": 0,
    "date_time_input_format": "basic",
    # Several inserts share the cores already. To a small one, threads of its own are most of its
    # cost: 23.5 ms of CPU became 19.5.
    "max_threads": 1,
    "input_format_parallel_parsing": 0,
}


class RowsRefused(StorageError):
    """ClickHouse refused the rows themselves: sending them again can't help."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ManyMonths(StorageError):
    """The rows of one insert belong to more than one table partition; nothing was stored."""


class PassingFault(StorageError):
    """ClickHouse is away, full, read-only, overloaded or misconfigured: to be tried again.

    code: ClickHouse's own number of the error; None when it could not be asked.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class ClickHouse:
    """A connection pool to one ClickHouse; every call is one attempt unless its name says else."""

    def __init__(self, config: ClickHouseConfig, client: Any) -> None:
        self._config = config
        self._client = client

    @classmethod
    async def connect(cls, config: ClickHouseConfig, *, wait_s_max: float = 30.0) -> "ClickHouse":
        """Return a connection, however long ClickHouse takes to come up.

        Args:
            config: `[clickhouse]`.
            wait_s_max: the longest pause between two attempts, in seconds.

        Raises:
            ConfigError: [clickhouse] url is no http(s) address.
        """
        arguments = connection_arguments(config)
        async for attempt in retries(wait_s_max):
            with attempt:
                try:
                    client = await clickhouse_connect.create_async_client(**arguments)
                except (ClickHouseError, OSError, TimeoutError) as error:
                    raise fault(error, f"connect to {without_password(config.url)}") from error
        return cls(config, client)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def insert(
        self, table: str, columns: Sequence[str], body: bytes, settings: dict[str, Any]
    ) -> None:
        """Insert newline-separated JSON objects; returns once they are stored. One attempt.

        Args:
            table: with its database.
            columns: those that the objects may fill; what else they hold is passed over.
            body: the objects.
            settings: beyond `INSERT_SETTINGS`, such as `insert_deduplication_token`.

        Raises:
            RowsRefused: the rows are bad; sending them again can't help.
            ManyMonths: they belong to more than one table partition.
            PassingFault: anything else; nothing is known of what was stored.
        """
        try:
            await self._client.raw_insert(
                table, columns, body, settings={**INSERT_SETTINGS, **settings}, fmt="JSONEachRow"
            )
        except (ClickHouseError, OSError, TimeoutError) as error:
            raise fault(error, f"insert into {table}") from error

    async def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[Sequence[Any]]:
        """Return the rows of a query. One attempt.

        Args:
            sql: with `{name:Type}` where values go.
            parameters: those values.

        Raises:
            PassingFault: ClickHouse is away, or refuses.
        """
        try:
            result = await self._client.query(sql, parameters=parameters)
        except (ClickHouseError, OSError, TimeoutError) as error:
            raise fault(error, f"run {_excerpt(sql)}") from error
        rows: list[Sequence[Any]] = result.result_rows
        return rows

    async def command(self, sql: str, settings: dict[str, Any] | None = None) -> None:
        """Run a statement that has no result. One attempt.

        Args:
            sql: the statement, whole.
            settings: ClickHouse's, for this statement.

        Raises:
            PassingFault: ClickHouse is away, or refuses.
            RowsRefused: it refuses for a reason that speaks of rows.
        """
        try:
            await self._client.command(sql, settings=settings)
        except (ClickHouseError, OSError, TimeoutError) as error:
            raise fault(error, f"run {_excerpt(sql)}") from error


def connection_arguments(config: ClickHouseConfig) -> dict[str, Any]:
    """Return the arguments of a clickhouse-connect client, sync or async.

    Raises:
        ConfigError: [clickhouse] url is no http(s) address.
    """
    parts = urlsplit(config.url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise ConfigError(
            f"expected an address such as http://127.0.0.1:8123 in [clickhouse] url, found "
            f"{without_password(config.url)!r}"
        )
    arguments: dict[str, Any] = {
        "host": parts.hostname,
        "port": port or (8443 if parts.scheme == "https" else 8123),
        "interface": parts.scheme,
        "username": unquote(parts.username) if parts.username else config.user,
        "password": unquote(parts.password) if parts.password else config.password,
        "database": "system",  # ours may not exist yet: tables are named in full
        "connect_timeout": config.connect_timeout_s,
        "send_receive_timeout": config.request_timeout_s,
        # On loopback the bytes are cheaper than the CPU to squeeze them.
        "compress": False if _is_loopback(parts.hostname) else "lz4",
        "autogenerate_session_id": False,
        "query_retries": 0,
        "client_name": "alpha-pulse-sinks",
    }
    if config.tls_ca_file:
        arguments["ca_cert"] = config.tls_ca_file
    return arguments


def retries(wait_s_max: float) -> Any:
    """Return attempts for ever: PassingFault is waited out, longer each time, with jitter."""
    return stamina.retry_context(
        on=PassingFault, attempts=None, timeout=None, wait_initial=0.1, wait_max=wait_s_max
    )


def fault(error: BaseException, action: str) -> StorageError:
    """Return the error that a failure of ClickHouse means to us."""
    code = getattr(error, "code", None)
    text = " ".join(str(error).split())[:1000] or type(error).__name__
    if code == TOO_MANY_PARTS and "Too many partitions" in text:
        return ManyMonths(f"expected rows of one month to {action}, found more: {text}")
    if code in REFUSAL_CODES:
        return RowsRefused(f"expected ClickHouse to {action}, found the rows refused: {text}", code)
    return PassingFault(
        f"expected ClickHouse to {action}, found {type(error).__name__}: {text}; it is tried again",
        code,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _excerpt(sql: str) -> str:
    line = " ".join(sql.split())
    return repr(line[:80]) + ("…" if len(line) > 80 else "")
