"""A local exchange that floods: `python producers_flood.py EXCHANGE TRADES PER_FRAME`.

Speaks the exchange's dialect of the replay exchange, REST and websocket. Trades come as fast as the
client reads once it has subscribed, ids run on, and PER_FRAME of them share a frame where the
exchange has frames of several. Prints its address and runs until killed.
"""

import asyncio
import csv
import gzip
import os
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import cast

import orjson
from aiohttp import WSMsgType, web

from alpha_pulse.replay.dialects import DIALECTS
from alpha_pulse.replay.dialects.base import Dialect, Options, RestRequest
from alpha_pulse.replay.dialects.sockets import Channel, ClientSocket
from alpha_pulse.replay.markets.feeds import Feed
from alpha_pulse.replay.markets.market import Instrument, RecordedCandle, TradeRow
from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket

SYMBOL = "BTC/USDT"
BLOB_TRADES = 100
FIRST_ID = 1_000_000
# Longer than any exchange collects trades for one frame.
FRAME_US = 250_000
Printed = tuple[str, str, str]  # price, amount, side


def printed_trades() -> list[Printed]:
    """Return the trades of the Binance recording, else of a made-up market."""
    folder = os.environ.get("ALPHA_PULSE_RECORDINGS")
    path = Path(folder or "") / "binance-spot-btcusdt" / "trades.csv.gz"
    if folder and path.exists():
        with gzip.open(path, "rt") as file:
            return [(row["price"], row["amount"], row["side"]) for row in csv.DictReader(file)]
    market = SyntheticMarket(SYMBOL, 1, trades_per_minute=2_000)
    rows = market.rows(0, market.position_at(BEGIN_US + 600_000_000))
    return [(row.price, row.amount, row.side) for row in rows]


class FloodMarket:
    """One symbol's trades, `per_frame` of each moment and side; prices come over and over."""

    def __init__(self, symbol: str, printed: Sequence[Printed], per_frame: int) -> None:
        self._printed = printed
        self._per_frame = per_frame
        self.instrument = Instrument(symbol, price_digits=2, amount_digits=8)
        self.begin_us = self.complete_from_us = BEGIN_US
        self.end_us: int | None = None

    def position_at(self, time_us: int) -> int:
        """Return how many trades come before a time."""
        return max(0, -(-(time_us - BEGIN_US) // FRAME_US)) * self._per_frame

    def position_of(self, trade_id: int) -> int:
        """Return the position of a trade id."""
        return max(0, trade_id - FIRST_ID)

    def rows(self, first: int, end: int) -> Sequence[TradeRow]:
        """Return the trades at positions [first, end)."""
        found = []
        for place in range(first, end):
            frame = place // self._per_frame
            price, amount, _ = self._printed[place % len(self._printed)]
            side = self._printed[frame % len(self._printed)][2]
            at_us = BEGIN_US + frame * FRAME_US
            found.append(TradeRow(FIRST_ID + place, at_us, price, amount, side))
        return found

    def settled_us(self, close_us: int) -> int:
        """Return the close: times never step back here."""
        return close_us

    def own_candle(self, open_time_us: int) -> RecordedCandle | None:
        """Return None: the candles are sums of the trades."""
        return None

    def native_id(self, row: TradeRow) -> str:
        """Return the number, so that what is lost is seen on every exchange."""
        return str(row.trade_id)


class Flood:
    """The exchange: a dialect, and trades that wait for nothing but the client."""

    def __init__(self, dialect: Dialect, trades: int, per_frame: int) -> None:
        self._dialect = dialect
        self._trades = trades
        self._blob = -(-BLOB_TRADES // per_frame) * per_frame
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: list[list[bytes]] = []

    def make(self, symbol: str, name: str) -> None:
        """Make the frames before anybody reads them: made meanwhile, they come too slowly.

        Args:
            symbol: the market.
            name: of the channel that our producer and ccxt subscribe to.
        """
        channel, nobody = Channel("trades", symbol, name), cast(ClientSocket, Unread())
        self._ready = [self._frames(nobody, channel, first) for first in self._firsts()]

    def _firsts(self) -> range:
        return range(0, self._trades, self._blob)

    def _frames(self, socket: ClientSocket, channel: Channel, first: int) -> list[bytes]:
        market = self._dialect.by_symbol[channel.symbol].market
        rows = market.rows(first, min(first + self._blob, self._trades))
        return self._dialect.trade_frames(socket, channel, rows)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a REST request, or serve a websocket."""
        address = request.match_info["address"]
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve(request, "/" + address.partition("/")[2])
        reply = await self._dialect.rest(RestRequest(address, request.query, request.headers))
        body = orjson.dumps({} if reply is None else reply.body)
        status = 404 if reply is None else reply.status
        return web.Response(body=body, status=status, content_type="application/json")

    async def _serve(self, request: web.Request, path: str) -> web.StreamResponse:
        ws = web.WebSocketResponse(autoping=False, compress=False)
        await ws.prepare(request)
        socket = ClientSocket(1, path, ws, request)
        socket.put(self._dialect.greet(socket))
        self._open(socket, self._dialect.channels_of_url(path, request.query))
        async for message in ws:
            if message.type is WSMsgType.PING:
                socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                reply = self._dialect.on_text(socket, message.data)
                socket.put(reply.frames)
                self._open(socket, reply.subscribe)
        return ws

    def _open(self, socket: ClientSocket, channels: Sequence[Channel]) -> None:
        socket.flush()
        for channel in channels:
            socket.open_channel(channel)
            if channel.kind == "trades":
                self._tasks.add(asyncio.create_task(self._send(socket, channel)))

    async def _send(self, socket: ClientSocket, channel: Channel) -> None:
        # Aggregated trades of a combined stream are another's: they are made as they are sent.
        is_other = channel.name.endswith("@aggTrade")
        for number, first in enumerate(self._firsts()):
            socket.put(self._frames(socket, channel, first) if is_other else self._ready[number])
            socket.flush()
            await socket.drain()
            if socket.closed:
                return


class Unread:
    """What a dialect asks of a socket when it makes frames."""

    path = "/ws"

    def __init__(self) -> None:
        self._sequence = count()

    def next_sequence(self) -> int:
        """Return the number of the next frame."""
        return next(self._sequence)


async def main(exchange: str, trades: int, per_frame: int) -> None:
    """Serve until killed."""
    kind = DIALECTS[exchange]
    symbol = kind.unified_symbol(SYMBOL)
    feed = Feed(FloodMarket(symbol, printed_trades(), per_frame), symbol)
    flood = Flood(kind([feed], Options()), trades, per_frame)
    flood.make(symbol, "btcusdt@trade" if "binance" in exchange else "trades-all")
    app = web.Application()
    app.router.add_route("*", "/{address:.*}", flood.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
