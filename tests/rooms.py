"""What tests need of the exchanges' rooms: decoders, and the frames of their docstrings."""

import re
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from alpha_pulse.producers.exchanges.decoder import FrameDecoder
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Options
from alpha_pulse.replay.markets.market import Instrument

# Documented frames speak of these.
SYMBOLS = ("BTC/USDT", "BNB/BTC", "BTC/USD", "ETH/USD", "MATIC/USD")


def market_ids(name: str) -> dict[str, str]:
    """The exchange's names of some symbols, as its replay dialect writes them into frames."""
    dialect = DIALECTS[name]([], Options())
    feeds: list[Any] = [
        SimpleNamespace(instrument=Instrument(symbol, 2, 2), symbol=symbol) for symbol in SYMBOLS
    ]
    return {dialect.wire_symbol(feed): feed.symbol for feed in feeds}


def a_decoder(name: str) -> FrameDecoder:
    """A new decoder of an exchange."""
    make = exchange_of(name).decoder
    assert make is not None, f"the room of {name} has no decoder"
    return make(name, market_ids(name))


def documented_frames(name: str) -> list[str]:
    """The frames of a room's docstring: each indented block is one."""
    text = str(import_module(f"alpha_pulse.producers.exchanges.{name}").__doc__)
    blocks = re.findall(r"(?:^    .+\n)+", text, flags=re.MULTILINE)
    return ["".join(line.strip() for line in block.splitlines()) for block in blocks]
