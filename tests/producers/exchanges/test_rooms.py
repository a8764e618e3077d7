"""Nothing but its room, and its replay dialect, knows an exchange by name."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest

from alpha_pulse.producers.exchanges.adapter import CandleSource, Exchange, TradeSource
from alpha_pulse.producers.exchanges.registry import ExchangeType, exchange_of
from alpha_pulse.replay.dialects import DIALECTS
from tests.rooms import documented_frames

ROOT = Path(__file__).parents[3]
IDS = tuple(exchange.value for exchange in ExchangeType)
ROOMS = (
    ROOT / "producers/alpha_pulse/producers/exchanges",
    ROOT / "alpha_pulse/replay/dialects",
    # Messages as they are published: an example is of some exchange.
    ROOT / "contracts/alpha_pulse/contracts/schema/examples",
    # Frozen: what logs of earlier versions don't say themselves.
    ROOT / "processors/alpha_pulse/processors/kernel/earlier_logs.py",
)
# The one setting whose default is an exchange.
DEFAULT = 'exchange: str = "binance"'


def sources() -> Iterator[Path]:
    for folder in ("contracts", "producers", "processors", "sinks", "alpha_pulse"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(path.is_relative_to(room) for room in ROOMS):
                yield path


def without_docstrings(text: str) -> str:
    """The source with its docstrings blank, line by line."""
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            assert node.end_lineno is not None
            for number in range(node.lineno - 1, node.end_lineno):
                lines[number] = ""
    return "\n".join(lines)


def named_in(text: str) -> list[str]:
    """The lines of code and comments that name an exchange other than as an example."""
    name = re.compile("|".join(IDS), re.IGNORECASE)
    example = re.compile(rf"such as ['`\"]?({'|'.join(IDS)})\b")
    return [
        line.strip()
        for line in without_docstrings(text).split("\n")
        if name.search(example.sub("", line))
    ]


def test_no_source_outside_the_rooms_names_an_exchange() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sources()
        if (lines := [line for line in named_in(path.read_text()) if line != DEFAULT])
    }
    assert found == {}


def test_a_name_is_found_wherever_code_could_use_it() -> None:
    assert named_in('"""Such as binance."""\nHELP = "an id such as binance"') == []
    for code in ('x = y == "okx"', "KRAKEN = 1", "pass  # Bybit does so", 'f(f"{a}binance")'):
        assert named_in(f"def f():\n    '''Doc of kraken.'''\n    {code}\n") == [code]


def test_no_flag_stands_for_one_exchange() -> None:
    exchanges = [*map(exchange_of, IDS), exchange_of("any-other")]
    for kind, part in ((Exchange, None), (TradeSource, "trades"), (CandleSource, "candles")):
        values = [getattr(exchange, part) if part else exchange for exchange in exchanges]
        for field in fields(kind):
            held = Counter(getattr(value, field.name) for value in values if field.type is bool)
            assert all(count > 1 for count in held.values()), f"{field.name}: {held}"


@pytest.mark.parametrize("name", IDS)
def test_a_room_and_its_dialect_bear_the_name_of_the_registry(name: str) -> None:
    module = import_module(f"alpha_pulse.producers.exchanges.{name}")
    assert module.EXCHANGE is exchange_of(name) is exchange_of(f"{name}-testnet")
    assert module.EXCHANGE.id == name
    assert module.EXCHANGE.decoder is not None
    assert documented_frames(name), "a real frame of each kind stands in the docstring"
    assert DIALECTS[name].name == name
    assert DIALECTS[name].__module__ == f"alpha_pulse.replay.dialects.{name}"


def test_an_exchange_without_a_room_has_the_defaults() -> None:
    other = exchange_of("gate-testnet")
    assert other.id == "gate"
    assert other.decoder is None
    assert not other.ids_are_consecutive


def test_a_testnet_numbers_its_trades_as_its_exchange_does() -> None:
    assert exchange_of("binance-testnet").ids_are_consecutive
    assert not exchange_of("bybit-testnet").ids_are_consecutive
