"""Subscriptions kept alive: each is asked for again when its socket is lost or refuses."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import ccxt.pro
import structlog

from alpha_pulse.producers.limiter import Limiter, backoff_s

log = structlog.get_logger()

# A frame that closes a socket belongs to the network; these say that the symbol itself is refused.
_REFUSED = (
    ccxt.pro.BadSymbol,
    ccxt.pro.BadRequest,
    ccxt.pro.NotSupported,
    ccxt.pro.ArgumentsRequired,
)
QUARANTINE_S = 600.0
# Binance takes many streams in one message and 5 messages a second; elsewhere one refused symbol
# would take its whole message with it.
_TOGETHER = {"binance": 50, "binanceusdm": 50}

Connected = Callable[[list[str], bool], None]
Generic = Callable[[str, list[Any]], None]


class Subscriptions:
    """Keeps the trades and candles of symbols subscribed through a tapped ccxt exchange.

    on_lost: called with symbols whose trades stopped. on_refused: with a symbol that the exchange
    refuses; it is tried again after a while, the others are left alone.
    """

    def __init__(
        self,
        client: Any,
        limiter: Limiter,
        *,
        candles: bool,
        on_lost: Callable[[list[str], str], None],
        on_refused: Callable[[str, str], None],
    ) -> None:
        self._client = client
        self._limiter = limiter
        self._candles = candles and bool(client.has.get("watchOHLCV"))
        self._on_lost = on_lost
        self._on_refused = on_refused
        self._tasks: dict[tuple[str, ...], list[asyncio.Task[None]]] = {}

    def add(self, symbols: Iterable[str]) -> None:
        """Subscribe to more symbols."""
        names = list(symbols)
        size = _TOGETHER.get(self._client.id, 1)
        for start in range(0, len(names), size):
            group = tuple(names[start : start + size])
            kinds = [self._trades] + ([self._ohlcv] if self._candles else [])
            self._tasks[group] = [
                asyncio.create_task(self._keep(kind, group, is_trades=kind == self._trades))
                for kind in kinds
            ]

    async def stop(self) -> None:
        """End all subscriptions; the sockets themselves are closed with the exchange."""
        tasks = [task for group in self._tasks.values() for task in group]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _trades(self, symbols: list[str]) -> None:
        if self._client.has.get("watchTradesForSymbols"):
            await self._client.watch_trades_for_symbols(symbols)
        else:
            await self._client.watch_trades(symbols[0])

    async def _ohlcv(self, symbols: list[str]) -> None:
        if self._client.has.get("watchOHLCVForSymbols"):
            await self._client.watch_ohlcv_for_symbols([[symbol, "1m"] for symbol in symbols])
        else:
            await self._client.watch_ohlcv(symbols[0], "1m")

    async def _keep(
        self, watch: Callable[[list[str]], Awaitable[None]], group: tuple[str, ...], is_trades: bool
    ) -> None:
        attempt = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._limiter.allowed()
                # Tapped, this returns only when ccxt gives the socket up.
                await watch(list(group))
                continue
            except _REFUSED as error:
                if is_trades:
                    for symbol in group:
                        self._on_refused(symbol, f"{type(error).__name__}: {error}"[:300])
                await asyncio.sleep(QUARANTINE_S)
                continue
            except ccxt.pro.BaseError as error:
                reason = f"{type(error).__name__}: {str(error)[:200]}"
                banned_s = self._limiter.obey(error, self._client)
            except asyncio.CancelledError:
                # ccxt cancels its own futures when it closes a socket; a cancel of ours goes on.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                reason, banned_s = "the socket was closed", 0.0
            if is_trades:
                self._on_lost(list(group), reason)
            attempt = 1 if loop.time() - started > 60.0 else attempt + 1
            await asyncio.sleep(max(banned_s, backoff_s(attempt)))
