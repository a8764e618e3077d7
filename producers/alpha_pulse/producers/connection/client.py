"""ccxt.pro exchanges as this project uses them: exact numbers, tapped sockets, any server."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import ccxt.pro

from alpha_pulse.contracts.config import ProducerConfig
from alpha_pulse.contracts.errors import ConfigError
from alpha_pulse.producers.connection.redial import Redial
from alpha_pulse.producers.connection.tap import OnFrames, tapped
from alpha_pulse.producers.exchanges.names import with_exchange
from alpha_pulse.producers.exchanges.registry import exchange_of

_URL = re.compile(r"^(http|ws)s?://")

# Half-open sockets: no pong for two pings, found within four times this (ccxt's own: minutes).
KEEP_ALIVE_MS = 2_500
REST_TIMEOUT_MS = 10_000
# What a status says whatever the body does: too many requests, banned (RFC 6585; 418 is this
# trade's custom), and a place that is not served (RFC 7725).
REFUSED_BY_STATUS = {
    418: ccxt.pro.DDoSProtection,
    429: ccxt.pro.DDoSProtection,
    451: ccxt.pro.ExchangeNotAvailable,
}


def make_exchange(config: ProducerConfig, on_frames: OnFrames | None = None) -> Any:
    """Return a ccxt.pro exchange with exact numbers; the caller closes it, or uses `open_exchange`.

    Args:
        config: which exchange, and how it is reached.
        on_frames: called with the frames of its sockets, which are tapped then.

    Raises:
        ValidationError: ccxt.pro has no such exchange.
        ConfigError: the exchange has no testnet, or `exchange_url` is none.
    """
    config = with_exchange(config, config.exchange, testnet=config.testnet)
    name = config.exchange
    room = exchange_of(name)
    kind = getattr(ccxt.pro, name)
    exchange = (tapped(kind, room) if on_frames else kind)(
        {
            "enableRateLimit": config.clock != "event",  # a replay has no limits
            "apiKey": config.api_key,
            "timeout": REST_TIMEOUT_MS,
            "options": deepcopy(dict(room.ccxt_options)),
        }
    )
    if on_frames:
        exchange.on_frames = on_frames
        exchange.limits = room.limits
        exchange.dialing = set()
        exchange.redial = Redial(
            room.limits.dials.half(), refused_wait_s_max=config.reconnect_wait_s_max
        )
    _obey_statuses(exchange)
    # Numbers stay the exchange's own text; ccxt's default is float.
    exchange.number = str
    exchange.streaming = {**exchange.streaming, "keepAlive": KEEP_ALIVE_MS}
    if config.testnet:
        if not exchange.urls.get("test"):
            raise ConfigError(
                f"expected a testnet of {name}, found that it has none; set [producer] testnet = "
                "false"
            )
        exchange.set_sandbox_mode(True)
    if config.exchange_url:
        point_at(exchange, config.exchange_url)
    return exchange


@asynccontextmanager
async def open_exchange(
    config: ProducerConfig, on_frames: OnFrames | None = None
) -> AsyncIterator[Any]:
    """Yield an exchange and close it, whatever happens: an open one leaks sockets and memory.

    Args:
        config: as of `make_exchange`.
        on_frames: as of `make_exchange`.

    Raises:
        ValidationError, ConfigError: as `make_exchange`.
    """
    exchange = make_exchange(config, on_frames)
    try:
        yield exchange
    finally:
        await exchange.close()


def _obey_statuses(exchange: Any) -> None:
    # ccxt looks into the body first and forgets the status over it: a 429 becomes any error.
    own = exchange.handle_errors

    def handle_errors(status: int, reason: str, url: str, method: str, *rest: Any) -> Any:
        if status in REFUSED_BY_STATUS:
            body = str(rest[1])[:500] if len(rest) > 1 else ""
            raise REFUSED_BY_STATUS[status](
                f"{exchange.id} {method} {url} {status} {reason} {body}"
            )
        return own(status, reason, url, method, *rest)

    exchange.handle_errors = handle_errors


def point_at(exchange: Any, exchange_url: str) -> None:
    """Send all of an exchange's REST and websocket traffic to another server.

    Args:
        exchange: a ccxt exchange.
        exchange_url: `http://host:port`; the original host and path stay behind it, because ccxt
            looks at them (binance: `/stream`) and the server tells the exchanges apart by them.

    Raises:
        ConfigError: it is no such address.
    """
    if not _URL.match(exchange_url):
        raise ConfigError(
            f"expected [producer] exchange_url such as http://127.0.0.1:8900, found "
            f"{exchange_url!r}"
        )
    exchange.urls["api"] = _rewritten(exchange.urls["api"], exchange_url.rstrip("/"))


def _rewritten(node: Any, server: str) -> Any:
    if isinstance(node, str):
        found = _URL.match(node)
        if not found or node.startswith(("http://127.0.0.1", "ws://127.0.0.1")):
            return node
        secure = "s" if server.startswith(("https", "wss")) else ""
        scheme = f"{found.group(1)}{secure}"
        return f"{scheme}://{server.split('://', 1)[1]}/{node[found.end() :]}"
    if isinstance(node, dict):
        return {key: _rewritten(value, server) for key, value in node.items()}
    if isinstance(node, list):
        return [_rewritten(value, server) for value in node]
    return node
