"""One client's websocket, written to in batches of ready frames."""

import asyncio
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from aiohttp import web

# Above the first the sender waits (full speed); above the second the reader is too slow for a
# market that does not wait, and is disconnected as the real exchanges do.
WAIT_ABOVE_BYTES = 262_144
TOO_SLOW_BYTES = 16_777_216
POLL_S = 0.0005

_TEXT, _PING, _PONG = b"\x81", b"\x89", b"\x8a"


@dataclass(frozen=True, slots=True)
class Channel:
    """What a socket subscribed to: trades, or candles of a timeframe, of one symbol."""

    kind: str
    symbol: str
    name: str
    timeframe: str = ""


class ClientSocket:
    """A websocket of one client and its subscriptions.

    Frames go to the transport directly and in batches: aiohttp's writer costs several times as
    much per frame. Nothing is compressed, so that the two may write in turn.
    """

    def __init__(self, number: int, path: str, ws: web.WebSocketResponse, request: web.Request):
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left before its websocket was ready")
        self.number = number
        self.path = path
        self.ws = ws
        self.channels: dict[Channel, None] = {}
        self._by_market: dict[tuple[str, str], list[Channel]] = {}
        self.frames_sent = 0
        self.sequence = 0
        # A dead peer: the socket stays open, answers nothing and sends nothing.
        self.dead = False
        self._transport = transport
        self._out: list[bytes] = []

    @property
    def closed(self) -> bool:
        """Return whether nothing can be sent any more."""
        return self._transport.is_closing() or self.ws.closed

    @property
    def unsent_bytes(self) -> int:
        """Return how much the client has not taken yet."""
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def open_channel(self, channel: Channel) -> None:
        """Add a channel."""
        self.channels[channel] = None
        self._by_market.setdefault((channel.kind, channel.symbol), []).append(channel)

    def close_channel(self, channel: Channel) -> None:
        """Remove a channel, if it is open."""
        if channel in self.channels:
            del self.channels[channel]
            self._by_market[channel.kind, channel.symbol].remove(channel)

    def close_channels(self) -> None:
        """Remove all channels."""
        self.channels.clear()
        self._by_market.clear()

    def channels_of(self, kind: str, symbol: str) -> list[Channel]:
        """Return the channels of one kind and symbol, in the order in which they were opened."""
        return self._by_market.get((kind, symbol), [])

    def next_sequence(self) -> int:
        """Return the number of this connection's next frame, from 0, for those who number."""
        self.sequence += 1
        return self.sequence - 1

    def put(self, payloads: Iterable[bytes]) -> None:
        """Add text frames to the batch."""
        if self.dead:
            return
        out = self._out
        count = len(out)
        for payload in payloads:
            out.append(_text_header(len(payload)))
            out.append(payload)
        self.frames_sent += (len(out) - count) // 2

    def flush(self) -> None:
        """Hand the batch to the transport."""
        if self._out and not self.closed:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    async def drain(self, above_bytes: int = WAIT_ABOVE_BYTES) -> None:
        """Wait until the client has read all but so many bytes, or has gone."""
        # A transport tells how much it holds, and has no public event for it.
        while not self.closed and self.unsent_bytes > above_bytes:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    def ping(self) -> None:
        """Send a ping frame."""
        self._control(_PING, b"%d" % self.frames_sent)

    def pong(self, payload: bytes) -> None:
        """Answer a ping frame."""
        self._control(_PONG, payload)

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._out.clear()
        self._transport.abort()

    async def close(self, code: int, message: bytes) -> None:
        """Say goodbye and close; a peer that does not answer is cut."""
        self.flush()
        try:
            await asyncio.wait_for(self.ws.close(code=code, message=message), 1.0)
        except (TimeoutError, ConnectionError):
            self.abort()

    def _control(self, kind: bytes, payload: bytes) -> None:
        if not self.dead and not self.closed:
            self.flush()
            self._transport.write(_header(kind, len(payload)) + payload)


@lru_cache(maxsize=4096)
def _text_header(size: int) -> bytes:
    return _header(_TEXT, size)


def _header(kind: bytes, size: int) -> bytes:
    # RFC 6455, 5.2: the server's frames are whole and unmasked.
    if size < 126:
        return kind + bytes([size])
    if size < 65_536:
        return kind + b"\x7e" + struct.pack(">H", size)
    return kind + b"\x7f" + struct.pack(">Q", size)
