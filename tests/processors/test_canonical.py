"""Canonical bytes are what the encoder writes: the pieces, put together, are an encoded event."""

import msgspec
import pytest

from alpha_pulse.contracts.codec import encode
from alpha_pulse.contracts.events import Candle, Trade
from alpha_pulse.processors.wire import canonical

MARKETS = [("binance", "BTC/USDT"), ("kraken", "É/USD"), ("okx", 'A"B/C\\D:E')]


def a_trade(exchange: str, symbol: str) -> Trade:
    return Trade(
        exchange=exchange,
        symbol=symbol,
        trade_id="4711",
        price="61837.60",
        amount="0.50",
        side="unknown",
        trade_time_us=1_700_000_000_000_001,
        receive_time_us=1_700_000_000_000_002,
    )


def a_candle(exchange: str, symbol: str) -> Candle:
    return Candle(
        exchange=exchange,
        symbol=symbol,
        timeframe="5m",
        open_time_us=1_700_000_100_000_000,
        open="1.0",
        high="2.0",
        low="0.5",
        close="1.5",
        volume="10",
        quote_volume="12",
        buy_volume=None,
        trade_count=7,
        first_trade_id=None,
        last_trade_id="9",
        revision=12,
        source="mixed",
        coverage="exchange",
    )


@pytest.mark.parametrize(("exchange", "symbol"), MARKETS)
def test_the_pieces_of_a_trade_are_what_the_encoder_writes(exchange: str, symbol: str) -> None:
    trade = a_trade(exchange, symbol)
    start = canonical.start_of_trade(canonical.start_of_trades(exchange, symbol), "4711")
    rest = (
        f"61837.60{canonical.TRADE_AMOUNT}0.50{canonical.TRADE_SIDE}unknown"
        f"{canonical.TRADE_TIME}1700000000000001{canonical.TRADE_RECEIVED}1700000000000002"
        f"{canonical.END}"
    )
    assert start + rest.encode() == encode(trade)
    assert len(rest) - len("61837.600.50unknown") == canonical.TRADE_REST_BYTES


@pytest.mark.parametrize(("exchange", "symbol"), MARKETS)
def test_the_pieces_of_a_candle_are_what_the_encoder_writes(exchange: str, symbol: str) -> None:
    head = canonical.start_of_candles(exchange, symbol) + canonical.timeframe_in_candle("5m")
    body = (
        f"1700000100000000{canonical.CANDLE_OPEN}1.0{canonical.CANDLE_HIGH}2.0"
        f"{canonical.CANDLE_LOW}0.5{canonical.CANDLE_CLOSE}1.5{canonical.CANDLE_VOLUME}10"
        f'{canonical.CANDLE_QUOTE_VOLUME}"12"{canonical.CANDLE_BUY_VOLUME}{canonical.NULL}'
        f"{canonical.CANDLE_TRADE_COUNT}7{canonical.CANDLE_FIRST_ID}{canonical.NULL}"
        f'{canonical.CANDLE_LAST_ID}"9"{canonical.CANDLE_REVISION}12'
        f"{canonical.CANDLE_SOURCE}mixed{canonical.CANDLE_COVERAGE}exchange"
    )
    live = a_candle(exchange, symbol)
    of_a_job = msgspec.structs.replace(live, job="a-job")
    assert (head + body + canonical.CANDLE_END).encode() == encode(live)
    named = f"{canonical.CANDLE_JOB}{canonical.json_text('a-job')}{canonical.END}"
    assert (head + body + named).encode() == encode(of_a_job)
