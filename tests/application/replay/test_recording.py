import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_pulse.replay.markets.recording import Recording, RecordingError, load_recording
from tests.application.replay.conftest import MINUTE_US, make_recording, write_recording

TRADES = "trade_id,trade_time_us,price,amount,side\n"
CANDLES = "open_time_us,open,high,low,close,volume,trade_count\n"
GOOD = "7,1723161255342000,61837.63,0.02,sell\n"


@pytest.fixture
def folder(tmp_path: Path, recording: Recording) -> Path:
    return write_recording(tmp_path / "recording", recording)


def put_trades(folder: Path, text: str) -> None:
    (folder / "trades.csv.gz").write_bytes(gzip.compress(text.encode()))


def test_what_was_written_is_loaded(folder: Path, recording: Recording) -> None:
    assert load_recording(folder) == recording


def test_the_recording_ends_after_its_last_candle_and_its_last_trade(recording: Recording) -> None:
    closes_us = recording.candles[-1].open_time_us + MINUTE_US
    assert recording.trades[-1].trade_time_us < closes_us
    assert recording.end_us == closes_us + 2_000_000
    late = recording.trades[-1]._replace(trade_id=10**9, trade_time_us=closes_us + 5_000_000)
    longer = make_recording()
    longer = type(longer)(
        longer.exchange, "spot", longer.symbol, "", (*longer.trades, late), longer.candles
    )
    assert longer.end_us == closes_us + 5_000_001


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no-such-folder"):
        load_recording(tmp_path / "no-such-folder")


@pytest.mark.parametrize("name", ["recording.json", "trades.csv.gz", "candles-1m.csv"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(RecordingError, match=name):
        load_recording(folder)


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"exchange": "binance"}', "market"),
        (
            '{"exchange":"binance","market":"spot","symbol":"BTC/USDT","timeframe":"5m"}',
            "timeframe",
        ),
        ('{"exchange":"binance","market":"spot","symbol":"BTCUSDT","timeframe":"1m"}', "symbol"),
    ],
)
def test_a_bad_description_is_refused(folder: Path, about: str, reason: str) -> None:
    (folder / "recording.json").write_text(about)
    with pytest.raises(RecordingError, match=reason):
        load_recording(folder)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7,1723161255342000,61837.63,0.02\n", "5 fields"),
        ("x,1723161255342000,61837.63,0.02,sell\n", "trade_id"),
        ("7,1723161255342,61837.63,0.02,sell\n", "microseconds"),
        ("7,1723161255342000,0,0.02,sell\n", "price"),
        ("7,1723161255342000,-1,0.02,sell\n", "price"),
        ("7,1723161255342000,1e5,0.02,sell\n", "price"),
        ("7,1723161255342000,nan,0.02,sell\n", "price"),
        ("7,1723161255342000,61837.63,0.00,sell\n", "amount"),
        ("7,1723161255342000,61837.63,٣,sell\n", "amount"),
        ("7,1723161255342000,61837.63,0.02,SELL\n", "side"),
        (GOOD + "7,1723161255342000,61837.63,0.02,sell\n", "above 7"),
        (GOOD + "6,1723161255342000,61837.63,0.02,sell\n", "above 7"),
        (GOOD + "8,1723161252342000,61837.63,0.02,sell\n", "trade_time_us"),
        ("", "at least one trade"),
    ],
)
def test_a_bad_trade_is_refused_with_its_line(folder: Path, row: str, reason: str) -> None:
    put_trades(folder, TRADES + row)
    with pytest.raises(RecordingError, match=reason) as raised:
        load_recording(folder)
    if row:
        assert f"trades.csv.gz:{row.count(chr(10)) + 1}" in str(raised.value)


def test_a_clock_that_steps_back_a_little_is_kept(folder: Path) -> None:
    (folder / "candles-1m.csv").write_text(CANDLES)
    put_trades(folder, TRADES + GOOD + "8,1723161254342000,61837.63,0.02,sell\n")
    assert [row.trade_id for row in load_recording(folder).trades] == [7, 8]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1723161300000001,1,1,1,1,1,\n", "minute"),
        ("1723161300000000,1,0.5,1,1,1,\n", "high"),
        ("1723161300000000,1,2,1.5,1,1,\n", "low"),
        ("1723161300000000,0,1,1,1,1,\n", "open"),
        ("1723161300000000,1,1,1,1,-1,\n", "volume"),
        ("1723161300000000,1,1,1,1,1,x\n", "trade_count"),
        ("1723161300000000,1,1,1,1,1,\n1723161300000000,1,1,1,1,1,\n", "above"),
    ],
)
def test_a_bad_candle_is_refused_with_its_line(folder: Path, row: str, reason: str) -> None:
    (folder / "candles-1m.csv").write_text(CANDLES + row)
    with pytest.raises(RecordingError, match=reason) as raised:
        load_recording(folder)
    assert f"candles-1m.csv:{row.count(chr(10)) + 1}" in str(raised.value)


def test_a_count_that_disagrees_with_the_trades_is_refused(folder: Path) -> None:
    about = json.loads((folder / "recording.json").read_text())
    (folder / "recording.json").write_text(json.dumps(about | {"trades": 3}))
    with pytest.raises(RecordingError, match="expected 3 trades"):
        load_recording(folder)


@pytest.mark.parametrize("cut", [0, 10, -5])
def test_a_cut_gzip_file_is_refused(folder: Path, cut: int) -> None:
    path = folder / "trades.csv.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RecordingError, match=r"trades\.csv\.gz"):
        load_recording(folder)


@given(rubbish=st.binary(max_size=200), which=st.sampled_from(["json", "trades", "candles"]))
def test_any_bytes_load_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes, which: str
) -> None:
    folder = write_recording(
        tmp_path_factory.getbasetemp() / "rubbish", make_recording(minutes=1, trades_per_minute=5)
    )
    packed = gzip.compress(rubbish)
    put: dict[str, Callable[[], int]] = {
        "json": lambda: (folder / "recording.json").write_bytes(rubbish),
        "trades": lambda: (folder / "trades.csv.gz").write_bytes(packed),
        "candles": lambda: (folder / "candles-1m.csv").write_bytes(rubbish),
    }
    put[which]()
    with pytest.raises(RecordingError):
        load_recording(folder)


def test_uuids_are_kept_beside_their_place(folder: Path) -> None:
    (folder / "candles-1m.csv").write_text(CANDLES)
    ids = ["9dc75fca-4bdd-4773-9f78-6f5d7ab2a110", "20f43950-d8dd-5b31-9112-a178eb6023af"]
    rows = "".join(f"{i},172316125534{n}000,1.5,2,buy\n" for n, i in enumerate(ids))
    put_trades(folder, TRADES + rows)
    loaded = load_recording(folder)
    assert loaded.native_ids == tuple(ids)
    assert [row.trade_id for row in loaded.trades] == [1, 2]


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("name", "trades", "candles"),
    [("binance-spot-btcusdt", 19_904, 10), ("kraken-spot-btcusdt", 1_000, 409)],
)
def test_real_recordings_load(name: str, trades: int, candles: int) -> None:
    root = os.environ.get("ALPHA_PULSE_RECORDINGS")
    if not root:
        pytest.skip("set ALPHA_PULSE_RECORDINGS to the folder of recordings")
    loaded = load_recording(Path(root) / name)
    assert (len(loaded.trades), len(loaded.candles)) == (trades, candles)
