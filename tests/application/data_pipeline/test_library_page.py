"""The examples of docs/library.md run as they stand, against the replay exchange."""

import asyncio
import importlib
import re
import sqlite3
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import alpha_pulse.data_pipeline as library
from alpha_pulse.contracts.market import DAY_US, MINUTE_US
from alpha_pulse.data_pipeline.core import config, errors, interfaces, models, validation
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from tests.application.data_pipeline import blocks
from tests.application.data_pipeline.blocks import python_blocks, run_part

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/library.md").read_text()
BLOCKS = python_blocks(PAGE)
README_BLOCK = next(
    block
    for block in python_blocks((ROOT / "README.md").read_text())
    if "HistoricalDataManager" in block
)
FOLDERS = {"core", "storage", "fetcher", "providers", "managers"}


async def test_the_page_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin_us = time.time_ns() // 1000 - 4 * DAY_US
    begin_us -= begin_us % MINUTE_US
    markets = [
        SyntheticMarket(symbol, 3, begin_us=begin_us, trades_per_minute=10, quiet_minutes=0.0)
        for symbol in ("BTC/USDT", "ETH/USDT")
    ]
    monkeypatch.chdir(tmp_path)
    async with ReplayExchange(markets, live=True) as exchange:
        monkeypatch.setenv("ALPHA_PULSE_EXCHANGE_URL", exchange.url)
        # The first one is a whole program, with an event loop of its own.
        await asyncio.to_thread(exec, BLOCKS[0], {})
        assert "complete, had 0, fetched 47" in capsys.readouterr().out
        names: dict[str, Any] = {}
        for number, block in enumerate([*BLOCKS[1:], README_BLOCK], 2):
            await run_part(block, names, number)
        shown = capsys.readouterr().out
        assert "True 0 " in shown
        assert re.search(r"(BTC|ETH)/USDT live \d+ trades", shown)
        assert "arguments: expected a symbol such as 'BTC/USDT'" in shown
        assert names["report"].is_complete
        await names["history"].storage.close()
        await names["storage"].close()
    connection = sqlite3.connect(tmp_path / "alpha_pulse.db")
    count = connection.execute("SELECT count(*) FROM candles WHERE timeframe = '1h'").fetchone()[0]
    connection.close()
    assert count in (47, 48)


def test_the_first_example_has_at_most_ten_lines() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 10


def test_the_page_shows_every_call_import_and_error_that_programs_use() -> None:
    assert blocks.CALLS - blocks.calls_of(BLOCKS) == set()
    assert blocks.IMPORTS - blocks.imports_of(BLOCKS) == set()
    assert blocks.ERRORS in blocks.excepts_of(BLOCKS)


def test_every_module_of_the_page_is_there_with_the_same_names() -> None:
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    rows = [row for row in rows if row[0].split(".")[0] in FOLDERS]
    assert {module for module, _ in rows} == blocks.MODULES | {"storage.pipeline"}
    for module, names in rows:
        found = importlib.import_module(f"alpha_pulse.data_pipeline.{module}")
        wanted = re.findall(r"`(\w+)`", names)
        assert wanted, module
        for name in wanted:
            thing = getattr(found, name)
            assert thing is getattr(library, name, thing), f"a second {name}"


def test_every_setting_is_on_the_page_with_its_default() -> None:
    for kind in (config.StorageConfig, config.DataFetchConfig, config.MarketDataConfig):
        for item in fields(kind):
            assert f"| `{kind.__name__}.{item.name}` | {item.default} |" in PAGE


def test_every_name_is_where_programs_look_for_it() -> None:
    assert {name for name in library.__all__ if not hasattr(library, name)} == set()
    for module in (config, errors, interfaces, models, validation):
        assert {name for name in module.__all__ if not hasattr(module, name)} == set()
    base = errors.AlphaPulseError
    for kind in (errors.StorageError, errors.DataFetchError, errors.ValidationError):
        assert issubclass(kind, base)
    with pytest.raises(AttributeError, match="expected one of"):
        _ = library.nothing  # type: ignore[attr-defined]
