"""Recordings for the tests: one that is made here, and the real ones where there are any."""

import os
from pathlib import Path

import pytest

from alpha_pulse.replay.markets.synthetic import SyntheticMarket
from alpha_pulse.replay.markets.write_recording import write_recording
from alpha_pulse.replay.verdict import recompute_minutes

MINUTE_US = 60_000_000


@pytest.fixture(scope="session")
def made_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of a made-up market: eight complete minutes, begun and ended inside one."""
    seed = int(os.environ.get("SEED", "7"))
    print(f"SEED={seed}")
    folder = tmp_path_factory.mktemp("recording")
    market = SyntheticMarket("ETH/USDT", seed)
    first = market.position_at(market.begin_us + MINUTE_US // 3)
    end = market.position_at(market.begin_us + 10 * MINUTE_US - MINUTE_US // 4)
    trades = list(market.rows(first, end))
    write_recording(
        folder,
        exchange="binance",
        symbol="ETH/USDT",
        source=f"made-up market, seed {seed}",
        trades=trades,
        candles=recompute_minutes(trades)[1:-1],
    )
    return folder


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings, named by ALPHA_PULSE_RECORDINGS."""
    folder = os.environ.get("ALPHA_PULSE_RECORDINGS")
    if not folder:
        pytest.skip("needs real recordings: set ALPHA_PULSE_RECORDINGS to their folder")
    return Path(folder)
