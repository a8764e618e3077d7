"""Contender: cryptofeed and its Kafka backend, in an environment of its own.

Arguments: address, Kafka, namespace, trades. Needs nothing of this project.
"""

# mypy: ignore-errors

import asyncio
import json
import sys
import time

import cryptofeed.feed
import uvloop
from cryptofeed import FeedHandler
from cryptofeed.backends.kafka import TradeKafka
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint, WSAsyncConn
from cryptofeed.defines import TRADES
from cryptofeed.exchanges import Binance


class PlainSocket(WSAsyncConn):
    """A connection without TLS, which cryptofeed refuses to be given an address of."""

    def __init__(self, address, *args, **kwargs):
        super().__init__(address.replace("ws://", "wss://"), *args, **kwargs)
        self.address = address


class Counting(TradeKafka):
    """The backend, with its records counted as they are acknowledged."""

    def topic(self, data):
        """Count the record before this one as done: the backend awaits each."""
        self.count = getattr(self, "count", -1) + 1
        if self.count == 0:
            self.cpu = time.process_time()
        return f"{self.namespace}.cryptofeed"


def main(url: str, kafka: str, namespace: str, frames: int) -> None:
    """Follow until every frame's record is acknowledged."""
    cryptofeed.feed.WSAsyncConn = PlainSocket
    host = url.removeprefix("http://")
    Binance.websocket_endpoints = [WebsocketEndpoint(f"ws://{host}/stream.binance.com:9443")]
    Binance.rest_endpoints = [
        RestEndpoint(f"{url}/api.binance.com", routes=Routes("/api/v3/exchangeInfo"))
    ]
    backend = Counting(bootstrap_servers=kafka)
    backend.namespace = namespace
    handler = FeedHandler(config={"log": {"disabled": True}, "uvloop": False})
    handler.add_feed(Binance(symbols=["BTC-USDT"], channels=[TRADES], callbacks={TRADES: backend}))

    async def watch():
        while getattr(backend, "count", 0) < frames - 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        # The last record is in flight: one more turn for its acknowledgement.
        await asyncio.sleep(0.05)
        measured = {"records": backend.count, "cpu_s": time.process_time() - backend.cpu}
        print(json.dumps(measured), flush=True)
        asyncio.get_running_loop().stop()

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    handler.run(start_loop=False)
    task = loop.create_task(watch())
    loop.run_forever()
    del task


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
