"""Failures as ClickHouse's HTTP interface reports them: code, name, status, text."""

import re

SYNTAX_ERROR = 62
BAD_ARGUMENTS = 36
UNKNOWN_SETTING = 115
TIMEOUT_EXCEEDED = 159
NOT_IMPLEMENTED = 48
READONLY = 164
TOO_MANY_SIMULTANEOUS_QUERIES = 202
REQUIRED_PASSWORD = 194
QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = 216
SESSION_NOT_FOUND = 372
SESSION_IS_LOCKED = 373
QUERY_WAS_CANCELLED = 394
TOO_MANY_ROWS_OR_BYTES = 396
AUTHENTICATION_FAILED = 516
ACCESS_DENIED = 497
HTTP_BODY_TOO_LARGE = 913
UNKNOWN_EXCEPTION = 1002

_NAMES = {
    SYNTAX_ERROR: "SYNTAX_ERROR",
    BAD_ARGUMENTS: "BAD_ARGUMENTS",
    UNKNOWN_SETTING: "UNKNOWN_SETTING",
    TIMEOUT_EXCEEDED: "TIMEOUT_EXCEEDED",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    READONLY: "READONLY",
    TOO_MANY_SIMULTANEOUS_QUERIES: "TOO_MANY_SIMULTANEOUS_QUERIES",
    REQUIRED_PASSWORD: "REQUIRED_PASSWORD",
    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING: "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
    SESSION_NOT_FOUND: "SESSION_NOT_FOUND",
    SESSION_IS_LOCKED: "SESSION_IS_LOCKED",
    QUERY_WAS_CANCELLED: "QUERY_WAS_CANCELLED",
    TOO_MANY_ROWS_OR_BYTES: "TOO_MANY_ROWS_OR_BYTES",
    AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
    ACCESS_DENIED: "ACCESS_DENIED",
    HTTP_BODY_TOO_LARGE: "HTTP_BODY_TOO_LARGE",
    UNKNOWN_EXCEPTION: "UNKNOWN_EXCEPTION",
}
# ClickHouse's own mapping of exception codes to HTTP status; all others are 500.
_BAD_REQUEST = {6, 7, 8, 25, 26, 27, 36, 38, 41, 42, 44, 53, 62, 70, 72, 117, 167, 168, 427, 441}
_STATUS = (
    dict.fromkeys(_BAD_REQUEST, 400)
    | dict.fromkeys({46, 47, 50, 56, 60, 63, 73, 81, 115}, 404)
    | dict.fromkeys({192, 193, 516}, 403)
    | {194: 401, 913: 413, 48: 501, 209: 503, 439: 503, 159: 408}
)


class QueryFailure(Exception):
    """What a client is told instead of a result."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """HTTP status."""
        return _STATUS.get(self.code, 500)

    def text(self, version: str) -> str:
        """Return the line that ClickHouse would write."""
        text = self.message
        if not text.startswith("Code: "):
            name = _NAMES.get(self.code, "UNKNOWN_EXCEPTION")
            text = f"Code: {self.code}. DB::Exception: {text} ({name})"
        if "(version " not in text:
            text += f" (version {version} (embedded engine))"
        return text


def from_engine(error: Exception) -> QueryFailure:
    """Return the failure that an exception of the engine stands for."""
    # A message that quotes a client's bytes may be no text; Python says so and keeps the bytes.
    if isinstance(error, UnicodeDecodeError):
        text = bytes(error.object).decode("utf-8", "replace").strip()
    else:
        text = str(error).strip()
    found = re.search(r"Code: (\d+)\.", text)
    if found is None:
        return QueryFailure(UNKNOWN_EXCEPTION, text)
    return QueryFailure(int(found[1]), text[found.start() :])
