"""Exchanges without a decoder of ours: ccxt's own handlers, the same continuity and log."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.producers.connection.client import make_exchange
from alpha_pulse.producers.exchanges import registry
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.replay.exchange.server import ReplayExchange
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket
from tests.patience import PATIENCE_S


async def test_trades_that_ccxt_decoded_reach_the_log_once_and_in_order(
    follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_decoder = replace(exchange_of("binance"), decoder=None)
    monkeypatch.setattr(registry, "_room", lambda exchange_id: without_decoder)
    market = SyntheticMarket("BTC/USDT", 5, end_us=BEGIN_US + 300_000_000)
    async with ReplayExchange([market], wait_for=["trades"], speed=60.0) as exchange:
        assert exchange.end_us is not None
        following = await follow(
            ProducerConfig(exchange_url=exchange.url, clock="event", until_us=exchange.end_us)
        )
        await asyncio.wait_for(following.task, PATIENCE_S)
        sent = list(exchange.ledger.published("BTC/USDT"))
    trades = following.published.trades()
    assert [int(trade.trade_id) for trade in trades] == [row.trade_id for row in sent]
    # ccxt drops zeros at the end; the values are exact.
    assert [(float(t.price), float(t.amount), t.side) for t in trades] == [
        (float(row.price), float(row.amount), row.side) for row in sent
    ]
    assert [trade.trade_time_us for trade in trades] == [row.trade_time_us for row in sent]


async def test_numbers_keep_their_digits_through_ccxts_own_parsers() -> None:
    exchange = make_exchange(ProducerConfig(exchange="gate"), lambda socket, frames: None)
    seen: list[Any] = []
    exchange.handle_message = lambda client, message: seen.append(message)
    try:
        client = exchange.client("wss://example.invalid/ws")
        client.alpha_pulse_socket.hand_on('{"price":0.10000000000000000001,"id":7}')
        assert seen == [{"price": "0.10000000000000000001", "id": 7}]
        assert exchange.parse_json('{"p":9e-08}') == {"p": "9e-08"}
    finally:
        await exchange.close()
