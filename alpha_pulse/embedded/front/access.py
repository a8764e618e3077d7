"""What a role may run: decided on the engine's own syntax tree, never on the text alone.

`readonly = 1` stops a reader from writing and from changing settings, but not from reading files:
the function `file()` and DESCRIBE still open them. So a reader's and a writer's statements are also
walked, and refused where they name a function that reaches outside the database.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from alpha_pulse.embedded.front.failures import ACCESS_DENIED, READONLY, QueryFailure
from alpha_pulse.embedded.front.users import Role

# Classes of statements as the engine's parser tells them.
READ_ONLY, MUTATING, CONTROL, UNKNOWN = "READ_ONLY", "MUTATING", "CONTROL", "UNKNOWN"

# Fixed for a role on each of its connections, and the most that a client may ask for.
LIMITS: Mapping[Role, Mapping[str, str]] = {
    Role.READER: {
        "max_execution_time": "60",
        "max_memory_usage": str(2 * 2**30),
        "max_threads": "2",
    },
    Role.WRITER: {"max_execution_time": "300", "max_memory_usage": str(4 * 2**30)},
    Role.ADMIN: {},
}
FIXED: Mapping[str, str] = {
    "allow_introspection_functions": "0",
    "implicit_select": "0",
    "input_format_values_interpret_expressions": "0",
}

# Table functions that only compute, or only read tables that can be read anyway.
_HARMLESS_TABLE_FUNCTIONS = frozenset(
    [
        "format",
        "fuzzjson",
        "generate_series",
        "generaterandom",
        "generateseries",
        "merge",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "values",
        "view",
        "viewifpermitted",
        "zeros",
        "zeros_mt",
    ]
)
# Scalar functions that read a file or call a service.
_REACHING_FUNCTIONS = re.compile(r"file|(?:ai|AI)[A-Z]\w*")
_NAMED = re.compile(r"^\s*(Function|TableIdentifier|Identifier) (.+?)(?: \(.*)?$", re.MULTILINE)
_ROOTS = (
    "DescribeQuery",
    "ExistsDatabaseQuery",
    "ExistsTableQuery",
    "ExistsViewQuery",
    "Explain",
    "SelectWithUnionQuery",
    "ShowColumns",
    "ShowCreateDatabaseQuery",
    "ShowCreateTableQuery",
    "ShowCreateViewQuery",
    "ShowEngineQuery",
    "ShowFunctions",
    "ShowIndexes",
    "ShowProcesslistQuery",
    "ShowSetting",
    "ShowTables",
)
_WHERE = re.compile(rb"\bWHERE\b", re.IGNORECASE)

# Settings that shape a result or an insert and reach nothing else.
_FREE_PREFIXES = (
    "async_insert",
    "date_time_",
    "format_csv_",
    "format_tsv_",
    "input_format_",
    "insert_dedup",
    "join_",
    "max_bytes_",
    "max_rows_",
    "output_format_",
)
_FREE_SETTINGS = frozenset(
    [
        "cast_string_to_dynamic_use_inference",
        "extremes",
        "final",
        "group_by_overflow_mode",
        "format_binary_max_array_size",
        "format_binary_max_string_size",
        "join_use_nulls",
        "limit",
        "log_comment",
        "log_queries",
        "low_cardinality_allow_in_native_format",
        "max_block_size",
        "max_insert_block_size",
        "max_execution_time",
        "max_memory_usage",
        "max_partitions_per_insert_block",
        "max_query_size",
        "max_result_bytes",
        "max_result_rows",
        "max_threads",
        "min_insert_block_size_bytes",
        "min_insert_block_size_rows",
        "offset",
        "prefer_column_name_to_alias",
        "priority",
        "read_overflow_mode",
        "result_overflow_mode",
        "send_logs_level",
        "session_timezone",
        "sort_overflow_mode",
        "throw_on_max_partitions_per_insert_block",
        "timeout_overflow_mode",
        "union_default_mode",
        "use_query_cache",
        "wait_for_async_insert",
        "wait_for_async_insert_timeout",
    ]
)
# VALUES may hold expressions, and an expression may call file().
_NEVER_FREE = frozenset({"input_format_values_interpret_expressions"})

_COMMENT = rb"(?:\s|/\*.*?\*/|--[^\n]*(?:\n|\Z))*"
_IDENTIFIER = rb'(?:\w+|`[^`\\]*`|"[^"\\]*"|\{\w+:\s*Identifier\s*\})'
_BEFORE_ROWS = re.compile(rb"[ \t\f]*(?:\r?\n)?")
_PAIR = rb"\w+\s*=\s*(?:[\w.]+|'[^'\\]*')"
_SELECT = re.compile(_COMMENT + rb"(?:\(|(?:SELECT|WITH|FROM)\b)", re.IGNORECASE | re.DOTALL)
_INSERT = re.compile(_COMMENT + rb"INSERT\s+INTO\s", re.IGNORECASE | re.DOTALL)
_INSERT_OF_ROWS = re.compile(
    _COMMENT
    + rb"INSERT\s+INTO\s+(?:TABLE\s+)?"
    + _IDENTIFIER
    + rb"(?:\s*\.\s*"
    + _IDENTIFIER
    + rb")?\s*(?:\((?:[^()]|\([^()]*\))*\)\s*)?(?P<rest>(?:SETTINGS\s+(?P<settings>"
    + _PAIR
    + rb"(?:\s*,\s*"
    + _PAIR
    + rb")*)\s+)?(?:FORMAT\s+(?P<format>\w+)|(?P<values>VALUES))\b)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class InsertHead:
    """The statement of an INSERT of rows, without its rows."""

    text: bytes
    target: bytes  # INSERT INTO … with its columns
    settings_text: bytes
    settings: Mapping[str, str]
    format: str

    def rows(self, whole: bytes) -> memoryview:
        """Return the rows behind the statement in the whole text of a query; not a copy."""
        start = len(self.text)
        if self.text[-6:].upper() != b"VALUES":
            # What may stand between FORMAT and its rows: blanks, and one line break.
            found = _BEFORE_ROWS.match(whole, start)
            start = found.end() if found else start
        return memoryview(whole)[start:]

    def statement(self, path: str) -> bytes:
        """Return the statement that takes its rows from a file."""
        settings = b" SETTINGS " + self.settings_text if self.settings_text else b""
        source = f" FROM INFILE '{path}'".encode()
        return self.target + source + settings + f" FORMAT {self.format}".encode()


def insert_head(text: bytes) -> InsertHead | None:
    """Return the head of an INSERT of rows; None for every other statement."""
    found = _INSERT_OF_ROWS.match(text)
    if found is None:
        return None
    settings_text = found["settings"] or b""
    pairs = re.findall(rb"(\w+)\s*=\s*'?([^',\s]*)", settings_text)
    return InsertHead(
        text=found[0],
        target=text[: found.start("rest")].rstrip(),
        settings_text=settings_text,
        settings={name.decode(): value.decode() for name, value in pairs},
        format=found["format"].decode() if found["format"] else "Values",
    )


def is_select(text: bytes) -> bool:
    """Tell whether a statement that only reads is a SELECT, not SHOW, DESCRIBE or the like."""
    return _SELECT.match(text) is not None


def check_settings(role: Role, settings: Mapping[str, str]) -> None:
    """Refuse what a role may not set.

    Raises: QueryFailure naming the setting.
    """
    if role is Role.ADMIN:
        return
    for name, value in settings.items():
        free = name in _FREE_SETTINGS or name.startswith(_FREE_PREFIXES)
        narrower_only = name == "readonly" and value in ("1", "2")
        if narrower_only or (free and name not in _NEVER_FREE):
            limit = LIMITS[role].get(name)
            if limit is not None and not _is_within(value, limit):
                raise QueryFailure(
                    READONLY,
                    f"Setting {name} shouldn't be greater than {limit} for the role {role}, found "
                    f"{value}",
                )
            continue
        raise QueryFailure(READONLY, f"Cannot modify '{name}' setting for the role {role}")


def check_kind(role: Role, kind: str, text: bytes, head: InsertHead | None) -> None:
    """Refuse statements of a class that a role may not run.

    Raises: QueryFailure.
    """
    if role is Role.ADMIN or kind == READ_ONLY:
        return
    # With SETTINGS the parser puts an INSERT into another class.
    inserts = (kind == MUTATING and _INSERT.match(text)) or (kind == CONTROL and head is not None)
    if role is Role.WRITER and inserts:
        return
    allowed = "SELECT" if role is Role.READER else "INSERT and SELECT"
    raise QueryFailure(
        ACCESS_DENIED, f"Not enough privileges: the role {role} may run {allowed} only"
    )


def check_tree(
    tree: str,
    text: bytes,
    head: InsertHead | None,
    table_functions: Iterable[str],
    role: Role = Role.READER,
) -> None:
    """Refuse a statement that reaches outside the database.

    tree: what EXPLAIN AST says of it. table_functions: names of all that the engine has.
    Raises: QueryFailure naming what was refused.
    """
    root = tree.split(maxsplit=1)[0] if tree.strip() else ""
    if not root.startswith(_ROOTS) and root != "InsertQuery":
        raise QueryFailure(ACCESS_DENIED, f"Not enough privileges for a {root} statement")
    # The tree is silent on the conditions of SHOW, on the function of APPLY, on SETTINGS' values.
    if root.startswith("Show") and _WHERE.search(text):
        raise QueryFailure(ACCESS_DENIED, "Not enough privileges for SHOW … WHERE; use LIKE")
    if "ColumnsApplyTransformer" in tree:
        raise QueryFailure(ACCESS_DENIED, "Not enough privileges for APPLY")
    has_settings = re.search(r"^\s*Set\b", tree, re.MULTILINE) is not None
    if role is Role.WRITER and root != "InsertQuery" and has_settings:
        # A reader's are refused by the engine, which also knows the limits of each.
        raise QueryFailure(
            ACCESS_DENIED, "Not enough privileges for SETTINGS in a query; send them as parameters"
        )
    if root == "InsertQuery":
        # The settings before rows were checked by name; the tree does not tell names.
        if head is None and has_settings:
            raise QueryFailure(
                ACCESS_DENIED,
                "Not enough privileges for SETTINGS in an INSERT; send them as parameters",
            )
        if re.search(r"^ Literal ", tree, re.MULTILINE):
            raise QueryFailure(ACCESS_DENIED, "Not enough privileges for FROM INFILE")
    reaching = {name.lower() for name in table_functions} - _HARMLESS_TABLE_FUNCTIONS
    for node, name in _NAMED.findall(tree):
        bare = name.strip("`\"'")
        # A path in place of a table; elsewhere a name may hold a slash ("BTC/USDT").
        is_table = node == "TableIdentifier" or (
            node == "Identifier" and root != "SelectWithUnionQuery"
        )
        # An identifier may be a function passed by name: arrayMap(file, …).
        refused = (
            (is_table and ("/" in bare or "\\" in bare))
            or (node != "TableIdentifier" and _REACHING_FUNCTIONS.fullmatch(bare) is not None)
            or (node == "Function" and bare.lower() in reaching)
        )
        if refused:
            raise QueryFailure(
                ACCESS_DENIED, f"Not enough privileges: {bare} reaches outside the database"
            )


def _is_within(value: str, limit: str) -> bool:
    try:
        asked = float(value)
    except ValueError:
        return False
    return 0 < asked <= float(limit)  # 0 would mean: no limit
