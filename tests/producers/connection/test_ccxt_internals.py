"""The inside of ccxt 4.5.90 that the tap leans on; when this fails, read tap.py first."""

import inspect
from typing import Any

import ccxt
import ccxt.pro
import pytest
from ccxt.async_support.base.exchange import Exchange
from ccxt.async_support.base.ws import client as ws_client
from ccxt.async_support.base.ws.client import Client

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import ConfigError, ValidationError
from alpha_pulse.producers.connection.client import make_exchange
from alpha_pulse.producers.exchanges.names import exchange_name, known_exchanges
from alpha_pulse.producers.exchanges.registry import ExchangeType


def test_ccxt_is_the_version_that_was_read() -> None:
    assert ccxt.__version__ == "4.5.90"


def test_the_exchanges_are_the_modules_of_the_package() -> None:
    assert set(known_exchanges()) == set(ccxt.pro.exchanges)


def test_a_client_has_the_methods_that_the_tap_replaces() -> None:
    for name, parameters in {
        "handle_message": ["self", "message"],
        "handle_text_or_binary_message": ["self", "data"],
        "receive": ["self"],
        "receive_loop": ["self"],
        "on_error": ["self", "error"],
    }.items():
        assert list(inspect.signature(getattr(Client, name)).parameters) == parameters
    source = inspect.getsource(Client.receive_loop)
    # Called through the instance, so that an instance's own replacement is found.
    assert "self.handle_message(" in source
    assert "create_task(self.receive())" in source
    assert "call_soon(self.receive_loop)" in source
    # What our own reading of the buffer repeats.
    assert "while len(self.buffer) > 1:" in source
    assert "size_delta += size + MSG_SIZE_OVERHEAD" in source
    assert "self.buffer[0] = (self.buffer[0][0], self.buffer[0][1] + size_delta)" in source


def test_a_client_has_the_state_that_we_touch() -> None:
    source = inspect.getsource(ws_client)
    for name in ("lastPong", "subscriptions", "asyncio_loop", "keepAlive", "maxPingPongMisses"):
        assert name in source


def test_a_dial_asks_for_its_delay_and_a_lost_socket_is_told() -> None:
    for watch in (Exchange.watch, Exchange.watch_multiple):
        source = inspect.getsource(watch)
        assert "backoff_delay = self.ws_dial_delay(url)" in source
        assert "client.connect(selected_session, backoff_delay)" in source
    # A handshake that was refused is the cause of the error that everybody hears.
    assert "error = NetworkError(e)" in inspect.getsource(Client.open)
    assert "self.on_error_callback(self, error)" in inspect.getsource(Client.on_error)
    assert "self.on_close_callback(self, code)" in inspect.getsource(Client.on_close)


def test_all_that_a_client_sends_passes_its_connection() -> None:
    assert "self.open(session, backoff_delay)" in inspect.getsource(Client.connect)
    assert "self.connection.send_str(" in inspect.getsource(Client.send)
    assert "self.connection.ping()" in inspect.getsource(Client.ping_loop)
    assert "self.connection.pong(" in inspect.getsource(Client.handle_message)
    source = inspect.getsource(Client.open)
    # The connection is ours to change before anybody sends on it.
    assert source.index("self.connection = await") < source.index("self.on_connected_callback(self")
    for watch in (Exchange.watch, Exchange.watch_multiple):
        source = inspect.getsource(watch)
        assert "await client.throttle(cost)" in source
        # Who asked is a context variable: callbacks and tasks copy the context that made them.
        assert "connected.add_done_callback(after)" in source
        assert "asyncio.ensure_future(send_message())" in source


@pytest.mark.parametrize("name", sorted(ExchangeType))
async def test_every_exchange_with_a_decoder_makes_its_clients_through_client(name: str) -> None:
    seen: list[Any] = []
    exchange = make_exchange(ProducerConfig(exchange=name), lambda socket, frames: None)
    exchange.on_tapped = seen.append
    try:
        client = exchange.client("wss://example.invalid/ws")
        assert exchange.client("wss://example.invalid/ws") is client
        assert [socket.url for socket in seen] == ["wss://example.invalid/ws"]
        assert client.keepAlive == 2_500
        assert exchange.number is str
    finally:
        await exchange.close()


@pytest.mark.parametrize("name", sorted(ExchangeType))
async def test_the_original_host_stays_in_every_address_of_another_server(name: str) -> None:
    plain = getattr(ccxt.pro, name)()
    exchange = make_exchange(ProducerConfig(exchange=name, exchange_url="http://127.0.0.1:8900"))

    def addresses(node: Any) -> list[str]:
        if isinstance(node, dict):
            return [found for value in node.values() for found in addresses(value)]
        return [node] if isinstance(node, str) else []

    try:
        before, after = addresses(plain.urls["api"]), addresses(exchange.urls["api"])
        assert len(before) == len(after) > 0
        for original, moved in zip(before, after, strict=True):
            if "://" in original:
                assert moved.startswith(("http://127.0.0.1:8900/", "ws://127.0.0.1:8900/"))
                assert moved.endswith(original.split("://", 1)[1])
    finally:
        await plain.close()
        await exchange.close()


async def test_a_testnet_is_another_exchange() -> None:
    config = ProducerConfig(exchange="binance", testnet=True)
    assert exchange_name(config) == "binance-testnet"
    exchange = make_exchange(config)
    try:
        assert "testnet" in exchange.urls["api"]["public"]
    finally:
        await exchange.close()


def test_an_unknown_exchange_or_a_missing_testnet_is_a_clear_error() -> None:
    with pytest.raises(ValidationError, match="nosuch"):
        make_exchange(ProducerConfig(exchange="nosuch"))
    with pytest.raises(ConfigError, match="testnet of kraken"):
        make_exchange(ProducerConfig(exchange="kraken", testnet=True))


async def test_okx_follows_the_channel_of_single_trades_without_a_login() -> None:
    exchange = make_exchange(ProducerConfig(exchange="okx"), lambda socket, frames: None)
    try:
        assert exchange.options["watchTrades"]["channel"] == "trades-all"
        await exchange.authenticate({"access": "business"})
    finally:
        await exchange.close()
