"""What one HTTP request asks of ClickHouse."""

import base64
import binascii
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aiohttp import web

from alpha_pulse.embedded.front.compression import decompress_blocks, decompress_content
from alpha_pulse.embedded.front.failures import (
    AUTHENTICATION_FAILED,
    BAD_ARGUMENTS,
    HTTP_BODY_TOO_LARGE,
    QueryFailure,
)

# Parameters of ClickHouse's HTTP interface that are not settings of a query.
_OF_THE_INTERFACE = {
    "add_http_cors_header",
    "buffer_size",
    "cancel_http_readonly_queries_on_client_close",
    "client_protocol_version",
    "close_session",
    "compress",
    "database",
    "decompress",
    "default_format",
    "enable_http_compression",
    "framing",
    "hsts_max_age",
    "http_headers_progress_interval_ms",
    "http_response_headers",
    "http_write_exception_in_output_format",
    "http_zlib_compression_level",
    "password",
    "query",
    "query_id",
    "quota_key",
    "role",
    "send_progress_in_http_headers",
    "session_check",
    "session_id",
    "session_timeout",
    "stacktrace",
    "user",
    "wait_end_of_query",
}
_KILL_QUERY = re.compile(rb"\s*KILL\s+QUERY\s", re.IGNORECASE)
_QUERY_ID = re.compile(rb"\bquery_id\s*=\s*'([^'\\]*)'", re.IGNORECASE)
_FORMAT_AT_END = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*(?:SETTINGS\b[^;]*;?\s*)?\Z", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class QueryRequest:
    """One query with everything that shapes it."""

    text: bytes  # the statement, and for an INSERT its rows
    method: str
    user: str
    password: str = field(repr=False)
    query_id: str
    database: str | None
    default_format: str
    settings: Mapping[str, str]
    params: Mapping[str, str]
    session_id: str | None
    session_check: bool
    session_timeout_s: float
    compress_blocks: bool
    accept_encoding: str  # empty where the client did not ask for HTTP compression
    protocol_version: int
    buffer_whole: bool
    cancel_on_close: bool

    @property
    def format(self) -> str:
        """Name of the output format."""
        found = _FORMAT_AT_END.search(self.text[-4096:])
        return found[1].decode() if found else self.default_format


async def read_request(http: web.Request, body_bytes_max: int) -> QueryRequest:
    """Return what a request asks; text and body are joined as ClickHouse joins them.

    Raises: QueryFailure when it cannot be understood or is too large.
    """
    query = dict(http.query)
    statement = query.get("query", "").encode()
    try:
        if http.content_type == "multipart/form-data":
            body = await _read_form(http, query)
            statement = query.get("query", "").encode()
        else:
            body = await http.read()
            encoding = http.headers.get("Content-Encoding", "")
            body = decompress_content(body, encoding, body_bytes_max)
            if query.get("decompress") == "1":
                body = decompress_blocks(body, body_bytes_max)
    except (web.HTTPRequestEntityTooLarge, OverflowError) as error:
        raise QueryFailure(
            HTTP_BODY_TOO_LARGE,
            f"expected a body of at most {body_bytes_max} bytes, found more; send smaller batches",
        ) from error
    except ValueError as error:
        raise QueryFailure(BAD_ARGUMENTS, f"cannot decompress the body: {error}") from error
    user, password = _credentials(http, query)
    http_compression = query.get("enable_http_compression") == "1"
    return QueryRequest(
        text=_joined(statement, body),
        method=http.method,
        user=user,
        password=password,
        query_id=query.get("query_id") or str(uuid.uuid4()),
        database=query.get("database") or http.headers.get("X-ClickHouse-Database"),
        default_format=query.get("default_format")
        or http.headers.get("X-ClickHouse-Format")
        or "TabSeparated",
        settings={
            name: value
            for name, value in query.items()
            if name not in _OF_THE_INTERFACE and not name.startswith("param_")
        },
        params={
            name.removeprefix("param_"): value
            for name, value in query.items()
            if name.startswith("param_")
        },
        session_id=query.get("session_id") or None,
        session_check=query.get("session_check") == "1",
        session_timeout_s=_number(query, "session_timeout", 60.0),
        compress_blocks=query.get("compress") == "1",
        accept_encoding=http.headers.get("Accept-Encoding", "") if http_compression else "",
        protocol_version=int(_number(query, "client_protocol_version", 0)),
        buffer_whole=query.get("wait_end_of_query") == "1",
        cancel_on_close=query.get("cancel_http_readonly_queries_on_client_close") == "1",
    )


def with_tags_of(request: QueryRequest, tags: Mapping[str, str]) -> QueryRequest:
    """Return the request with `query_id = '…'` of a KILL QUERY made findable for the engine.

    tags: of each running query's connection, by the id that its client gave it. The engine gives
    ids of its own, so a client's id says nothing to it.
    """
    if not _KILL_QUERY.match(request.text):
        return request

    def tag(found: re.Match[bytes]) -> bytes:
        name = found[1].decode("utf-8", "replace")
        return f"Settings['log_comment'] = '{tags.get(name, 'none')}'".encode()

    return replace(request, text=_QUERY_ID.sub(tag, request.text))


def _joined(statement: bytes, body: bytes) -> bytes:
    if not statement:
        return body
    if not body:
        return statement
    # Exactly one line break between FORMAT and the rows: binary rows may begin with white space.
    return statement.rstrip(b" \t\r\n") + b"\n" + body


async def _read_form(http: web.Request, query: dict[str, str]) -> bytes:
    for name, value in (await http.post()).items():
        if not isinstance(value, str):
            raise QueryFailure(
                BAD_ARGUMENTS,
                f"external data ({name}) is not supported by the embedded engine; insert the rows "
                f"into a table first",
            )
        query[name] = value
    return b""


def _credentials(http: web.Request, query: Mapping[str, str]) -> tuple[str, str]:
    authorization = http.headers.get("Authorization", "")
    if authorization:
        scheme, _, value = authorization.partition(" ")
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError, ValueError) as error:
            raise QueryFailure(
                AUTHENTICATION_FAILED, "cannot read the Authorization header"
            ) from error
        if scheme.lower() != "basic":
            raise QueryFailure(AUTHENTICATION_FAILED, f"{scheme} authentication is not supported")
        return user or "default", password
    headers = http.headers
    return (
        headers.get("X-ClickHouse-User") or query.get("user") or "default",
        headers.get("X-ClickHouse-Key") or query.get("password") or "",
    )


def _number(query: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(query.get(name) or default)
    except ValueError as error:
        raise QueryFailure(
            BAD_ARGUMENTS, f"expected a number for {name}, found {query[name]!r}"
        ) from error
