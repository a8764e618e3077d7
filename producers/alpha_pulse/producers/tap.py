"""The tap: every frame that ccxt's socket receives passes by us first.

ccxt's own trade handlers cost 32 to 81 µs a trade and one bad frame kills their receive loop; here
a frame costs what its decoder costs and ccxt sees only what it must (acks, pings, errors). This
leans on the inside of ccxt 4.5.90 (`Client.handle_text_or_binary_message`, `Client.receive`,
`Exchange.client`, `on_connected`); `tests/producers/test_ccxt_internals.py` holds it.
"""

import asyncio
import time
from collections.abc import Callable
from functools import cache
from typing import Any

# (socket, the frame as it came, hands the frame on to ccxt)
OnFrame = Callable[["Socket", str | bytes, Callable[[Any], None]], None]


class Socket:
    """What we know of one of ccxt's sockets. `connected_at_us`: monotonic; 0: not yet."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connected_at_us = 0


class Tap:
    """The part of a tapped exchange that is ours.

    on_tapped: called with each new socket, before its first frame. gate: while it is cleared
    nothing more is read from this exchange (back-pressure as far as TCP).
    """

    on_frame: OnFrame
    on_tapped: Callable[[Socket], None] | None = None
    gate: asyncio.Event | None = None

    def client(self, url: str) -> Any:
        """Return ccxt's client of a URL, tapped."""
        client = super().client(url)  # type: ignore[misc]
        if "receive" not in client.__dict__:
            self._tap(client)
        return client

    def on_connected(self, client: Any, message: Any = None) -> None:
        """Note that a socket was opened; ccxt redials by itself and tells nobody else."""
        super().on_connected(client, message)  # type: ignore[misc]
        client.alpha_pulse_socket.connected_at_us = time.monotonic_ns() // 1000

    def _tap(self, client: Any) -> None:
        socket = Socket(client.url)
        hand_on = client.handle_text_or_binary_message
        receive = client.receive
        on_frame = self.on_frame

        def handle(frame: str | bytes) -> None:
            on_frame(socket, frame, hand_on)

        async def receive_when_open() -> Any:
            gate = self.gate
            while gate is not None and not gate.is_set():
                # Pongs are not read meanwhile: the socket is not dead, we are busy.
                client.lastPong = time.time_ns() // 1_000_000
                await _wait(gate, 1.0)
            return await receive()

        client.alpha_pulse_socket = socket
        if self.on_tapped is not None:
            self.on_tapped(socket)
        client.handle_text_or_binary_message = handle
        client.receive = receive_when_open


async def _wait(gate: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(gate.wait(), seconds)
    except TimeoutError:
        return


class _OneStream:
    # Binance opens a socket per stream name; all of ours share one, so that trades and candles of a
    # symbol arrive in the exchange's order.
    stream_name = "0"

    def stream(self, type: Any, subscriptionHash: Any, numSubscriptions: int = 1) -> str:
        return self.stream_name


class _PublicTradesAll:
    # OKX's channel of single trades needs no login; ccxt logs in all the same.
    async def authenticate(self, params: Any = None) -> None:
        return None


@cache
def tapped(kind: type) -> type:
    """Return the tapped form of a ccxt.pro exchange class; set `on_frame` on the instance."""
    if kind.__name__.startswith("binance"):
        return type(kind.__name__, (Tap, _OneStream, kind), {})
    if kind.__name__ == "okx":
        return type(kind.__name__, (Tap, _PublicTradesAll, kind), {})
    return type(kind.__name__, (Tap, kind), {})
