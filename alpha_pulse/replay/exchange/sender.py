"""What goes out: frames for the sockets that subscribed, and their note in the ledger."""

import asyncio
from collections.abc import Iterable, Sequence

from alpha_pulse.contracts.market import MINUTE_US
from alpha_pulse.replay.dialects.base import Dialect
from alpha_pulse.replay.dialects.sockets import TOO_SLOW_BYTES, Channel, ClientSocket
from alpha_pulse.replay.exchange.faults import StreamFault, garbage
from alpha_pulse.replay.exchange.ledger import Ledger
from alpha_pulse.replay.markets.candles import open_time_us
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import TradeRow

Unit = tuple[Feed, int, Sequence[TradeRow]]  # trades of one symbol, from a position on


class Sender:
    """The sockets of one exchange and all that is sent on them.

    waits: a slow reader holds everybody back (full speed); else it is disconnected.
    """

    def __init__(
        self, feeds: Sequence[Feed], dialect: Dialect, ledger: Ledger, *, waits: bool
    ) -> None:
        self.sockets: dict[int, ClientSocket] = {}
        self._feeds = feeds
        self._dialect = dialect
        self._ledger = ledger
        self._waits = waits

    def subscribe(self, socket: ClientSocket, channels: Iterable[Channel]) -> None:
        """Open channels of a socket; a snapshot comes first where the exchange sends one."""
        for channel in channels:
            if channel in socket.channels:
                continue
            socket.put(self._dialect.snapshot_frames(socket, channel))
            socket.open_channel(channel)
            if channel.kind == "trades" and self._dialect.snapshot_trades:
                self._note_snapshot(channel.symbol)
        socket.flush()

    def _note_snapshot(self, symbol: str) -> None:
        feed = next(feed for feed in self._feeds if feed.symbol == symbol)
        first = max(0, feed.published - self._dialect.snapshot_trades)
        if first < feed.published:
            feed.begin = min(feed.begin, first)
            feed.watched = True
            self._ledger.add_sent(symbol, first, feed.published)

    def subscribers(self, kind: str, symbol: str) -> list[tuple[ClientSocket, Channel]]:
        """Return the sockets, and their channels, that listen to a symbol."""
        return [
            (socket, channel)
            for socket in self.sockets.values()
            if not socket.dead
            for channel in socket.channels_of(kind, symbol)
        ]

    async def flush(self) -> None:
        """Hand everything to the sockets and let them be served."""
        for socket in list(self.sockets.values()):
            socket.flush()
            if self._waits:
                await socket.drain()
            elif socket.unsent_bytes > TOO_SLOW_BYTES:
                socket.abort()
        await asyncio.sleep(0)

    def send_trades(self, units: Sequence[Unit]) -> None:
        """Send trades, in order."""
        if self._dialect.mixes_symbols and len(units) > 1:
            self._send_mixed_trades(units)
            return
        for feed, first, rows in units:
            subscribers = self.subscribers("trades", feed.symbol)
            for socket, channel in subscribers:
                socket.put(self._dialect.trade_frames(socket, channel, rows))
            if subscribers:
                self._ledger.add_sent(feed.symbol, first, first + len(rows))

    def _send_mixed_trades(self, units: Sequence[Unit]) -> None:
        parts: dict[int, list[tuple[Channel, Sequence[TradeRow]]]] = {}
        for feed, first, rows in units:
            for socket, channel in self.subscribers("trades", feed.symbol):
                parts.setdefault(socket.number, []).append((channel, rows))
                self._ledger.add_sent(feed.symbol, first, first + len(rows))
        for number, given in parts.items():
            socket = self.sockets[number]
            socket.put(self._dialect.mixed_trade_frames(socket, given))

    def send_closed_candles(self) -> None:
        """Send the final candles of the minutes whose trades have all been sent, once."""
        for feed in self._feeds:
            while feed.candles.is_closed(feed.open_minute_us + MINUTE_US, feed.now_us):
                close_us = feed.open_minute_us + MINUTE_US
                if feed.candles.closed_minute(feed.open_minute_us) is not None:
                    self._ledger.closed_candles[feed.symbol] += 1
                for socket, channel in self.subscribers("candles", feed.symbol):
                    self._send_closed_candle(feed, socket, channel, close_us)
                feed.open_minute_us = close_us

    def _send_closed_candle(
        self, feed: Feed, socket: ClientSocket, channel: Channel, close_us: int
    ) -> None:
        if open_time_us(close_us, channel.timeframe) != close_us:
            return
        open_us = open_time_us(close_us - 1, channel.timeframe)
        candle = feed.candles.candle(open_us, channel.timeframe, feed.published, feed.now_us)
        if candle is not None:
            frames = self._dialect.candle_frames(
                socket, channel, candle, closed=True, event_time_us=feed.now_us
            )
            socket.put(frames)

    def send_open_candles(self, event_time_us: int, *, only_changed: bool) -> None:
        """Send the unfinished candles, and what is sent from time to time in any case."""
        for feed in self._feeds:
            if only_changed and feed.interim_at == feed.published:
                continue
            feed.interim_at = feed.published
            for socket, channel in self.subscribers("candles", feed.symbol):
                candle = feed.candle_now(channel.timeframe)
                # A candle whose beginning was not recorded never becomes final, and where an
                # exchange has no final mark its last open version would be taken for it.
                if candle is not None and candle.open_time_us >= feed.market.complete_from_us:
                    frames = self._dialect.candle_frames(
                        socket, channel, candle, closed=False, event_time_us=event_time_us
                    )
                    socket.put(frames)
        for socket in self.sockets.values():
            socket.put(self._dialect.beat_frames(socket))

    def send_garbage(self, fault: StreamFault) -> None:
        """Send a spoiled copy of the next trade's frame; the trade itself follows unharmed."""
        for feed in self._feeds:
            rows = feed.market.rows(feed.published, feed.published + 1)
            subscribers = self.subscribers("trades", feed.symbol)
            if rows and subscribers:
                name = self._dialect.wire_symbol(feed)
                for socket, channel in subscribers:
                    frame = self._dialect.trade_frames(socket, channel, rows)[0]
                    socket.put([fault.payload or garbage(fault.garbage, frame, rows[0], name)])
                    self._ledger.garbage_frames[fault.garbage] += 1
                return

    def send_swapped(self, units: Sequence[Unit]) -> None:
        """Send the first trade of each unit after the others."""
        for feed, first, rows in units:
            self.send_trades([(feed, first + 1, rows[1:]), (feed, first, rows[:1])])

    def lose(self, units: Sequence[Unit]) -> None:
        """Make frames that get lost on the way: a numbered connection shows the hole."""
        for feed, _, rows in units:
            for socket, channel in self.subscribers("trades", feed.symbol):
                self._dialect.trade_frames(socket, channel, rows)
