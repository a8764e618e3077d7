"""Contender: what one writes first, ccxt.pro's `watch_trades` and one `send` for each trade.

Arguments: address, Kafka, namespace, trades, exchange. Its cache is made large enough to lose
nothing; it asks for the same channels as our producer, and its handlers are its own.
"""

import asyncio
import json
import sys
import time
from typing import Any

import ccxt.pro
import orjson
import uvloop
from aiokafka import AIOKafkaProducer

from alpha_pulse.producers.connection.client import point_at
from alpha_pulse.producers.exchanges.registry import exchange_of
from alpha_pulse.replay.dialects import DIALECTS

QUIET_S = 2.0


async def main(url: str, kafka: str, namespace: str, trades: int, name: str) -> None:
    """Follow until every trade's record is acknowledged."""
    room = exchange_of(name)
    kind = type(name, (*room.client_mixins, getattr(ccxt.pro, name)), {})
    exchange: Any = kind({"options": {**room.ccxt_options, "tradesLimit": trades}})
    point_at(exchange, url)
    symbol = DIALECTS[name].unified_symbol("BTC/USDT")
    key = f"{name}:{symbol}".encode()
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=5)
    await producer.start()
    await exchange.load_markets()
    topic, count, cpu = f"{namespace}.ccxt", 0, 0.0

    def begin(client: Any, message: Any = None) -> None:
        nonlocal cpu
        cpu = time.process_time()

    exchange.on_connected = begin
    await producer.send_and_wait(topic, b"warm")
    while count < trades:
        try:
            news = await asyncio.wait_for(exchange.watch_trades(symbol), QUIET_S)
        except TimeoutError:
            # What came while it was busy is returned only when something more comes.
            news = exchange.trades[symbol][count:]
        for trade in news:
            value = orjson.dumps(
                {
                    "exchange": name,
                    "symbol": trade["symbol"],
                    "trade_id": trade["id"],
                    "price": trade["price"],
                    "amount": trade["amount"],
                    "side": trade["side"],
                    "timestamp": trade["timestamp"],
                }
            )
            await producer.send(topic, value, key=key)
            count += 1
    await producer.flush()
    measured = {"records": count, "cpu_s": time.process_time() - cpu}
    await producer.stop()
    await exchange.close()
    print(json.dumps(measured))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4], int(sys.argv[4]), sys.argv[5]))
