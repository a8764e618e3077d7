"""A recording through the whole path: real ccxt, real Kafka, Faust, the real ClickHouse engine."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alpha_pulse.embedded.runtime import Runtime
from tests.patience import PATIENCE_S


def run(runtime: Runtime, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "ALPHA_PULSE_KAFKA": runtime.kafka,
        "ALPHA_PULSE_CLICKHOUSE": runtime.clickhouse,
        "TMPDIR": str(runtime.data_dir),  # a run that is killed leaves its files
    }
    return subprocess.run(
        [sys.executable, "-m", "alpha_pulse.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def result_of(process: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert process.returncode == 0, process.stdout + process.stderr
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def query(runtime: Runtime, namespace: str, sql: str) -> list[dict[str, Any]]:
    process = run(runtime, "--namespace", namespace, "sql", sql, "--json")
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_every_trade_is_stored_once_and_every_candle_is_exact(
    runtime: Runtime, namespace: str, made_recording: Path
) -> None:
    process = run(runtime, "--namespace", namespace, "replay", str(made_recording), "--json")
    result = result_of(process)
    trades = result["trades"]
    assert trades["sent"] == trades["stored"] > 100
    assert trades["duplicated"] == trades["republished"] == trades["altered"] == 0
    assert result["candles"]["equal"] == result["candles"]["compared"] == 8
    assert result["rollups"]["equal"] == result["rollups"]["compared"] > 8
    coverage = query(
        runtime,
        namespace,
        "SELECT toString(coverage) AS coverage, count() AS minutes FROM candles "
        "WHERE timeframe = '1m' GROUP BY 1 ORDER BY 1",
    )
    assert coverage == [
        {"coverage": "contiguous", "minutes": 8},
        {"coverage": "partial", "minutes": 1},
    ]


def test_a_real_recording_equals_the_exchange(
    runtime: Runtime, namespace: str, recordings: Path
) -> None:
    folder = recordings / "binance-spot-btcusdt"
    process = run(runtime, "--namespace", namespace, "replay", str(folder), "--json")
    result = result_of(process)
    assert result["trades"]["sent"] == result["trades"]["stored"] == 19904
    assert result["candles"]["equal"] == result["candles"]["compared"] == 10
    assert result["trades"]["duplicated"] == result["trades"]["republished"] == 0
    first = query(
        runtime,
        namespace,
        "SELECT toString(coverage) AS coverage, trade_count FROM candles WHERE timeframe = '1m' "
        "ORDER BY open_time LIMIT 1",
    )
    assert first[0]["coverage"] == "partial"


def damaged(recording: Path, folder: Path, name: str, content: bytes | None) -> Path:
    for file in recording.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trades.csv.gz", None, "expected a readable file"),
        ("trades.csv.gz", b"not gzip", "expected a whole gzip file"),
        ("trades.csv.gz", gzip.compress(b"a,b\n1,2\n"), "expected the columns trade_id"),
        (
            "trades.csv.gz",
            gzip.compress(
                b"trade_id,trade_time_us,price,amount,side\n1,1767225600000000,-1,1,buy\n"
            ),
            "price above 0",
        ),
        ("recording.json", b"{", "expected JSON"),
        ("candles-1m.csv", b"open_time_us\n", "expected the columns open_time_us"),
    ],
    ids=["missing", "not-gzip", "columns", "bad-row", "bad-json", "bad-candles"],
)
def test_a_bad_recording_is_one_clear_line_and_exit_code_2(
    runtime: Runtime,
    made_recording: Path,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    process = run(runtime, "replay", str(damaged(made_recording, tmp_path, name, content)))
    assert process.returncode == 2
    assert message in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_not_there_is_exit_code_2(runtime: Runtime, tmp_path: Path) -> None:
    process = run(runtime, "replay", str(tmp_path / "none"), "--json")
    assert process.returncode == 2
    assert "expected a recording folder, found nothing" in process.stderr
