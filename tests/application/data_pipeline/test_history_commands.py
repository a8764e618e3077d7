"""`alpha-pulse backfill`, `gaps` and `verify` as a user runs them: output, exit codes, JSON."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alpha_pulse.cli.main import make_app
from alpha_pulse.cli.pipeline.role_processes import RoleProcesses
from alpha_pulse.contracts.config import config_environment
from alpha_pulse.contracts.errors import ValidationError

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a command; the replay exchange has 300 minutes, 30 of them halted."""
    config, _ = pipeline
    for name, value in config_environment(config).items():
        monkeypatch.setenv(name, value)
    exchange = RoleProcesses(tmp_path)
    with asyncio.Runner() as runner:
        arguments = ["--long", "DOGE/USDT", "--minutes", "300", "--halt", "100+30", "--at-end"]
        url = runner.run(exchange.start_exchange(arguments))
        monkeypatch.setenv("ALPHA_PULSE_EXCHANGE_URL", url)
        monkeypatch.setenv("ALPHA_PULSE_PRODUCER_EXCHANGE_URL", url)

        def invoke(*arguments: str) -> tuple[int, str]:
            result = CliRunner().invoke(make_app(), list(arguments))
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            return result.exit_code, result.stdout

        try:
            yield invoke
        finally:
            runner.run(exchange.stop_all())


def test_the_commands_tell_what_is_missing_and_end_with_3_as_long_as_something_is(
    run: Run,
) -> None:
    window = ["--start", "2024-01-01", "--end", "2024-01-01T05:00:00Z"]
    code, text = run("backfill", "binance", "DOGE/USDT", *window, "--json")
    (report,) = json.loads(text)["symbols"]
    assert code == 3
    assert (report["wanted"], report["fetched"], report["error"]) == (300, 270, None)
    assert report["missing"] == [
        {
            "start": "2024-01-01T01:40:00Z",
            "end": "2024-01-01T02:10:00Z",
            "candles": 30,
            "reason": "halted",
        }
    ]
    code, text = run("backfill", "binance", "DOGE/USDT", *window)
    assert code == 3
    assert "had 270, fetched 0" in text
    assert "30 candles from 2024-01-01T01:40:00Z to 2024-01-01T02:10:00Z: halted" in text

    code, text = run("gaps", "--symbol", "DOGE/USDT")
    assert code == 0, "what is proven not to exist is no gap to heal"
    assert "halted" in text
    code, text = run("gaps", "--symbol", "DOGE/USDT", "--end", "2024-01-01T05:10:00Z", "--json")
    assert code == 3
    (market,) = json.loads(text)["markets"]
    assert market["candles"]["1m"][-1]["reason"] == "unanswered"

    code, text = run("verify", "--exchange", "binance", "--symbol", "DOGE/USDT", "--json")
    (verdict,) = json.loads(text)["markets"]
    assert code == 0
    assert (verdict["compared"], verdict["mismatches"], verdict["absent"]) == (270, [], [])


@pytest.mark.parametrize("command", ["gaps", "verify"])
def test_where_nothing_is_stored_an_empty_answer_is_not_called_a_good_one(
    run: Run, command: str
) -> None:
    with pytest.raises(ValidationError, match=r"candles or trades of okx in .* found none"):
        run(command, "--exchange", "okx")
    with pytest.raises(ValidationError, match="stored candles or trades of binance NO/SUCH in"):
        run(command, "--exchange", "binance", "--symbol", "NO/SUCH", "--json")


def test_a_time_that_is_none_and_a_timeframe_that_is_not_stored_are_refused(run: Run) -> None:
    with pytest.raises(Exception, match="ISO time"):
        run("backfill", "binance", "DOGE/USDT", "--start", "yesterday")
    with pytest.raises(Exception, match="one of 1m 5m"):
        run("backfill", "binance", "DOGE/USDT", "--start", "2024-01-01", "--timeframe", "3m")


def test_one_symbol_that_is_not_listed_costs_the_others_nothing(run: Run) -> None:
    window = ["--start", "2024-01-01", "--end", "2024-01-01T01:00:00Z"]
    for trades in ([], ["--trades"]):
        code, text = run(
            "backfill", "binance", "GONE/USDT", "DOGE/USDT", *window, *trades, "--json"
        )
        gone, doge = json.loads(text)["symbols"]
        assert code == 3
        assert "found 'GONE/USDT'" in gone["error"]
        assert (doge["error"], doge["missing"], doge["missing_trade_ids"]) == (None, [], [])
        assert doge["fetched"] + doge["had"] == doge["wanted"] > 0
