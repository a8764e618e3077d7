"""A local exchange that floods: `python producers_flood.py FRAMES` prints its address and waits.

Speaks as much Binance as the contenders ask for. Trades come as fast as the client reads, ids run
on, on `/ws/…` as raw trades after a SUBSCRIBE, on `/stream?streams=…@aggTrade` at once.
"""

import asyncio
import csv
import gzip
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from alpha_pulse.replay.markets.synthetic import BEGIN_US, SyntheticMarket

BLOB_FRAMES = 100
UNSENT_BYTES_MAX = 256 * 1024
FIRST_ID = 1_000_000
Row = tuple[int, str, str, bool]  # time in ms, price, amount, the buyer is the maker


def recorded_rows() -> list[Row]:
    """Return the trades of the Binance recording, else of a made-up market."""
    folder = os.environ.get("ALPHA_PULSE_RECORDINGS")
    path = Path(folder or "") / "binance-spot-btcusdt" / "trades.csv.gz"
    if folder and path.exists():
        with gzip.open(path, "rt") as file:
            return [
                (
                    int(row["trade_time_us"]) // 1000,
                    row["price"],
                    row["amount"],
                    row["side"] == "sell",
                )
                for row in csv.DictReader(file)
            ]
    market = SyntheticMarket("BTC/USDT", 1, trades_per_minute=2_000)
    rows = market.rows(0, market.position_at(BEGIN_US + 600_000_000))
    return [(r.trade_time_us // 1000, r.price, r.amount, r.side == "sell") for r in rows]


def raw_trade(number: int, row: Row) -> str:
    """Return a frame of the stream `btcusdt@trade`."""
    time_ms, price, amount, maker = row
    return (
        f'{{"e":"trade","E":{time_ms},"s":"BTCUSDT","t":{number},"p":"{price}","q":"{amount}",'
        f'"T":{time_ms},"m":{"true" if maker else "false"},"M":true}}'
    )


def aggregate_trade(number: int, row: Row) -> str:
    """Return a frame of the combined stream `btcusdt@aggTrade`."""
    time_ms, price, amount, maker = row
    return (
        f'{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade","E":{time_ms},"s":"BTCUSDT",'
        f'"a":{number},"p":"{price}","q":"{amount}","f":{number},"l":{number},"T":{time_ms},'
        f'"m":{"true" if maker else "false"},"M":true}}}}'
    )


def blobs(rows: list[Row], frames: int, form: Callable[[int, Row], str]) -> Iterator[bytes]:
    """Yield websocket frames, many in one piece."""
    for start in range(0, frames, BLOB_FRAMES):
        parts = []
        for place in range(start, min(start + BLOB_FRAMES, frames)):
            payload = form(FIRST_ID + place, rows[place % len(rows)]).encode()
            size = len(payload)
            header = bytes([0x81, size]) if size < 126 else b"\x81\x7e" + struct.pack(">H", size)
            parts += [header, payload]
        yield b"".join(parts)


async def send(request: web.Request, pieces: Iterator[bytes]) -> None:
    """Write as fast as the client reads."""
    transport = request.transport
    for piece in pieces:
        if transport is None or transport.is_closing():
            return
        transport.write(piece)
        while transport.get_write_buffer_size() > UNSENT_BYTES_MAX:  # noqa: ASYNC110
            await asyncio.sleep(0.0005)


def application(rows: list[Row], frames: int) -> web.Application:
    """Return the exchange."""
    listing: dict[str, Any] = {
        "symbols": [
            {
                "symbol": "BTCUSDT",
                "status": "TRADING",
                "baseAsset": "BTC",
                "quoteAsset": "USDT",
                "permissions": ["SPOT"],
                "isSpotTradingAllowed": True,
                "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01000000"}],
            }
        ]
    }

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.json_response(listing if "exchangeInfo" in request.path else [])
        socket = web.WebSocketResponse(compress=False, autoping=True)
        await socket.prepare(request)
        tasks = []
        if "/stream" in request.path.rpartition(":")[2]:
            combined = "aggTrade" in request.query_string
            if combined:
                pieces = blobs(rows, frames, aggregate_trade)
                tasks.append(asyncio.create_task(send(request, pieces)))
        async for message in socket:
            if message.type is WSMsgType.TEXT and "SUBSCRIBE" in message.data:
                await socket.send_str('{"result":null,"id":1}')
                pieces = blobs(rows, frames, raw_trade)
                tasks.append(asyncio.create_task(send(request, pieces)))
        for task in tasks:
            task.cancel()
        return socket

    app = web.Application()
    app.router.add_route("*", "/{address:.*}", handle)
    return app


async def main(frames: int) -> None:
    """Serve until killed."""
    runner = web.AppRunner(application(recorded_rows(), frames), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
