"""The tap: every frame that ccxt's socket receives comes to us first, a loop turn's worth at once.

ccxt's own trade handlers cost 32 to 81 µs a trade and one bad frame kills their receive loop; here
a frame costs what its decoder costs and ccxt sees only what it must (acks, pings, errors). This
leans on the inside of ccxt 4.5.90 (`Client.receive_loop`, `receive`, `handle_message`,
`handle_text_or_binary_message`, `open`, `throttle`, `connection`; `Exchange.client`, `watch`,
`watch_multiple`, `on_connected`, `on_error`, `on_close`, `ws_dial_delay`);
`tests/producers/connection/test_ccxt_internals.py` holds it.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import cache, partial
from typing import Any

from aiohttp import WSMsgType
from ccxt.async_support.base.ws.client import MSG_SIZE_OVERHEAD

from alpha_pulse.contracts.roles.waiting import set_within
from alpha_pulse.producers.connection.lanes import ASKING, lane_url
from alpha_pulse.producers.connection.limiter import refusal
from alpha_pulse.producers.connection.pace import Pace
from alpha_pulse.producers.connection.redial import Redial
from alpha_pulse.producers.exchanges.adapter import Exchange
from alpha_pulse.producers.exchanges.limits import SocketLimits
from alpha_pulse.producers.liveness.heard import Heard

Frame = str | bytes
# An attribute of an Enum costs as much as a call.
_TEXT = WSMsgType.TEXT


class Socket:
    """What we know of one of ccxt's sockets.

    connected_at_us: monotonic; 0: not yet. lost: whether it was open, or was to be, and is not any
    more. hand_on: gives a frame to ccxt. ping: sends a ping that carries this.
    """

    def __init__(
        self,
        url: str,
        hand_on: Callable[[Frame], None],
        ping: Callable[[bytes], None] = lambda payload: None,
    ) -> None:
        self.url = url
        self.hand_on = hand_on
        self.ping = ping
        self.connected_at_us = 0
        self.lost = False
        self.heard = Heard()

    @property
    def is_open(self) -> bool:
        """Whether it is connected now."""
        return bool(self.connected_at_us) and not self.lost


OnFrames = Callable[[Socket, list[Frame]], None]


class Tap:
    """The part of a tapped exchange that is ours.

    on_frames: called with the frames of a loop turn, in order. on_tapped: called with each new
    socket, before its first frame. gate: while it is cleared nothing more is read from this
    exchange (back-pressure as far as TCP). redial: when a socket may be opened. limits: how much
    may be sent on one. dialing: who opens a socket or waits for its turn.
    """

    on_frames: OnFrames
    on_tapped: Callable[[Socket], None] | None = None
    gate: asyncio.Event | None = None
    redial: Redial
    limits: SocketLimits
    dialing: set[asyncio.Task[None]]

    def client(self, url: str) -> Any:
        """Return ccxt's client of a URL in our lane, tapped."""
        client = super().client(lane_url(url))  # type: ignore[misc]
        if "receive" not in client.__dict__:
            self._tap(client)
        return client

    def watch(
        self,
        url: str,
        message_hash: Any,
        message: Any = None,
        subscribe_hash: Any = None,
        subscription: Any = None,
    ) -> Any:
        """Subscribe, and say so where ccxt sends nothing because it has asked before."""
        self._note_asking(url, [subscribe_hash])
        return super().watch(  # type: ignore[misc]
            url, message_hash, message, subscribe_hash, subscription
        )

    def watch_multiple(
        self,
        url: str,
        message_hashes: Any,
        message: Any = None,
        subscribe_hashes: Any = None,
        subscription: Any = None,
    ) -> Any:
        """Subscribe to several; as `watch`."""
        self._note_asking(url, subscribe_hashes or ())
        return super().watch_multiple(  # type: ignore[misc]
            url, message_hashes, message, subscribe_hashes, subscription
        )

    def _note_asking(self, url: str, subscribe_hashes: Iterable[Any]) -> None:
        asking = ASKING.get()
        if asking is not None:
            known = self.client(url).subscriptions
            if not all(known.get(one) for one in subscribe_hashes):
                asking.is_waiting = True
            elif not asking.is_waiting:
                asking.sent()

    async def close(self) -> None:
        """Close all sockets, those that are still to be dialed too."""
        for dialing in self.dialing:
            dialing.cancel()
        await super().close()  # type: ignore[misc]

    def on_connected(self, client: Any, message: Any = None) -> None:
        """Note that a socket was opened; ccxt redials by itself and tells nobody else."""
        super().on_connected(client, message)  # type: ignore[misc]
        _pace(client.connection, Pace(self.limits))
        client.alpha_pulse_socket.connected_at_us = time.monotonic_ns() // 1000
        self.redial.connected(client.url, time.monotonic())

    def on_error(self, client: Any, error: Any) -> None:
        """Note that a socket broke or could not be opened."""
        self._lost(client, error)
        super().on_error(client, error)  # type: ignore[misc]

    def on_close(self, client: Any, error: Any) -> None:
        """Note that a socket was closed."""
        self._lost(client, error)
        super().on_close(client, error)  # type: ignore[misc]

    def ws_dial_delay(self, url: str) -> float:
        """Return no wait: `redial` has every dial wait for its turn."""
        return 0.0

    def _lost(self, client: Any, error: Any) -> None:
        socket = client.alpha_pulse_socket
        if not socket.lost:
            socket.lost = True
            status, retry_after_s = refusal(error)
            self.redial.lost(
                client.url,
                time.monotonic(),
                refused=400 <= status < 500,
                retry_after_s=retry_after_s,
            )

    async def _dial_in_turn(
        self, client: Any, dial: Callable[[Any], Awaitable[None]], session: Any, delay: float = 0.0
    ) -> None:
        del delay  # ccxt's own: `redial` knows better
        task = asyncio.current_task()
        assert task is not None
        self.dialing.add(task)
        task.add_done_callback(self.dialing.discard)
        await self.redial.turn(client.url)
        await dial(session)

    def _tap(self, client: Any) -> None:
        socket = Socket(client.url, client.handle_text_or_binary_message, partial(_ping, client))
        handle_other = client.handle_message
        receive, receive_loop = client.receive, client.receive_loop
        on_frames = self.on_frames
        inbox: list[Frame] = []

        def handle(message: Any) -> None:
            if message.type is _TEXT:
                inbox.append(message.data)
            else:
                if message.type is WSMsgType.PONG:
                    socket.heard.answer(bytes(message.data))
                # Pings, pongs and closes; of what is packed ccxt calls `take` with the content.
                handle_other(message)

        def give() -> None:
            if inbox:
                frames = inbox.copy()
                inbox.clear()
                on_frames(socket, frames)

        def read_buffer() -> None:
            if not client.closed():
                _drain(client.buffer, inbox, handle)
            give()
            receive_loop()

        async def receive_when_open() -> Any:
            gate = self.gate
            while gate is not None and not gate.is_set():
                # Pongs are not read meanwhile: the socket is not dead, we are busy.
                client.lastPong = time.time_ns() // 1_000_000
                await set_within(1.0, gate)
            return await receive()

        client.open = partial(self._dial_in_turn, client, client.open)
        # ccxt's own throttle counts subscribes alone, and as if they were REST requests.
        client.throttle = _at_once
        client.alpha_pulse_socket = socket
        client.handle_message = handle
        client.handle_text_or_binary_message = inbox.append
        client.receive_loop = read_buffer
        client.receive = receive_when_open
        if self.on_tapped is not None:
            self.on_tapped(socket)


def _drain(buffer: deque[Any] | None, inbox: list[Frame], handle: Callable[[Any], None]) -> None:
    # As ccxt's own loop does, which looks its buffer up twice for every frame: all but the last.
    if not buffer or len(buffer) < 2:
        return
    read_bytes = 0
    while len(buffer) > 1:
        message, size = buffer.popleft()
        read_bytes += size + MSG_SIZE_OVERHEAD
        if message.type is _TEXT:
            inbox.append(message.data)
        else:
            handle(message)
    # aiohttp counts what waits, to pause the transport: the rest carries the sum.
    buffer[0] = (buffer[0][0], buffer[0][1] + read_bytes)


async def _at_once(cost: float = 1.0) -> None:
    return None


def _pace(connection: Any, pace: Pace) -> None:
    """Have all that is sent on a connection, by whomever, wait for its turn."""
    send_str, ping, pong = connection.send_str, connection.ping, connection.pong

    async def send_in_turn(text: str, *args: Any, **options: Any) -> None:
        if text == "ping" or '"ping"' in text:
            await pace.control()
            await send_str(text, *args, **options)
            return
        asking = ASKING.get()
        await pace.request()
        # Whoever asked hears of a lost connection by itself, and asks again.
        if not connection.closed:
            await send_str(text, *args, **options)
            if asking is not None:
                asking.is_waiting = False
                asking.sent()

    async def ping_in_turn(*args: Any) -> None:
        await pace.control()
        await ping(*args)

    async def pong_in_turn(*args: Any) -> None:
        await pace.control()
        if not connection.closed:
            await pong(*args)

    connection.send_str, connection.ping, connection.pong = (
        send_in_turn,
        ping_in_turn,
        pong_in_turn,
    )


def _ping(client: Any, payload: bytes) -> None:
    if not client.closed():
        sending = client.asyncio_loop.create_task(client.connection.ping(payload))
        sending.add_done_callback(_consume)


def _consume(sending: asyncio.Task[None]) -> None:
    # A socket that breaks while it is asked says so by itself.
    if not sending.cancelled():
        sending.exception()


class ExactNumbers:
    """For exchanges whose frames ccxt decodes: JSON numbers keep their digits, as text.

    ccxt's parsers make floats before `number = str` sees them.
    """

    def client(self, url: str) -> Any:
        """Return ccxt's client of a URL, with a parser that keeps digits."""
        client = super().client(url)  # type: ignore[misc]
        if "alpha_pulse_exact" not in client.__dict__:
            client.alpha_pulse_exact = True

            def hand_on(frame: Frame) -> None:
                text = frame if isinstance(frame, str) else frame.decode()
                is_json = text[:1] in ("{", "[")
                message = json.loads(text, parse_float=str) if is_json else text
                client.on_message_callback(client, message)

            client.handle_text_or_binary_message = hand_on
        return client

    @staticmethod
    def on_json_response(text: str) -> Any:
        """Return the JSON of a REST answer, its fractions as text."""
        return json.loads(text, parse_float=str)


@cache
def tapped(kind: type, exchange: Exchange) -> type:
    """Return the tapped form of a ccxt.pro exchange class; set `on_frames` on the instance.

    Args:
        kind: the class.
        exchange: what this exchange does its own way. Without a decoder ccxt decodes its frames.
    """
    exact = () if exchange.decoder is not None else (ExactNumbers,)
    return type(kind.__name__, (Tap, *exact, *exchange.client_mixins, kind), {})
