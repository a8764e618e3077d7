"""A mistyped exchange is refused by every command before anything is started."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from alpha_pulse.cli.main import make_app
from alpha_pulse.contracts.errors import ValidationError

START = ["--start", "2026-01-01"]


@pytest.mark.parametrize(
    "command",
    [
        ["up", "--exchange", "binanc"],
        ["up"],
        ["backfill", "binanc", "BTC/USDT", *START],
        ["capture", "binanc", "BTC/USDT", "--out", "recordings"],
        ["gaps", "--exchange", "binanc"],
        ["verify", "--exchange", "binanc"],
    ],
    ids=" ".join,
)
def test_a_mistyped_exchange_is_refused_before_anything_starts(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PULSE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ALPHA_PULSE_PRODUCER_EXCHANGE", "binanc")
    result = CliRunner().invoke(make_app([command[0]]), command)
    assert isinstance(result.exception, ValidationError), result.output
    assert "found 'binanc'; did you mean binance" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
