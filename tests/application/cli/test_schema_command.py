"""`alpha-pulse schema`: the contracts, as printed."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from alpha_pulse.cli.main import make_app
from alpha_pulse.contracts.codec import decode_event
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import Candle
from alpha_pulse.contracts.schema.asyncapi import asyncapi_document


def run(*arguments: str) -> Result:
    return CliRunner().invoke(make_app(), ["schema", *arguments])


def test_without_an_event_it_lists_the_topics() -> None:
    assert "| `market.trades.v1` | trade |" in run().stdout


def test_an_event_is_its_json_schema_and_its_examples_decode() -> None:
    assert "open_time_us" in json.loads(run("candle").stdout)["properties"]
    lines = run("candle", "--examples").stdout.splitlines()
    assert len(lines) >= 3
    assert all(isinstance(decode_event(line.encode()), Candle) for line in lines)


def test_an_event_that_there_is_not_is_named_with_those_that_there_are() -> None:
    error = run("kline").exception
    assert isinstance(error, ValidationError)
    assert "candle" in str(error)
    assert "'kline'" in str(error)


def test_the_check_exits_1_and_names_what_a_field_s_removal_breaks(tmp_path: Path) -> None:
    older = tmp_path / "asyncapi.json"
    older.write_text(run("--asyncapi").stdout)
    assert run("--check", str(older)).exit_code == 0
    document = asyncapi_document()
    document["components"]["schemas"]["Trade"]["properties"]["fee"] = {"type": "string"}
    older.write_text(json.dumps(document))
    result = run("--check", str(older))
    assert result.exit_code == 1
    assert "trade.fee: the field was removed or renamed" in result.stdout


def test_the_check_of_something_else_says_what_it_expected(tmp_path: Path) -> None:
    for text in ("nothing", "[]", '{"channels": {}}'):
        path = tmp_path / "other.json"
        path.write_text(text)
        error = run("--check", str(path)).exception
        assert isinstance(error, ValidationError)
        assert "expected an AsyncAPI document" in str(error)
