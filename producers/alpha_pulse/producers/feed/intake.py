"""The intake: raw frames to ticks, bad ones to dead letters, the rest to ccxt."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import structlog

from alpha_pulse.contracts.errors import ValidationError
from alpha_pulse.contracts.events import DeadLetter, Ids, Trade
from alpha_pulse.producers.connection.symbols import SymbolTable
from alpha_pulse.producers.connection.tap import Frame, Socket
from alpha_pulse.producers.exchanges.decoder import FrameDecoder
from alpha_pulse.producers.exchanges.generic import unified_trade
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.producers.exchanges.tick import (
    AHEAD_US_MAX,
    FrameError,
    FrameTime,
    Numbered,
    Tick,
    time_of,
)
from alpha_pulse.producers.feed.dead_letters import DeadLetters

log = structlog.get_logger()

FRAME_LENGTH_MAX = 4 * 2**20
# From here on decoding many frames at once pays.
TOGETHER_MIN = 4


class Intake:
    """Receives the frames of all sockets of one exchange.

    Args:
        name: the exchange's name in the log.
        client_id: ccxt's id of it.
        symbols: what it calls the symbols that are followed.
        on_trades: called with trades, and ids of none, in the stream's order, of any symbols, and
            our monotonic clock in µs.
        on_tick: called with any other tick, and our monotonic clock in µs.
        on_letter: called with a frame's dead letter, once.
        on_raw: called with every frame as it came (captures).
    """

    def __init__(
        self,
        name: str,
        client_id: str,
        symbols: SymbolTable,
        *,
        on_trades: Callable[[Sequence[Numbered], int], None],
        on_tick: Callable[[Tick, int], None],
        on_letter: Callable[[DeadLetter], None],
        on_raw: Callable[[Frame], None] | None = None,
    ) -> None:
        self.frames = 0
        self.dead_letters = DeadLetters(name)
        self._name = name
        self._make = exchange_of(client_id).decoder
        self._symbols = symbols
        self._decoders: dict[str, FrameDecoder] = {}
        self._on_trades = on_trades
        self._on_tick = on_tick
        self._on_letter = on_letter
        self._on_raw = on_raw

    def add_socket(self, socket: Socket) -> None:
        """Make the decoder of a socket's address; a new socket of it goes on with the old one."""
        if self._make is not None and socket.url not in self._decoders:
            self._decoders[socket.url] = self._make(self._name, self._symbols.at(socket.url))

    def receive(self, socket: Socket, frames: list[Frame]) -> None:
        """Decode the frames of one loop turn and hand their ticks on; never raises.

        Args:
            socket: the connection that they came on.
            frames: in the order in which they came.
        """
        now_us = time.monotonic_ns() // 1000
        received_us = time.time_ns() // 1000
        self.frames += len(frames)
        socket.heard.frames += len(frames)
        if self._on_raw is not None:
            for frame in frames:
                self._on_raw(frame)
        decode = self._decoders.get(socket.url)
        if decode is not None and len(frames) >= TOGETHER_MIN and _are_texts(frames):
            trades = decode.trades(frames, received_us)
            if trades is not None:
                if trades:
                    socket.heard.observe(time_of(trades[-1]), now_us)
                self._on_trades(trades, now_us)
                return
        for frame in frames:
            self._receive_one(socket, decode, frame, now_us, received_us)

    def receive_unified(self, rows: Sequence[Any]) -> None:
        """Hand on trades that ccxt decoded itself (exchanges without a decoder of ours).

        Args:
            rows: ccxt's unified trades, in the stream's order.
        """
        now_us = time.monotonic_ns() // 1000
        for row in rows:
            try:
                trade = unified_trade(self._name, str(row.get("symbol")), row)
                self._on_trades([trade], now_us)
            except (ValidationError, ValueError, KeyError) as error:
                frame = json.dumps(row.get("info") or row, default=str)
                self._refuse(frame, FrameError(f"expected a trade of ccxt: {error}"))

    def _receive_one(
        self,
        socket: Socket,
        decode: FrameDecoder | None,
        frame: Frame,
        now_us: int,
        received_us: int,
    ) -> None:
        try:
            if len(frame) > FRAME_LENGTH_MAX:
                raise FrameError(f"expected at most 4 MiB, found {len(frame)}", "too_large")
            text = frame if isinstance(frame, str) else frame.decode()
            ticks = decode(text, received_us) if decode is not None else None
            _check_times(ticks or (), received_us + AHEAD_US_MAX)
        except FrameError as error:
            self._refuse(frame, error)
            return
        except UnicodeDecodeError as error:
            self._refuse(frame, FrameError(f"expected UTF-8 text: {error}"))
            return
        if ticks is None:
            self._hand_on(socket, text)
            return
        trades = [tick for tick in ticks if isinstance(tick, Trade | Ids)]
        if trades:
            socket.heard.observe(time_of(trades[-1]), now_us)
            self._on_trades(trades, now_us)
        for tick in ticks:
            if isinstance(tick, Trade | Ids):
                continue
            if isinstance(tick, FrameTime):
                socket.heard.observe(tick.time_us, now_us)
            self._on_tick(tick, now_us)

    def _hand_on(self, socket: Socket, text: str) -> None:
        # An exception in here would end ccxt's receive loop, silently and for ever.
        try:
            socket.hand_on(text)
        except Exception as error:
            self._refuse(
                text,
                FrameError(f"expected a frame of {self._name}, found one ccxt refused: {error!r}"),
            )

    def _refuse(self, frame: Frame, error: FrameError) -> None:
        letter = self.dead_letters.make(frame, error, time.time_ns() // 1000)
        if letter is not None:
            log.warning("frame.refused", exchange=self._name, reason=letter.reason)
            self._on_letter(letter)


def _are_texts(frames: list[Frame]) -> TypeGuard[list[str]]:
    return set(map(type, frames)) == {str} and max(map(len, frames)) <= FRAME_LENGTH_MAX


def _check_times(ticks: Sequence[Tick], end_us: int) -> None:
    for tick in ticks:
        if isinstance(tick, Trade | Ids) and time_of(tick) >= end_us:
            raise FrameError(
                f"expected a trade of today at the latest, found the time {time_of(tick)}",
                "bad_time",
                tick.symbol,
            )
