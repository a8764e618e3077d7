"""Which exchanges there are, and the names that their events carry; known without importing ccxt.

ccxt takes two seconds to import, and a command should refuse a mistyped name at once.
"""

from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.market import TESTNET_SUFFIX, check_exchange
from alpha_pulse.producers.exchanges.registry import ExchangeType

OUR_OWN = ", ".join(ExchangeType)


@cache
def known_exchanges() -> tuple[str, ...]:
    """Return the ids of ccxt.pro's exchanges, ascending."""
    # Each is a module of the package; its list of them can't be read without importing them all.
    package = find_spec("ccxt")
    assert package is not None
    assert package.origin is not None
    modules = (Path(package.origin).parent / "pro").glob("[a-z]*.py")
    return tuple(sorted(module.stem for module in modules))


def with_exchange(config: ProducerConfig, name: str, *, testnet: bool = False) -> ProducerConfig:
    """Return the settings for an exchange of that name.

    Args:
        config: the settings to change.
        name: ccxt's id; `-testnet` behind it means its testnet.
        testnet: whether its testnet is meant, whatever the name says.

    Raises:
        ValidationError: ccxt.pro has no such exchange; the names that are near are in the message.
    """
    plain = check_exchange(name).removesuffix(TESTNET_SUFFIX)
    if plain not in known_exchanges():
        near = get_close_matches(plain, known_exchanges(), n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else f"use one such as {OUR_OWN}"
        raise ValidationError(f"expected an exchange of ccxt.pro, found {plain!r}; {advice}")
    is_testnet = testnet or name.endswith(TESTNET_SUFFIX)
    return replace(config, exchange=str(plain), testnet=is_testnet)


def exchange_name(config: ProducerConfig) -> str:
    """Return the name that events carry: ccxt's id, with `-testnet` for a testnet.

    Raises:
        ValidationError: ccxt.pro has no such exchange.
    """
    found = with_exchange(config, config.exchange, testnet=config.testnet)
    return found.exchange + TESTNET_SUFFIX if found.testnet else found.exchange
