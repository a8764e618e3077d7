"""A capture is a recording that replays."""

import asyncio
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.producers.capture import capture
from alpha_pulse.producers.exchanges.registry import ExchangeType
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.recorded import RecordedMarket
from alpha_pulse.replay.markets.recording import load_recording
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S

MINUTE_US = 60_000_000


def config(exchange: ReplayExchange) -> ProducerConfig:
    assert exchange.end_us is not None
    return ProducerConfig(
        exchange=exchange.dialect.name,
        symbols=tuple(feed.symbol for feed in exchange.feeds),
        exchange_url=exchange.url,
        clock="event",
        until_us=exchange.end_us,
    )


@pytest.mark.parametrize("name", sorted(ExchangeType))
async def test_a_capture_replays_as_the_same_market(name: str, tmp_path: Path, follow: Any) -> None:
    symbol = DIALECTS[name].unified_symbol("BTC/USDT")
    source = SyntheticMarket("BTC/USDT", 9, end_us=BEGIN_US + 5 * MINUTE_US)
    async with ReplayExchange([source], dialect=name) as exchange:
        async with asyncio.timeout(PATIENCE_S):
            folders = await capture(config(exchange), tmp_path / "captured", asyncio.Event())
        step_us = exchange.dialect.time_precision_us
        sent = [
            (row.price, row.amount, row.side, row.trade_time_us // step_us * step_us)
            for row in exchange.ledger.published(symbol)
        ]
    assert folders == [tmp_path / "captured"]
    recording = load_recording(folders[0])
    assert [(t.price, t.amount, t.side, t.trade_time_us) for t in recording.trades] == sent
    assert len(recording.candles) >= 4
    with gzip.open(folders[0] / "frames.ndjson.gz", "rt") as lines:
        frames = [json.loads(line) for line in lines]
    assert len(frames) > 100
    assert all(isinstance(frame["recv_ns"], int) for frame in frames)
    async with ReplayExchange([RecordedMarket(recording)], dialect=name) as again:
        following = await follow(config(again))
        await asyncio.wait_for(following.task, PATIENCE_S)
        published = following.published
        trades = published.trades()
        assert [(t.price, t.amount, t.side, t.trade_time_us) for t in trades] == sent
        assert published.gaps() == published.dead_letters() == []
        # Candles that are sums of the captured trades are those that were captured.
        again_us = {candle.open_time_us: candle for candle in published.candles()}
        for candle in recording.candles:
            found = again_us[candle.open_time_us]
            assert (found.open, found.high, found.low, found.close, found.volume) == (
                candle.open,
                candle.high,
                candle.low,
                candle.close,
                candle.volume,
            )


async def test_a_capture_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "recording.json").write_text("{}")
    with pytest.raises(ConfigError, match="empty folder"):
        await capture(ProducerConfig(), tmp_path, asyncio.Event())


async def test_a_symbol_that_is_not_listed_is_named_and_the_others_are_recorded(
    tmp_path: Path,
) -> None:
    source = SyntheticMarket("BTC/USDT", 9, end_us=BEGIN_US + 2 * MINUTE_US)
    refused: dict[str, str] = {}
    async with ReplayExchange([source]) as exchange:
        both = replace(config(exchange), symbols=("BTC/USDT", "GONE/USDT"))
        async with asyncio.timeout(PATIENCE_S):
            folders = await capture(
                both, tmp_path / "captured", asyncio.Event(), refused.__setitem__
            )
    assert [folder.name for folder in folders] == ["binance-btc-usdt"]
    assert refused == {"GONE/USDT": "the exchange does not list it"}
