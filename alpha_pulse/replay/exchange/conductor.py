"""Move event time on and send what happens, in order, to the sockets that subscribed to it.

There is one cursor: event time and, per symbol, a position. Trades are published up to a tick of
event time, then the candles of that tick are sent: the final candle of a minute comes after all
of its trades.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from alpha_pulse.replay.dialects.base import Dialect
from alpha_pulse.replay.dialects.sockets import Channel, ClientSocket
from alpha_pulse.replay.exchange.clock import Clock
from alpha_pulse.replay.exchange.faults import FaultPlan, StreamFault
from alpha_pulse.replay.exchange.ledger import Ledger
from alpha_pulse.replay.exchange.sender import Sender, Unit
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import TradeRow

BATCH_TRADES_MAX = 4_096
LINGER_S = 0.2
# A look at every market takes about 3 µs for each: between two the stream rests some times as long,
# so that an exchange of thousands leaves the machine to those who follow it.
REST_S_PER_MARKET = 10e-6
REJOIN_S_MAX = 30.0
# A market prints a few trades while a client that is back asks over REST what it missed.
HEAL_TRADES = 10
HEAL_S_MAX = 0.5
HEAL_REFUSED_S_MAX = 4.0

Expected = tuple[str, str]  # (kind of channel, symbol)


class Conductor:
    """The stream of one exchange: runs until it is cancelled."""

    def __init__(
        self,
        feeds: Sequence[Feed],
        dialect: Dialect,
        clock: Clock,
        ledger: Ledger,
        faults: FaultPlan,
        *,
        expected: Iterable[Expected],
        candle_interval_us: int,
        begin_us: int,
        end_us: int | None,
    ) -> None:
        self.expected: set[Expected] = set(expected)
        self.now_us = begin_us
        self.end_us = end_us
        self.finished = False
        self.started = False
        self.published = 0
        self.changed = asyncio.Event()
        # Whether a client asked for trades over REST, and was refused, since the last reconnect.
        self.asked = asyncio.Event()
        self.refused = False
        self._feeds = feeds
        self._clock = clock
        self._sender = Sender(feeds, dialect, ledger, waits=clock.full_speed)
        self._faults = faults
        self._tick_us = candle_interval_us
        self._rejoining = False
        self._effect: _Effect | None = None

    async def run(self) -> None:
        """Publish until the end, then keep the sockets company for ever."""
        await self._wait_for_readers(None)
        self.started = True
        self._clock.start()
        while self.end_us is None or self.now_us < self.end_us:
            await self._advance()
        self.finished = True
        while True:
            self._sender.send_open_candles(self.now_us, only_changed=False)
            await self._sender.flush()
            await asyncio.sleep(LINGER_S)

    @property
    def sockets(self) -> dict[int, ClientSocket]:
        """Return the open sockets by number."""
        return self._sender.sockets

    @property
    def missing(self) -> list[Expected]:
        """Return the expected subscriptions that no socket has."""
        present = {
            (channel.kind, channel.symbol)
            for socket in self.sockets.values()
            for channel in socket.channels
        }
        return sorted(self.expected - present)

    # Time

    async def _advance(self) -> None:
        if self._clock.full_speed and self._rejoining and self._effect is None:
            await self._wait_for_readers(REJOIN_S_MAX)
            self.asked.clear()
            self.refused = False
            self._rejoining = False
            self._effect = _Effect("return", HEAL_TRADES)
        self._start_ledgers()
        tick_us = self.now_us - self.now_us % self._tick_us + self._tick_us
        limit_us = self._clock.limit_us()
        if self.end_us is not None:
            limit_us = min(limit_us, self.end_us)
        step_us = min(tick_us, limit_us)
        if not self._clock.full_speed:
            due_us = min(tick_us, self._next_trade_us(tick_us) + 1)
            if step_us < due_us and step_us != self.end_us:
                # Time passes and nothing happens.
                self._set_now(max(step_us, self.now_us))
                await self._clock.wait_until(due_us)
                return
        if self._effect is None:
            fault = self._faults.take_stream(self.published)
            if fault is not None:
                await self._begin(fault)
                return
        effect = self._effect
        if effect is not None:
            self._suffer(effect, step_us)
        else:
            at_trade = self._faults.next_at_trade
            most = BATCH_TRADES_MAX if at_trade is None else at_trade - self.published
            self._sender.send_trades(self._take(step_us, min(most, BATCH_TRADES_MAX)))
        await self._after_batch()
        if not self._clock.full_speed:
            await asyncio.sleep(REST_S_PER_MARKET * len(self._feeds))
        if effect is not None and effect.kind == "return" and effect.trades_left <= 0:
            await self._wait_for_healing()

    async def _after_batch(self) -> None:
        self._sender.send_closed_candles()
        if self.now_us % self._tick_us == 0:
            self._sender.send_open_candles(self.now_us, only_changed=True)
        await self._sender.flush()

    def _next_trade_us(self, latest_us: int) -> int:
        for feed in self._feeds:
            rows = feed.market.rows(feed.published, feed.published + 1)
            if rows:
                latest_us = min(latest_us, rows[0].trade_time_us)
        return latest_us

    def _take(self, step_us: int, most: int) -> list[Unit]:
        # Publish up to a time, or fewer trades when there are more than `most`.
        step_us, ends, count = self._reach(step_us)
        busy = [f for f, end in zip(self._feeds, ends, strict=True) if end > f.published]
        units: list[Unit]
        if len(busy) <= 1:
            units = [
                (feed, feed.published, feed.market.rows(feed.published, end)[:most])
                for feed, end in zip(self._feeds, ends, strict=True)
                if end > feed.published
            ]
        else:
            singles = [
                single
                for order, (feed, end) in enumerate(zip(self._feeds, ends, strict=True))
                for single in _singles(feed, order, end)
            ]
            singles.sort(key=lambda single: single[:3])
            units = _runs(singles[:most])
        for feed, _, rows in units:
            feed.published += len(rows)
            self.published += len(rows)
        if count > most:
            # The rest of this instant is still to come.
            step_us = max(self.now_us, units[-1][2][-1].trade_time_us) if units else self.now_us
        self._set_now(step_us)
        return units

    def _reach(self, step_us: int) -> tuple[int, list[int], int]:
        # Return a time, each feed's position at it, and how many trades lie before. Who is behind
        # goes less far: what is looked at and not taken would be looked at again with each batch.
        while True:
            ends = [feed.market.position_at(step_us) for feed in self._feeds]
            count = sum(end - feed.published for feed, end in zip(self._feeds, ends, strict=True))
            span_us = step_us - self.now_us
            if count <= BATCH_TRADES_MAX or span_us <= 1:
                return step_us, ends, count
            step_us = self.now_us + max(1, min(span_us // 2, span_us * BATCH_TRADES_MAX // count))

    def _set_now(self, time_us: int) -> None:
        self.now_us = time_us
        for feed in self._feeds:
            feed.now_us = time_us

    def _start_ledgers(self) -> None:
        # In a market without end, what was printed before anyone listened is history.
        if self._clock.full_speed or self.end_us is not None:
            return
        for feed in self._feeds:
            if not feed.watched:
                feed.begin = feed.published
                feed.watched = bool(self._sender.subscribers("trades", feed.symbol))

    # Readers

    def subscribe(self, socket: ClientSocket, channels: Iterable[Channel]) -> None:
        """Open channels of a socket."""
        self._sender.subscribe(socket, channels)
        self.changed.set()

    def unsubscribe(self, socket: ClientSocket, channels: Iterable[Channel]) -> None:
        """Close channels of a socket: who unsubscribes does not come back."""
        for channel in channels:
            socket.close_channel(channel)
            self.expected.discard((channel.kind, channel.symbol))
        self.changed.set()

    async def _wait_for_readers(self, seconds_max: float | None) -> None:
        try:
            async with asyncio.timeout(seconds_max):
                while self.missing:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            # They will not come back: go on without them.
            self.expected -= set(self.missing)

    async def _wait_for_healing(self) -> None:
        # At full speed the newest 60 trades, all that some exchange shows, would soon be gone.
        for seconds in (HEAL_S_MAX, HEAL_REFUSED_S_MAX):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.asked.wait(), seconds)
            if self.asked.is_set() or not self.refused:
                return

    def left(self, socket: ClientSocket) -> None:
        """Forget a socket that is gone; at full speed the stream waits for its return."""
        if self.sockets.pop(socket.number, None) is not None:
            self._lost(socket)

    def _lost(self, socket: ClientSocket) -> None:
        if not self.started or self.finished:
            return
        lost = {(c.kind, c.symbol) for c in socket.channels if c.kind in ("trades", "candles")}
        self.expected |= lost
        self._rejoining = self._rejoining or bool(lost)
        self.changed.set()

    # Faults

    async def _begin(self, fault: StreamFault) -> None:
        readers = [s for s in self.sockets.values() if _reads_trades(s)]
        if fault.kind == "garbage":
            self._sender.send_garbage(fault)
            await self._sender.flush()
        elif fault.kind == "stall":
            await self._sender.flush()
            await asyncio.sleep(fault.seconds)
        else:
            if fault.kind in ("close", "abort", "no-pong"):
                for socket in readers:
                    await self._break(fault.kind, socket)
            self._effect = _Effect(fault.kind, fault.trades)

    def _suffer(self, effect: "_Effect", step_us: int) -> None:
        # What the next trades meet, until the fault has had its number of them.
        units = self._take(step_us, 2 if effect.kind == "swap" else effect.trades_left)
        count = sum(len(rows) for _, _, rows in units)
        if effect.kind == "swap":
            swapped = len(units) == 1 and count == 2
            self._sender.send_swapped(units) if swapped else self._sender.send_trades(units)
            # Two trades of different moments or symbols are no swap: the next ones may be.
            effect.trades_left = 0 if swapped else effect.trades_left
        else:
            effect.trades_left -= count
            if effect.kind == "duplicate":
                self._sender.send_trades(units)
                self._sender.send_trades(units)
            elif effect.kind == "drop":
                self._sender.lose(units)
            elif effect.kind == "return" or not self._clock.full_speed:
                # The market goes on, and whoever is back hears it.
                self._sender.send_trades(units)
        if effect.trades_left <= 0:
            self._effect = None

    async def _break(self, kind: str, socket: ClientSocket) -> None:
        if kind == "close":
            await socket.close(1001, b"going away")
        elif kind == "abort":
            socket.abort()
        else:
            socket.flush()
            self._lost(socket)
            socket.dead = True
            socket.close_channels()
        if kind != "no-pong":
            self.left(socket)


@dataclass(slots=True)
class _Effect:
    kind: str
    trades_left: int


def _reads_trades(socket: ClientSocket) -> bool:
    return any(channel.kind == "trades" for channel in socket.channels)


def _singles(feed: Feed, order: int, end: int) -> Iterator[tuple[int, int, int, Feed, TradeRow]]:
    # A trade is printed after its predecessors, whatever its clock says.
    printed_us = 0
    for position, row in enumerate(feed.market.rows(feed.published, end), feed.published):
        printed_us = max(printed_us, row.trade_time_us)
        yield printed_us, order, position, feed, row


def _runs(singles: Sequence[tuple[int, int, int, Feed, TradeRow]]) -> list[Unit]:
    # Neighbours of one symbol become one unit.
    units: list[tuple[Feed, int, list[TradeRow]]] = []
    for _, _, position, feed, row in singles:
        if units and units[-1][0] is feed:
            units[-1][2].append(row)
        else:
            units.append((feed, position, [row]))
    return [(feed, first, rows) for feed, first, rows in units]
