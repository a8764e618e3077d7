"""Subscriptions kept alive: each is asked for again when its socket is lost or refuses."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import ccxt.pro
import structlog

from alpha_pulse.producers.connection.lanes import ASKING, Asking, Lanes, symbols_per_lane
from alpha_pulse.producers.connection.limiter import Limiter, backoff_s
from alpha_pulse.producers.connection.redial import LIVED_S, LOST_WAIT_S_MAX
from alpha_pulse.producers.exchanges.registry import exchange_of

log = structlog.get_logger()

# These say that the symbol itself is refused; anything else belongs to the network.
_REFUSED = (
    ccxt.pro.BadSymbol,
    ccxt.pro.BadRequest,
    ccxt.pro.NotSupported,
    ccxt.pro.ArgumentsRequired,
)
UNSUBSCRIBE_S_MAX = 3.0


class Listener(Protocol):
    """Who hears what becomes of the subscriptions."""

    def on_subscribing(self, symbols: list[str]) -> None:
        """Hear that symbols are being subscribed to.

        Args:
            symbols: unified symbols.
        """

    def on_lost(self, symbols: list[str], reason: str) -> None:
        """Hear that the trades of symbols stopped.

        Args:
            symbols: unified symbols.
            reason: for the log.
        """

    def on_refused(self, symbol: str, reason: str) -> None:
        """Hear that the exchange refuses a symbol.

        Args:
            symbol: the unified symbol.
            reason: for the log.
        """


@dataclass(eq=False, slots=True)
class _Group:
    symbols: list[str]
    lane: int
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Subscriptions:
    """Keeps the trades and candles of symbols subscribed through a tapped ccxt exchange.

    A refused symbol is tried again after a while; the others are left alone. on_unified: called
    with trades as ccxt decoded them (exchanges without a decoder of ours).
    """

    def __init__(
        self,
        client: Any,
        limiter: Limiter,
        listener: Listener,
        *,
        on_unified: Callable[[list[Any]], None],
        candles: bool,
        quarantine_s: float,
        reconnect_wait_s_max: float,
    ) -> None:
        self._client = client
        self._limiter = limiter
        self._listener = listener
        self._on_unified = on_unified
        self._candles = candles and bool(client.has.get("watchOHLCV"))
        self._quarantine_s = quarantine_s
        self._wait_s_max = reconnect_wait_s_max
        self._groups: list[_Group] = []
        exchange = exchange_of(client.id)
        lane_max = symbols_per_lane(exchange, 2 if self._candles else 1)
        self._lanes = Lanes(lane_max)
        self._group_size = min(exchange.symbols_per_subscribe, lane_max or 1 << 30)
        self._retries: dict[str, asyncio.Task[None]] = {}

    def add(self, symbols: Iterable[str]) -> None:
        """Subscribe to more symbols.

        Args:
            symbols: unified symbols that are not subscribed to.
        """
        names = list(symbols)
        for start in range(0, len(names), self._group_size):
            members = names[start : start + self._group_size]
            group = _Group(members, self._lanes.assign(len(members)))
            group.tasks.append(asyncio.create_task(self._keep(group, self._trades, trades=True)))
            if self._candles:
                group.tasks.append(asyncio.create_task(self._keep(group, self._ohlcv)))
            self._groups.append(group)

    async def remove(self, symbols: Iterable[str]) -> None:
        """Unsubscribe from symbols, without touching the others.

        Args:
            symbols: unified symbols; unknown ones are ignored.
        """
        for symbol in symbols:
            lane = self._drop(symbol)
            waiting = self._retries.pop(symbol, None)
            if waiting is not None:
                waiting.cancel()
            await self._unsubscribe(symbol, lane)
            self._forget(symbol)

    def quarantine(self, symbol: str) -> None:
        """Leave a refused symbol alone for `quarantine_s`, then try it again.

        Args:
            symbol: the unified symbol.
        """
        self._ask_later(symbol, self._quarantine_s)

    def ask_again(self, symbol: str, wait_s: float) -> None:
        """Subscribe to a symbol once more, whether or not it is subscribed to now.

        Args:
            symbol: the unified symbol.
            wait_s: in how many seconds.
        """
        self._ask_later(symbol, wait_s)

    async def stop(self) -> None:
        """End all subscriptions; the sockets themselves are closed with the exchange."""
        tasks = [task for group in self._groups for task in group.tasks]
        tasks += self._retries.values()
        self._groups.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _unsubscribe(self, symbol: str, lane: int) -> None:
        # What can't be unsubscribed is ignored as it comes.
        within = ASKING.set(Asking(lane))
        try:
            await self._leave(symbol)
        finally:
            ASKING.reset(within)

    async def _leave(self, symbol: str) -> None:
        client = self._client
        leaving = []
        if client.has.get("unWatchTradesForSymbols"):
            leaving.append(client.un_watch_trades_for_symbols([symbol]))
        if self._candles and client.has.get("unWatchOHLCVForSymbols"):
            leaving.append(client.un_watch_ohlcv_for_symbols([[symbol, "1m"]]))
        for one in leaving:
            with suppress(ccxt.pro.BaseError, TimeoutError):
                await asyncio.wait_for(one, UNSUBSCRIBE_S_MAX)

    def _ask_later(self, symbol: str, wait_s: float) -> None:
        self._drop(symbol)
        if symbol not in self._retries:
            self._retries[symbol] = asyncio.create_task(self._try_later(symbol, wait_s))

    async def _try_later(self, symbol: str, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        del self._retries[symbol]
        self._forget(symbol)
        self.add([symbol])

    def _drop(self, symbol: str) -> int:
        """Take a symbol out of its group; return the lane that it was in, 0 when in none."""
        lane = 0
        for group in list(self._groups):
            if symbol in group.symbols:
                group.symbols.remove(symbol)
                self._lanes.release(group.lane)
                lane = group.lane
                if not group.symbols:
                    self._groups.remove(group)
                    for task in group.tasks:
                        task.cancel()
        return lane

    def _forget(self, symbol: str) -> None:
        # ccxt never asks again for what it believes to be subscribed.
        for client in list((self._client.clients or {}).values()):
            for known in [name for name in client.subscriptions if symbol in str(name)]:
                del client.subscriptions[known]

    async def _trades(self, symbols: list[str]) -> None:
        if self._client.has.get("watchTradesForSymbols"):
            self._on_unified(await self._client.watch_trades_for_symbols(symbols))
        else:
            self._on_unified(await self._client.watch_trades(symbols[0]))

    async def _ohlcv(self, symbols: list[str]) -> None:
        if self._client.has.get("watchOHLCVForSymbols"):
            await self._client.watch_ohlcv_for_symbols([[symbol, "1m"] for symbol in symbols])
        else:
            await self._client.watch_ohlcv(symbols[0], "1m")

    async def _keep(
        self,
        group: _Group,
        watch: Callable[[list[str]], Awaitable[None]],
        *,
        trades: bool = False,
    ) -> None:
        attempt = 0
        loop = asyncio.get_running_loop()

        def sent() -> None:
            if trades:
                self._listener.on_subscribing(list(group.symbols))

        ASKING.set(Asking(group.lane, sent))
        while group.symbols:
            started = loop.time()
            symbols = list(group.symbols)
            try:
                await self._limiter.allowed()
                # Tapped, this returns only when ccxt gives the socket up.
                await watch(symbols)
                continue
            except ccxt.pro.UnsubscribeError:
                continue  # one symbol left the group; the others are still subscribed
            except _REFUSED as error:
                if trades and len(symbols) == 1:
                    self._listener.on_refused(symbols[0], f"{type(error).__name__}: {error}"[:300])
                    return
                reason, banned_s = _said(error), 1.0
                wait_s_max = self._wait_s_max
            except ccxt.pro.BaseError as error:
                reason, banned_s = _said(error), self._limiter.obey(error, self._client)
                # When a lost socket is dialed again is the tap's decision (`redial`).
                lost = isinstance(error, ccxt.pro.NetworkError)
                wait_s_max = LOST_WAIT_S_MAX if lost else self._wait_s_max
            except asyncio.CancelledError:
                # ccxt cancels its own futures when it closes a socket; a cancel of ours goes on.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                reason, banned_s, wait_s_max = "the socket was closed", 0.0, LOST_WAIT_S_MAX
            if trades:
                self._listener.on_lost(symbols, reason)
            ASKING.set(Asking(group.lane, sent))
            attempt = 1 if loop.time() - started > LIVED_S else attempt + 1
            await asyncio.sleep(max(banned_s, backoff_s(attempt, max_s=wait_s_max)))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
