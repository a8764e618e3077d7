"""Contender: what one writes first, ccxt.pro's `watch_trades` and one `send` for each trade.

Arguments: exchange, Kafka, namespace, frames. Its cache is made large enough to lose nothing.
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

QUIET_S = 2.0


async def main(url: str, kafka: str, namespace: str, frames: int) -> None:
    """Follow until every frame's record is acknowledged."""
    exchange: Any = ccxt.pro.binance(
        {"options": {"fetchMarkets": {"types": ["spot"]}, "tradesLimit": frames}}
    )
    point_at(exchange, url)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=5)
    await producer.start()
    await exchange.load_markets()
    topic, count, cpu = f"{namespace}.ccxt", 0, 0.0
    await producer.send_and_wait(topic, b"warm")
    while count < frames:
        try:
            trades = await asyncio.wait_for(exchange.watch_trades("BTC/USDT"), QUIET_S)
        except TimeoutError:
            # What came while it was busy is returned only when something more comes.
            trades = exchange.trades["BTC/USDT"][count:]
        if not count:
            cpu = time.process_time()
        for trade in trades:
            value = orjson.dumps(
                {
                    "exchange": "binance",
                    "symbol": trade["symbol"],
                    "trade_id": trade["id"],
                    "price": trade["price"],
                    "amount": trade["amount"],
                    "side": trade["side"],
                    "timestamp": trade["timestamp"],
                }
            )
            await producer.send(topic, value, key=b"binance:BTC/USDT")
            count += 1
    await producer.flush()
    measured = {"records": count, "cpu_s": time.process_time() - cpu}
    await producer.stop()
    await exchange.close()
    print(json.dumps(measured))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
