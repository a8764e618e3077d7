"""Python blocks of a page: run as they stand, and read for the calls that they make."""

import ast
import inspect
import re
import symtable
from collections.abc import Iterable
from typing import Any

# A call's name, its positional arguments, its keywords.
Shape = tuple[str, int, tuple[str, ...]]

# What a program of the library's users calls and imports; docs/library.md shows each of them.
CALLS: set[Shape] = {
    ("SQLAlchemyStorage", 0, ()),
    ("ExchangeFetcher", 0, ()),
    ("ExchangeDataProvider", 1, ("testnet",)),
    ("HistoricalDataManager", 2, ()),
    ("RealTimeDataManager", 2, ()),
    ("ensure_data_available", 5, ()),
    ("start", 1, ()),
    ("StorageConfig", 0, ("batch_size", "max_connections", "timeout")),
    ("DataFetchConfig", 0, ("batch_size", "max_retries", "retry_delay")),
    ("MarketDataConfig", 0, ("cache_duration", "max_symbols", "update_interval")),
    ("validate_timeframe", 2, ()),
    ("validate_symbol", 1, ()),
    ("validate_ohlcv", 1, ()),
}
IMPORTS: set[tuple[str, str]] = {
    (f"alpha_pulse.data_pipeline{module}", name)
    for module, names in {
        "": "SQLAlchemyStorage ExchangeFetcher ExchangeDataProvider HistoricalDataManager "
        "RealTimeDataManager",
        ".core.config": "StorageConfig DataFetchConfig MarketDataConfig",
        ".core.validation": "validate_timeframe validate_symbol validate_ohlcv",
    }.items()
    for name in names.split()
}
# In the order of their `except`.
ERRORS = ["StorageError", "DataFetchError", "ValidationError"]
MODULES = {
    "core.interfaces",
    "core.models",
    "core.config",
    "core.errors",
    "core.validation",
    "storage.sql",
    "fetcher.exchange",
    "providers.exchange",
    "managers.historical",
    "managers.real_time",
}


def python_blocks(page: str) -> list[str]:
    """Return the python blocks of a page, in its order."""
    return re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


async def run_part(block: str, names: dict[str, Any], number: int) -> None:
    """Run a part of an asynchronous function: `await` stands at its top."""
    code = compile(block, f"block {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result


def undefined_names(block: str) -> set[str]:
    """Return the names that a block uses and never binds, builtins left out."""
    # Inside a function every `await` is lawful, and what the block does not bind is global there.
    lines = ["async def part():", *(f"    {line}" for line in block.splitlines())]
    (inside,) = symtable.symtable("\n".join(lines), "block", "exec").get_children()
    used = {symbol.get_name() for symbol in inside.get_symbols() if symbol.is_global()}
    return used - set(dir(__builtins__) if not isinstance(__builtins__, dict) else __builtins__)


def calls_of(blocks: Iterable[str]) -> set[Shape]:
    """Return the shape of each call with plain arguments; `f(...)` leaves them out and is none."""
    found = set()
    for node in _nodes(blocks):
        if not isinstance(node, ast.Call):
            continue
        starred = any(isinstance(value, ast.Starred) for value in node.args)
        elided = any(isinstance(v, ast.Constant) and v.value is ... for v in node.args)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if not starred and not elided:
            keywords = tuple(sorted(keyword.arg or "**" for keyword in node.keywords))
            found.add((name, len(node.args), keywords))
    return found


def imports_of(blocks: Iterable[str]) -> set[tuple[str, str]]:
    """Return what is imported from where, of our own packages."""
    return {
        (node.module, alias.name)
        for node in _nodes(blocks)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alpha_pulse")
        for alias in node.names
        if node.module
    }


def excepts_of(blocks: Iterable[str]) -> list[list[str]]:
    """Return the errors of each `try`, in the order of their `except`."""
    return [
        [ast.unparse(handler.type) for handler in node.handlers if handler.type is not None]
        for node in _nodes(blocks)
        if isinstance(node, ast.Try)
    ]


def _nodes(blocks: Iterable[str]) -> Iterable[ast.AST]:
    for block in blocks:
        yield from ast.walk(ast.parse(block))
