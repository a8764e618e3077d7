"""Which exchange is meant by a name, and what a mistyped one is told."""

import subprocess
import sys
from typing import Any

import pytest

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.producers.connection.client import make_exchange
from alpha_pulse.producers.exchanges.names import exchange_name, known_exchanges, with_exchange
from alpha_pulse.producers.exchanges.registry import ExchangeType


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("binanc", "did you mean binance"),
        ("krakn", "did you mean kraken"),
        ("binanc-testnet", "did you mean binance"),
        ("zzzzzzzz", "use one such as binance, binanceusdm, kraken, okx, bybit, coinbase"),
        ("Binance", "lower case"),
        ("__init__", "lower case"),
    ],
)
def test_a_name_that_is_none_is_told_the_names_near_it(name: str, advice: str) -> None:
    for call in (
        lambda: with_exchange(ProducerConfig(), name),
        lambda: exchange_name(ProducerConfig(exchange=name)),
        lambda: make_exchange(ProducerConfig(exchange=name)),
    ):
        with pytest.raises(ValidationError, match=advice):
            call()


def test_every_exchange_of_the_library_is_known() -> None:
    assert set(ExchangeType) <= set(known_exchanges())


@pytest.mark.parametrize(
    ("name", "testnet", "carried"),
    [
        ("binance", False, "binance"),
        ("binance", True, "binance-testnet"),
        ("binance-testnet", False, "binance-testnet"),
        ("binance-testnet", True, "binance-testnet"),
        (ExchangeType.KRAKEN, False, "kraken"),
    ],
)
def test_a_testnet_is_one_by_its_name_or_by_the_setting(
    name: str, testnet: bool, carried: str
) -> None:
    given = ProducerConfig(exchange=name, testnet=testnet)
    settings = with_exchange(given, name, testnet=testnet)
    assert (settings.exchange, settings.testnet) == (
        carried.removesuffix("-testnet"),
        carried.endswith("-testnet"),
    )
    assert exchange_name(settings) == exchange_name(given) == carried


async def test_a_testnet_by_name_alone_asks_the_testnet() -> None:
    def addresses(**settings: Any) -> str:
        exchange = make_exchange(ProducerConfig(**settings))
        return str(exchange.urls["api"])

    by_name = addresses(exchange="binance-testnet")
    assert by_name == addresses(exchange="binance", testnet=True)
    assert by_name != addresses(exchange="binance")


def test_names_and_rooms_are_known_without_importing_ccxt() -> None:
    look = """
import sys
from alpha_pulse.data_pipeline import ExchangeType
from alpha_pulse.producers.exchanges.names import known_exchanges
from alpha_pulse.producers.exchanges.registry import exchange_of
assert set(ExchangeType) <= set(known_exchanges())
assert all(exchange_of(name).decoder for name in ExchangeType)
sys.exit("ccxt" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0
